"""Answers of the page and the JSON endpoint, computed from the bytes of a sound."""

import base64
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from input_pipeline import audio
from input_pipeline.audio import AudioError
from rann_jax.features.plot import DYNAMIC_RANGE
from rann_jax.report.mel_columns import MEL_BANDS, MelColumns
from rann_jax.tagging.events import Choice
from rann_jax.tagging.formats import tags_as_json
from rann_jax.tagging.listener import Listener
from rann_jax.tagging.timeline import Timeline, joined

COLUMNS = 1024  # of the spectrogram
UNKNOWN_SECONDS = 1e9  # headers that leave the length open claim more


def answer(
    listener: Listener,
    models: list[str],
    sound: bytes,
    *,
    max_seconds: float,
    max_windows: int,
    between_batches: Callable[[], None],
    top: int,
    hop_seconds: float | None = None,
    spectrogram: bool = False,
) -> dict[str, Any]:
    """Return what a model or an ensemble finds in a sound file, as plain JSON.

    Args:
      listener: the model, or the ensemble.
      models: names of its models, in order.
      sound: the bytes of a file of any format.
      max_seconds: the longest sound accepted.
      max_windows: the most windows accepted.
      between_batches: called after each batch of windows; what it raises ends the work.
      top: number of classes to return.
      hop_seconds: distance between windows; None is half a window.
      spectrogram: whether to add one, as `spectrogram_as_json` describes it.

    Raises:
      AudioError: the sound cannot be decoded, or is broken, empty, too long or at an impossible sample rate.
    """
    longest, why = max_seconds, ""
    if (covered := seconds_covered(listener, max_windows, hop_seconds)) < max_seconds:
        longest, why = covered, f" at this hop ({max_windows} windows)"
    with audio.stream(sound) as stream:
        if longest < stream.seconds < UNKNOWN_SECONDS:
            raise AudioError(f"it is {stream.seconds:g} s long, more than the {longest:g} s allowed{why}")
        blocks = at_most(stream.blocks, stream.rate, longest, why)
        columns = MelColumns(stream.rate, listener.sample_rate / 2, COLUMNS) if spectrogram else None
        if columns:
            blocks = columns.watching(blocks)
        parts = []
        for part in listener.stream_checked(blocks, stream.rate, hop_seconds=hop_seconds):
            parts.append(part)
            between_batches()
    if not parts:
        raise AudioError("no samples")
    result = timeline_as_json(joined(parts), models, top) | {"sample_rate": stream.rate}
    if columns:
        result["spectrogram"] = spectrogram_as_json(columns)
    return result


def windows_in(listener: Listener, seconds: float) -> int:
    """Return the number of windows in a sound at the default hop; none is as long as UNKNOWN_SECONDS."""
    beyond_first = max(0.0, min(seconds, UNKNOWN_SECONDS) * listener.sample_rate - listener.crop_samples)
    return 1 + math.ceil(beyond_first / listener.hop_samples(None))


def seconds_covered(listener: Listener, windows: int, hop_seconds: float | None) -> float:
    """Return the length of the longest sound that has no more than this number of windows."""
    samples = listener.crop_samples + (windows - 1) * listener.hop_samples(hop_seconds)
    return samples / listener.sample_rate


def at_most(
    blocks: Iterable[np.ndarray], rate: int, max_seconds: float, why: str = ""
) -> Iterator[np.ndarray]:
    """Yield the blocks unchanged; AudioError if they are too long, whatever the header claimed."""
    heard = 0
    for block in blocks:
        heard += len(block)
        if heard > max_seconds * rate:
            raise AudioError(f"it is longer than the {max_seconds:g} s allowed{why}")
        yield block


def timeline_as_json(timeline: Timeline, models: list[str], top: int) -> dict[str, Any]:
    """Return tags for the whole sound, and probabilities over time of the classes with the highest peaks.

    For an ensemble, add the mean conflict, the conflict of each window, and each model's own probabilities of
    the tags.
    """
    choice = Choice(top, threshold=0.0)
    # In the order of their peaks in time, so that the list follows the sound.
    shown = choice.ranked(timeline.probabilities.max(axis=0))
    shown = shown[np.argsort(timeline.probabilities[:, shown].argmax(axis=0), kind="stable")]
    over_time: dict[str, Any] = {
        "starts": _rounded(timeline.starts),
        "stops": _rounded(timeline.stops),
        "labels": [timeline.labels[c] for c in shown],
        "probabilities": _rounded(timeline.probabilities[:, shown]),
    }
    mean = _mean(timeline.probabilities)
    result: dict[str, Any] = {
        "seconds": round(float(timeline.stops[-1]), 3),
        "tags": tags_as_json(timeline.labels, mean, choice),
        "timeline": over_time,
    }
    if timeline.conflict is not None and timeline.by_model is not None:
        over_time["conflict"] = _rounded(timeline.conflict)
        result["conflict"] = round(float(_mean(timeline.conflict)), 6)
        result["models"] = models
        by_model = _mean(timeline.by_model)[:, choice.ranked(mean)].T
        for tag, probabilities in zip(result["tags"], by_model, strict=True):
            tag["by_model"] = np.round(probabilities, 6).tolist()
    return result


def spectrogram_as_json(sound: MelColumns) -> dict[str, Any]:
    """Return a mel spectrogram of at most COLUMNS columns.

    `levels` is base64 of bytes, column after column, lowest band first; 255 is the loudest cell, 0 is
    DYNAMIC_RANGE dB or more below it. `ticks` are frequencies in Hz and their bands.
    """
    begins, decibels = sound.decibels()
    levels = np.clip(1 + (decibels - decibels.max()) / DYNAMIC_RANGE, 0, 1)
    return {
        "begins": _rounded(np.array(begins)),
        "bands": MEL_BANDS,
        "ticks": sound.ticks(),
        "levels": base64.b64encode(np.rint(255 * levels).astype(np.uint8).tobytes()).decode(),
    }


def _mean(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=0, dtype=np.float64)


def _rounded(values: np.ndarray) -> list[Any]:
    return np.round(values.astype(np.float64), 4).tolist()
