"""The worst mistakes of a model, and their sound if the prepared copy still exists."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from input_pipeline.audio import from_int16
from input_pipeline.preparation import find_prepared
from input_pipeline.prepared import Prepared
from rann_jax import significance
from rann_jax.features.front_end import front_end
from rann_jax.features.plot import DYNAMIC_RANGE, mel_centers, place_frequencies
from rann_jax.report import plots
from rann_jax.report.collect import Run
from rann_jax.saved.predictions import Predictions

SECONDS = 10  # drawn of each clip, at most
FRAMES_PER_SECOND, BINS = 64, 64
COLUMNS = 4


@dataclasses.dataclass(frozen=True)
class Mistake:
    """A clip on which a model was wrong.

    Attributes:
      run: run of the model.
      split: split of the clip, by its name in the config.
      clip: index of the clip in the split.
      id: name of the clip.
      labels: true classes of the clip.
      said: the wrong class and its probability.
      error: how wrong the probabilities are, 0 to 1; see `worst`.
    """

    run: Run
    split: str
    clip: int
    id: str
    labels: tuple[str, ...]
    said: str
    error: float


def worst(run: Run, split: str, count: int) -> list[Mistake]:
    """Return the mistakes of a run on a split, worst first.

    Classification: a mistake is a clip whose most probable class is wrong; its error is the difference to the
    probability of the right class. Tagging: of each clip, the class whose probability is farthest from the
    truth, if it is on the wrong side of one half.
    """
    scored = run.predictions[split]
    labels, targets = scored.labels, scored.targets
    classes, errors = _errors(scored)
    found = []
    for clip in np.argsort(-errors, kind="stable")[:count]:
        if errors[clip] <= 0:
            break
        c = classes[clip]
        said = f"{labels[c]} {scored.probabilities[clip, c]:.3f}"
        true = tuple(str(label) for label in labels[targets[clip] > 0])
        found.append(Mistake(run, split, int(clip), str(scored.ids[clip]), true, said, float(errors[clip])))
    return found


def _errors(scored: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return the wrong class (n,) of each clip and its error (n,), which is 0 if the clip is right."""
    probs, targets = scored.probabilities.astype(np.float64), scored.targets
    clips = np.arange(len(probs))
    if scored.task == "tagging":
        distance = np.abs(targets - probs)
        classes = distance.argmax(axis=1)
        errors = distance[clips, classes]
        return classes, np.where(errors > 0.5, errors, 0)
    classes = probs.argmax(axis=1)
    errors = probs[clips, classes] - (probs * targets).max(axis=1)
    return classes, np.where(significance.right(targets, probs) > 0, 0, errors)


def sounds(mistakes: Sequence[Mistake]) -> list[np.ndarray | None]:
    """Return the waveform (n,) float32 of each; None if no prepared copy of exactly these clips exists."""
    copies: dict[tuple[int, str], Prepared | None] = {}
    waves: list[np.ndarray | None] = []
    for mistake in mistakes:
        key = id(mistake.run), mistake.split
        if key not in copies:
            copies[key] = _copy(mistake.run, mistake.split)
        copy = copies[key]
        waves.append(None if copy is None else _sound(copy, mistake))
    return waves


def _copy(run: Run, split: str) -> Prepared | None:
    config, fingerprint = run.config, run.predictions[split].fingerprint
    try:
        return find_prepared(
            str(config.dataset.name),
            str(config.splits[split]),
            fingerprint,
            sample_rate=int(config.sample_rate),
            prepared_dir=str(config.prepared_dir),
            data_dir=str(config.data_dir),
        )
    except (AttributeError, KeyError, TypeError, ValueError):
        return None  # a config that names no data: nothing to draw


def _sound(copy: Prepared, mistake: Mistake) -> np.ndarray:
    clip = copy.source(str(mistake.run.config.splits[mistake.split]))[mistake.clip]
    return from_int16(np.asarray(clip["audio"]))


def spectrograms(mistakes: Sequence[Mistake], waves: Sequence[np.ndarray | None]) -> Figure:
    """Draw log-mel spectrograms of those whose sound exists, each in dB below its loudest cell."""
    drawn = [(m, w) for m, w in zip(mistakes, waves, strict=True) if w is not None and len(w)]
    rate = int(drawn[0][0].run.config.sample_rate)
    seconds = [min(len(wave) / rate, SECONDS) for _, wave in drawn]
    made = front_end(
        "log_mel",
        sample_rate=rate,
        seconds=math.ceil(max(seconds)),
        frames_per_second=FRAMES_PER_SECOND,
        n_bins=BINS,
    )
    batch = np.zeros((len(drawn), made.n_samples), np.float32)
    for row, (_, wave) in zip(batch, drawn, strict=True):
        row[: len(wave)] = wave[: len(row)]
    images = np.asarray(made(batch))
    figure, panels = plots.panels(len(drawn), COLUMNS, size=(3.1, 2.5))
    for axes, image, length, (mistake, _) in zip(panels, images, seconds, drawn, strict=True):
        image = image[:, : max(1, math.ceil(length * FRAMES_PER_SECOND))]
        peak = float(image.max())
        edges = (0, image.shape[1] / FRAMES_PER_SECOND, -0.5, BINS - 0.5)
        shades = Normalize(peak - DYNAMIC_RANGE, peak)
        axes.imshow(image, origin="lower", aspect="auto", extent=edges, cmap="magma", norm=shades)
        place_frequencies(axes, mel_centers(made))
        axes.set_ylabel("")
        title = f"{plots.short(mistake.id, 30)}\nis {plots.short(', '.join(mistake.labels) or 'none', 26)}"
        axes.set_title(f"{title}\nsaid {plots.short(mistake.said, 26)}", loc="left", fontsize=8)
        axes.tick_params(labelsize=7)
    figure.supxlabel("seconds; frequencies in Hz", fontsize=8)
    return figure
