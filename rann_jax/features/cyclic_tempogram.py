"""The cyclic tempogram, as in libfmp: tempi an octave apart count as one."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import clipwise
from rann_jax.features.stft import Framing, transformed
from rann_jax.features.tempogram import check_windows, checked_envelope


class TempoClasses(NamedTuple):
    """The classes of tempi that count as one: checked, hashable as one static argument of `jax.jit`.

    Attributes:
      frame_rate: frames of the envelope per second.
      tempo_ref: lowest tempo in BPM.
      octave_bin: classes per octave.
      octave_num: number of octaves that are averaged.
    """

    frame_rate: float
    tempo_ref: float
    octave_bin: int
    octave_num: int

    def filters(self, win_length: int) -> np.ndarray:
        """Return `tempo_filter_bank` for the spectra of windows of `win_length` frames."""
        return tempo_filter_bank(self, win_length)


@functools.lru_cache(maxsize=32)
def tempo_filter_bank(classes: TempoClasses, win_length: int) -> np.ndarray:
    """Return `(octave_bin, 1 + win_length // 2)`, which interpolates to log tempo and averages octaves.

    Raises:
      ValueError: tempi beyond what the frame rate and the window can show.
    """
    frame_rate, tempo_ref, octave_bin, octave_num = classes
    tempi = 60 * frame_rate * np.arange(1 + win_length // 2) / win_length
    wanted = tempo_ref * 2.0 ** (np.arange(octave_bin * octave_num) / octave_bin)
    if wanted[-1] > tempi[-1]:
        raise ValueError(
            f"octave_num={octave_num} octaves from tempo_ref={tempo_ref:g} BPM reach"
            f" {wanted[-1]:.0f} BPM, but {frame_rate:g} frames a second and win_length={win_length}"
            f" reach only {tempi[-1]:.0f}: use fewer octaves, a lower tempo_ref or a shorter hop_length"
        )
    identity = np.eye(len(tempi))
    bank = np.stack([np.interp(wanted, tempi, column) for column in identity], axis=1)
    return bank.reshape(octave_num, octave_bin, len(tempi)).mean(axis=0).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("windows", "classes"))
def _cyclic_tempogram(envelope: jax.Array, windows: Framing, classes: TempoClasses) -> jax.Array:
    bank = jnp.asarray(classes.filters(windows.win_length))

    def folded(envelopes: jax.Array) -> jax.Array:
        bins = transformed(envelopes, windows)
        return jnp.matmul(bank, jnp.abs(bins), precision=jax.lax.Precision.HIGHEST)

    return clipwise(folded, envelope)


def cyclic_tempogram(
    y: ArrayLike | None = None,
    *,
    sr: float = 22050,
    onset_envelope: ArrayLike | None = None,
    hop_length: int = 512,
    win_length: int = 384,
    center: bool = True,
    window: signal.WindowSpec = "hann",
    tempo_ref: float = 30.0,
    octave_bin: int = 40,
    octave_num: int = 4,
) -> jax.Array:
    """Cyclic tempogram: tempi an octave apart count as one.

    The magnitude of `fourier_tempogram` is interpolated linearly to the tempi
    `tempo_ref * 2 ** (k / octave_bin)` BPM, and tempi an octave apart are averaged. Source: Grosche, Mueller
    and Kurth, "Cyclic tempogram", ICASSP 2010, as computed by libfmp, which also gave the arguments' names.

    Args:
      y: waveform `(..., N)`, floating; or None and `onset_envelope` given.
      sr: sample rate in Hz.
      onset_envelope: `(..., T)`, as made by `onset_strength`.
      hop_length: samples between frames.
      win_length: frames in the window; the resolution is `60 * sr / hop_length / win_length` BPM.
      center: whether windows are centred on their frame.
      window: window of the Fourier tempogram.
      tempo_ref: lowest tempo in BPM.
      octave_bin: tempo classes per octave.
      octave_num: number of octaves that are averaged.

    Returns:
      float32 `(..., octave_bin, T + 1)`, columns as in `fourier_tempogram`; row k is the class of
      `tempo_ref * 2 ** (k / octave_bin)` BPM.

    Raises:
      ValueError: as `tempogram`; tempi beyond what the frame rate can show.

    >>> beat = np.zeros(800, np.float32)
    >>> beat[::20] = 1  # 43.07 frames a second: 129.2 BPM, of the class of 32.3 BPM
    >>> image = cyclic_tempogram(onset_envelope=beat, octave_num=3)
    >>> 30 * 2 ** (np.argmax(image[:, 400]).item() / 40)
    32.15...
    """
    signal.check_positive(
        octave_bin=octave_bin, octave_num=octave_num, hop_length=hop_length, win_length=win_length
    )
    sr, tempo_ref = signal.check_rate(sr), signal.number("tempo_ref", tempo_ref)
    if not 0 < tempo_ref < math.inf:
        raise ValueError(f"tempo_ref must be positive and finite, in BPM, got {tempo_ref!r}")
    classes = TempoClasses(sr / hop_length, tempo_ref, int(octave_bin), int(octave_num))
    envelope = checked_envelope(y, sr, onset_envelope, hop_length, win_length, center)
    classes.filters(int(win_length))  # raises ValueError here if the tempi cannot be shown
    return _cyclic_tempogram(envelope, check_windows(win_length, window, center), classes)
