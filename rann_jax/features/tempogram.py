"""Onset strength and tempograms, equal to librosa's, and the cyclic tempogram, as in libfmp.

A tempogram shows the rhythm of a sound. The onset envelope, one value per frame, is cut into windows
of `win_length` frames, one around every frame, and each window is analysed for its periods.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import clipwise
from rann_jax.features.mel import MEL_DEFAULTS, Mel, check_mel
from rann_jax.features.normalize import check_norm, normalize
from rann_jax.features.power import squared
from rann_jax.features.stft import Framing, power_to_db, transformed


def _local_maximum(S: jax.Array, size: int) -> jax.Array:
    """Return the maximum over `size` neighbouring bands of `(..., F, T)`, mirrored at the ends."""
    widths = [(0, 0)] * (S.ndim - 2) + [(size // 2, size - 1 - size // 2), (0, 0)]
    window = (1,) * (S.ndim - 2) + (size, 1)
    padded = jnp.pad(S, widths, mode="symmetric")
    return jax.lax.reduce_window(padded, -jnp.inf, jax.lax.max, window, (1,) * S.ndim, padding="VALID")


def _detrend(envelope: jax.Array) -> jax.Array:
    """Remove the slow part: `out[t] = x[t] - x[t - 1] + 0.99 out[t - 1]`, along the last axis."""
    widths = [(0, 0)] * (envelope.ndim - 1) + [(1, 0)]
    steps = jnp.diff(jnp.pad(envelope, widths), axis=-1)

    def after(first: tuple, second: tuple) -> tuple:
        return first[0] * second[0], first[1] * second[0] + second[1]

    decay = jnp.full_like(steps, 0.99)
    return jax.lax.associative_scan(after, (decay, steps), axis=-1)[1]


def onset_strength(
    y: ArrayLike,
    *,
    sr: float = 22050,
    n_fft: int = 2048,
    hop_length: int = 512,
    lag: int = 1,
    max_size: int = 1,
    detrend: bool = False,
    center: bool = True,
    aggregate: Callable | None = None,
    n_mels: int = 128,
    fmin: float = 0.0,
    fmax: float | None = None,
) -> jax.Array:
    """Onset strength envelope, equal to `librosa.onset.onset_strength`.

    This is the rise of each mel band's level in dB over `lag` frames, averaged over the bands. As in
    `power_to_db`, levels more than 80 dB below the clip's own peak are floored.

    Args:
      y: waveform `(..., N)`, floating.
      sr: sample rate in Hz.
      n_fft: samples per frame.
      hop_length: samples between frames.
      lag: number of frames over which the rise is taken.
      max_size: number of neighbouring bands over which the earlier frame's maximum is taken; above 1 it
        suppresses vibrato.
      detrend: remove the slow part of the envelope.
      center: shift the envelope by half a frame, so that an onset is where it sounds.
      aggregate: how bands are combined, a jax.numpy function called with `axis=-2`; default
        `jax.numpy.mean`. Define it once: each new function, such as a lambda in a loop, compiles again.
      n_mels: number of mel bands.
      fmin: lowest frequency in Hz.
      fmax: highest frequency in Hz; default `sr / 2`.

    Returns:
      float32 `(..., T)`, T = 1 + N // hop_length for even `n_fft`. `center` does not change T: the STFT is
      always centred.

    Raises:
      ValueError: as `melspectrogram`; `lag` or `max_size` that is not a positive integer.

    >>> y = np.zeros(22050, np.float32)
    >>> y[10000:] = np.sin(np.arange(12050) / 2)  # between the frames 19 and 20
    >>> np.argmax(onset_strength(y)).item()
    20
    """
    signal.check_positive(lag=lag, max_size=max_size, n_fft=n_fft, hop_length=hop_length)
    if aggregate is not None and not callable(aggregate):
        raise ValueError(f"aggregate must be a function such as jnp.median, got {aggregate!r}")
    rise = Rise(
        lag=lag,
        max_size=max_size,
        delay=lag + n_fft // (2 * hop_length) if signal.flag("center", center) else lag,
        detrend=signal.flag("detrend", detrend),
        aggregate=jnp.mean if aggregate is None else aggregate,
    )
    bands = {"sr": sr, "n_fft": n_fft, "hop_length": hop_length, "n_mels": n_mels, "fmin": fmin, "fmax": fmax}
    y, mel = check_mel(y, **{**MEL_DEFAULTS, **bands})
    return _onset_strength(y, mel, rise)


@dataclasses.dataclass(frozen=True)
class Rise:
    """Settings of an onset envelope: checked, hashable as one static argument of `jax.jit`.

    `delay` is the number of zeros that the envelope begins with; the others are as in `onset_strength`.
    """

    lag: int
    max_size: int
    delay: int
    detrend: bool
    aggregate: Callable

    def envelope(self, power: jax.Array) -> jax.Array:
        """Return the envelope `(..., T)` of mel power `(..., F, T)`."""
        level = power_to_db(power)
        before = level if self.max_size == 1 else _local_maximum(level, self.max_size)
        rise = jnp.maximum(level[..., self.lag :] - before[..., : -self.lag], jnp.float32(0))
        envelope = self.aggregate(rise, axis=-2)
        envelope = jnp.pad(envelope, [(0, 0)] * (envelope.ndim - 1) + [(self.delay, 0)])
        if self.detrend:
            envelope = _detrend(envelope)
        return envelope[..., : level.shape[-1]]


@functools.partial(jax.jit, static_argnames=("mel", "rise"))
def _onset_strength(y: jax.Array, mel: Mel, rise: Rise) -> jax.Array:
    return clipwise(lambda clips: rise.envelope(mel.spectrogram(clips)), y)


def _envelope(
    y: Any, sr: float, onset_envelope: Any, hop_length: int, win_length: int, center: bool
) -> jax.Array:
    """Check the arguments that all tempograms share; return the onset envelope `(..., T)`."""
    signal.check_positive(hop_length=hop_length, win_length=win_length)
    if (y is None) == (onset_envelope is None):
        raise ValueError("give either y or onset_envelope, not both")
    if onset_envelope is None:
        envelope = onset_strength(y, sr=sr, hop_length=hop_length)
    else:
        envelope = signal.as_waveform(onset_envelope, "onset_envelope")
    if not center and envelope.shape[-1] < win_length:
        raise ValueError(
            f"win_length={win_length} is longer than the onset envelope, {envelope.shape[-1]}"
            " frames: use center=True, a shorter window or a longer clip"
        )
    return envelope


@functools.partial(jax.jit, static_argnames=("win_length", "center", "window", "norm"))
def _tempogram(envelope: jax.Array, **arguments: Any) -> jax.Array:
    return clipwise(functools.partial(_autocorrelation, **arguments), envelope)


def _autocorrelation(
    envelope: jax.Array, *, win_length: int, center: bool, window: Any, norm: float | None
) -> jax.Array:
    n_frames = envelope.shape[-1] if center else envelope.shape[-1] - win_length + 1
    if center:
        ramp = np.arange(win_length // 2, dtype=np.float32) / max(1, win_length // 2)
        ramp = ramp.reshape((1,) * (envelope.ndim - 1) + ramp.shape)
        rising, falling = envelope[..., :1] * ramp, envelope[..., -1:] * ramp[..., ::-1]
        envelope = jnp.concatenate([rising, envelope, falling], axis=-1)
    samples = signal.window_samples(window, win_length, win_length).astype(np.float32)
    frames = signal.frame(envelope, win_length, 1)[..., :n_frames, :]
    frames = frames * samples.reshape((1,) * (frames.ndim - 1) + samples.shape)
    # Twice the length, so that the correlation is not circular.
    n_fft = scipy.fft.next_fast_len(2 * win_length - 1, real=True)
    spectra = jnp.fft.rfft(frames, n=n_fft)
    lags = jnp.fft.irfft(squared(spectra).astype(jnp.complex64), n=n_fft)[..., :win_length]
    return jnp.swapaxes(normalize(lags, norm, axis=-1), -1, -2)


def tempogram(
    y: ArrayLike | None = None,
    *,
    sr: float = 22050,
    onset_envelope: ArrayLike | None = None,
    hop_length: int = 512,
    win_length: int = 384,
    center: bool = True,
    window: signal.WindowSpec = "hann",
    norm: float | None = math.inf,
) -> jax.Array:
    """Autocorrelation tempogram, equal to `librosa.feature.tempogram`.

    Args:
      y: waveform `(..., N)`, floating; or None and `onset_envelope` given.
      sr: sample rate in Hz.
      onset_envelope: `(..., T)`, as made by `onset_strength`.
      hop_length: samples between frames.
      win_length: frames in the window, and number of lags.
      center: whether windows are centred on their frame; beyond its ends the envelope fades linearly to
        zero.
      window: window of the autocorrelation.
      norm: norm of each column: inf for its maximum, p for the p-norm, None for none.

    Returns:
      float32 `(..., win_length, T)`: row k is a lag of k frames, `60 * sr / hop_length / k` BPM.

    Raises:
      ValueError: as `onset_strength`; neither or both of `y` and `onset_envelope`; a window
        longer than the envelope with `center=False`; a negative `norm`.

    >>> beat = np.zeros(200, np.float32)
    >>> beat[::10] = 1
    >>> np.argmax(tempogram(onset_envelope=beat, win_length=64)[5:, 100]).item() + 5
    10
    """
    norm = check_norm(norm)
    envelope = _envelope(y, sr, onset_envelope, hop_length, win_length, center)
    window = signal.hashable_window(window, int(win_length))
    return _tempogram(
        envelope, win_length=int(win_length), center=signal.flag("center", center), window=window, norm=norm
    )


def _bins(envelope: jax.Array, *, n_fft: int, center: bool, window: Any) -> jax.Array:
    """Return the transform of envelopes, which may be shorter than the window."""
    return transformed(envelope, Framing(n_fft, 1, n_fft, window, center, "constant"))


@functools.partial(jax.jit, static_argnames=("n_fft", "center", "window"))
def _fourier_tempogram(envelope: jax.Array, **arguments: Any) -> jax.Array:
    return clipwise(functools.partial(_bins, **arguments), envelope)


def fourier_tempogram(
    y: ArrayLike | None = None,
    *,
    sr: float = 22050,
    onset_envelope: ArrayLike | None = None,
    hop_length: int = 512,
    win_length: int = 384,
    center: bool = True,
    window: signal.WindowSpec = "hann",
) -> jax.Array:
    """Fourier tempogram, complex, equal to `librosa.feature.fourier_tempogram`.

    Args:
      y: waveform `(..., N)`, floating; or None and `onset_envelope` given.
      sr: sample rate in Hz.
      onset_envelope: `(..., T)`, as made by `onset_strength`.
      hop_length: samples between frames.
      win_length: frames in the window.
      center: whether windows are centred on their frame, with zeros beyond the ends.
      window: window of the transform.

    Returns:
      complex64 `(..., 1 + win_length // 2, T + 1)` for T frames (even `win_length`, centred); row
      k is `60 * sr / hop_length * k / win_length` BPM.

    Raises:
      ValueError: as `tempogram`.

    >>> beat = np.zeros(200, np.float32)
    >>> beat[::10] = 1
    >>> fourier_tempogram(onset_envelope=beat, win_length=64).shape
    (33, 201)
    """
    envelope = _envelope(y, sr, onset_envelope, hop_length, win_length, center)
    window = signal.hashable_window(window, int(win_length))
    return _fourier_tempogram(
        envelope, n_fft=int(win_length), center=signal.flag("center", center), window=window
    )


@functools.lru_cache(maxsize=32)
def _cyclic_bank(
    frame_rate: float, win_length: int, tempo_ref: float, octave_bin: int, octave_num: int
) -> np.ndarray:
    """Return `(octave_bin, 1 + win_length // 2)`, which interpolates to log tempo and averages octaves."""
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


CYCLIC_BANK = tuple(inspect.signature(_cyclic_bank).parameters)


@functools.partial(jax.jit, static_argnames=(*CYCLIC_BANK, "center", "window"))
def _cyclic_tempogram(
    envelope: jax.Array, *, win_length: int, center: bool, window: Any, **arguments: Any
) -> jax.Array:
    bank = jnp.asarray(_cyclic_bank(win_length=win_length, **arguments))

    def folded(envelopes: jax.Array) -> jax.Array:
        bins = _bins(envelopes, n_fft=win_length, center=center, window=window)
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
    bank = {
        "frame_rate": sr / hop_length,
        "win_length": int(win_length),
        "tempo_ref": tempo_ref,
        "octave_bin": int(octave_bin),
        "octave_num": int(octave_num),
    }
    envelope = _envelope(y, sr, onset_envelope, hop_length, win_length, center)
    _cyclic_bank(**bank)
    window = signal.hashable_window(window, int(win_length))
    return _cyclic_tempogram(envelope, center=signal.flag("center", center), window=window, **bank)
