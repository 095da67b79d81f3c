"""Demonstration of every augmentation on one recording, as sounds and one picture.

The picture shows mel spectrograms on one scale, from the loudest cell of the recording to 80 dB below it.
"""

import dataclasses
import functools
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import librosa
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from rann_jax import features
from rann_jax.augment.policy import AUGMENTATIONS
from rann_jax.augment.stretch import default_n_fft
from rann_jax.features.plot import DYNAMIC_RANGE, INK, place_frequencies

BINS = 128
COLUMNS = 3
NAMES = ("original", "partner", *AUGMENTATIONS)  # names of the examples


@dataclasses.dataclass(frozen=True)
class Example:
    """A sound and how it was made.

    Attributes:
      name: name of the augmentation, or "original" or "partner".
      how: the value drawn, the share of the original in a mixture, or else the range that was drawn from.
      sound: float32 (N,).
      image: mel spectrogram in dB (BINS, T).
    """

    name: str
    how: str
    sound: np.ndarray
    image: np.ndarray


def demonstrate(sound: np.ndarray, partner: np.ndarray, sample_rate: int, seed: int) -> list[Example]:
    """Return the recording, its partner in mixtures, and the recording with each augmentation applied.

    Args:
      sound: float32 (N,).
      partner: float32 (N,).
      sample_rate: sample rate of both, in Hz.
      seed: random seed.

    Raises:
      ValueError: the sound is too long for an augmentation.
    """
    heard = functools.partial(_image, sample_rate=sample_rate)
    examples = [
        Example("original", "", sound, heard(sound)),
        Example("partner", "what the mixtures add", partner, heard(partner)),
    ]
    audio = np.stack([sound, partner])  # an example is mixed with the one after it
    for number, (name, cls) in enumerate(AUGMENTATIONS.items()):
        takes_rate = any(field.name == "sample_rate" for field in dataclasses.fields(cls))
        augmentation = cls(sample_rate=float(sample_rate)) if takes_rate else cls()
        key = jax.random.fold_in(jax.random.key(seed), number)
        if augmentation.on == "audio":
            changed, share = _augmented(augmentation, key, audio)
            image = heard(changed)
        else:
            images = np.stack([examples[0].image, examples[1].image])
            image, share = _augmented(augmentation, key, images)
            changed = resounded(sound, image - examples[0].image, sample_rate)
        if share is not None:
            how = f"{share:.0%} original"
        elif hasattr(augmentation, "draw"):
            how = augmentation.drawn.format(float(augmentation.draw(key, jnp.asarray(audio))[0]))
        else:
            how = _range(augmentation)
        examples.append(Example(name, how, changed, image))
    return examples


@functools.partial(jax.jit, static_argnums=0)
def _run(augmentation: Any, key: jax.Array, x: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    return augmentation(key, x, labels)


def _augmented(augmentation: Any, key: jax.Array, x: np.ndarray) -> tuple[np.ndarray, float | None]:
    """Return the first of x (B, ...), augmented, and its share if others were mixed in, otherwise None."""
    identity = jnp.eye(len(x), dtype=jnp.float32)
    changed, labels = _run(augmentation, key, x, identity)
    mixed = bool((labels != identity).any())
    return np.asarray(changed[0]), float(labels[0, 0]) if mixed else None


def _range(augmentation: Any) -> str:
    values = {field.name: getattr(augmentation, field.name) for field in dataclasses.fields(augmentation)}
    return "range: " + ", ".join(
        f"{name} {value:g}" for name, value in values.items() if name != "sample_rate"
    )


def _image(sound: np.ndarray, *, sample_rate: int) -> np.ndarray:
    n_fft = default_n_fft(sample_rate)
    y = jnp.asarray(sound)
    power = features.melspectrogram(y, sr=sample_rate, n_fft=n_fft, hop_length=n_fft // 4, n_mels=BINS)
    return np.asarray(features.power_to_db(power, top_db=DYNAMIC_RANGE))


def resounded(sound: np.ndarray, gain_db: np.ndarray, sample_rate: int) -> np.ndarray:
    """Return the sound with a gain (BINS, T) in dB, found in its mel spectrogram, applied to its STFT."""
    n_fft = default_n_fft(sample_rate)
    centers = librosa.mel_frequencies(BINS + 2, fmax=sample_rate / 2)[1:-1]
    at = np.fft.rfftfreq(n_fft, 1 / sample_rate)
    nearest = np.abs(at[:, None] - centers).argmin(axis=1)
    spectra = np.asarray(features.stft(jnp.asarray(sound), n_fft=n_fft))
    louder = spectra * np.power(10, gain_db[nearest] / 20)
    return np.asarray(features.istft(jnp.asarray(louder, jnp.complex64), n_fft=n_fft, length=len(sound)))


def draw(examples: list[Example], sample_rate: int, title: str) -> Figure:
    """Return a figure with the spectrograms of all examples on the same axes.

    Args:
      examples: examples of equal length and rate.
      sample_rate: sample rate in Hz.
      title: title above the picture.
    """
    rows = -(-len(examples) // COLUMNS)
    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08)
    figure = Figure(figsize=(15, 2.9 * rows + 0.6), dpi=110, layout=layout, facecolor="white")
    panels = figure.subplots(rows, COLUMNS, squeeze=False).ravel()
    peak = float(examples[0].image.max())
    seconds = len(examples[0].sound) / sample_rate
    centers = librosa.mel_frequencies(BINS + 2, fmax=sample_rate / 2)[1:-1]
    for axes, example in zip(panels, examples, strict=False):
        drawn = axes.imshow(
            example.image,
            origin="lower",
            aspect="auto",
            cmap="magma",
            extent=(0, seconds, -0.5, BINS - 0.5),
            vmin=peak - DYNAMIC_RANGE,
            vmax=peak,
        )
        place_frequencies(axes, centers)
        _label(axes, example)
    for axes in panels[len(examples) :]:
        axes.set_visible(False)
    bar = figure.colorbar(drawn, ax=list(panels), pad=0.01, fraction=0.02, aspect=40)
    bar.set_label("dB", color=INK)
    bar.outline.set_visible(False)
    figure.suptitle(title, x=0.012, ha="left", fontsize=15, color=INK, parse_math=False)
    return figure


def _label(axes: Axes, example: Example) -> None:
    name = example.name.replace("_", " ")
    how = textwrap.fill(example.how, 50)
    pad = 19 + 11 * how.count("\n")
    axes.set_title(name, loc="left", pad=pad, fontsize=12, fontweight="bold", color=INK)
    axes.annotate(how, (0, 1), (0, 5), "axes fraction", "offset points", fontsize=8, color=INK)
    axes.set_xlabel("time (s)", color=INK)
    axes.yaxis.label.set_color(INK)
    axes.tick_params(colors=INK, labelsize=9, length=3)
    axes.spines[:].set_visible(False)
