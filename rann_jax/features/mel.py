"""Mel spectrogram, equal to librosa's."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import librosa
import numpy as np
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import batchwise
from rann_jax.features.filter_bank import filtered
from rann_jax.features.normalize import check_norm
from rann_jax.features.power import exact_power_spectrum
from rann_jax.features.stft import Framing, check_framing


@functools.lru_cache(maxsize=64)
def mel_filter_bank(
    sr: float, n_fft: int, n_mels: int, fmin: float, fmax: float, htk: bool, norm: Any
) -> np.ndarray:
    """Return librosa's triangular filters `(n_mels, 1 + n_fft // 2)`, float32."""
    return librosa.filters.mel(
        sr=sr, n_fft=n_fft, n_mels=n_mels, fmin=fmin, fmax=fmax, htk=htk, norm=norm
    ).astype(np.float32)


def check_mel_norm(norm: str | float | None, name: str = "norm") -> str | float | None:
    """Return the norm of the filters, hashable; ValueError unless it is 'slaney', a number or None."""
    if not isinstance(norm, str):
        return check_norm(norm, name)
    if norm != "slaney":
        raise ValueError(f"{name}={norm!r} is not supported: use 'slaney', a number or None")
    return norm


def check_bank(
    sr: float,
    n_mels: int,
    fmin: float,
    fmax: float | None,
    htk: bool,
    norm: str | float | None,
) -> dict[str, Any]:
    """Check the arguments of a filter bank and return them, hashable, with `fmax` filled in."""
    signal.check_positive(n_mels=n_mels)
    fmin, fmax, sr = signal.check_band(fmin, fmax, sr)
    norm = check_mel_norm(norm)
    return {
        "sr": sr,
        "n_mels": int(n_mels),
        "fmin": fmin,
        "fmax": fmax,
        "htk": signal.flag("htk", htk),
        "norm": norm,
    }


class Mel(NamedTuple):
    """Settings of a mel spectrogram: checked, hashable as one static argument of `jax.jit`."""

    framing: Framing
    power: float
    sr: float
    n_mels: int
    fmin: float
    fmax: float
    htk: bool
    norm: Any

    @property
    def bank(self) -> np.ndarray:
        """The filters, `(n_mels, 1 + n_fft // 2)` float32."""
        return mel_filter_bank(
            self.sr, self.framing.n_fft, self.n_mels, self.fmin, self.fmax, self.htk, self.norm
        )

    def spectrogram(self, y: jax.Array) -> jax.Array:
        """Return the mel spectrogram `(..., n_mels, T)` of `(..., N)`."""
        framing = self.framing

        def bands(clips: jax.Array) -> jax.Array:
            return filtered(
                framing.padded(clips),
                framing.samples,
                framing.n_fft,
                framing.hop_length,
                self.bank,
                self.power,
                exact_power_spectrum,
            )

        return batchwise(bands, y)


def check_mel(
    y: Any,
    *,
    sr: float,
    n_fft: int,
    hop_length: int,
    win_length: int | None,
    window: signal.WindowSpec,
    center: bool,
    pad_mode: str,
    power: float,
    n_mels: int,
    fmin: float,
    fmax: float | None,
    htk: bool,
    norm: str | float | None,
) -> tuple[jax.Array, Mel]:
    """Check a waveform and the arguments of `melspectrogram`; return the waveform as float32 and a `Mel`."""
    exponent = signal.number("power", power)
    if not 0 < exponent < math.inf:
        raise ValueError(f"power={power} must be positive and finite: 1 for amplitude, 2 for power")
    bank = check_bank(sr, n_mels, fmin, fmax, htk, norm)
    y, framing = check_framing(y, n_fft, hop_length, win_length, window, center, pad_mode)
    return y, Mel(framing, exponent, **bank)


@functools.partial(jax.jit, static_argnames="mel")
def _melspectrogram(y: jax.Array, mel: Mel) -> jax.Array:
    return mel.spectrogram(y)


def melspectrogram(
    y: ArrayLike,
    *,
    sr: float = 22050,
    n_fft: int = 2048,
    hop_length: int = 512,
    win_length: int | None = None,
    window: signal.WindowSpec = "hann",
    center: bool = True,
    pad_mode: str = "constant",
    power: float = 2.0,
    n_mels: int = 128,
    fmin: float = 0.0,
    fmax: float | None = None,
    htk: bool = False,
    norm: str | float | None = "slaney",
) -> jax.Array:
    """Mel spectrogram, equal to `librosa.feature.melspectrogram`.

    Args:
      y: waveform `(..., N)`, floating.
      sr: sample rate in Hz.
      n_fft: samples per frame; see `stft` for this and the framing arguments that follow.
      hop_length: samples between frames.
      win_length: window length; default `n_fft`.
      window: window specification.
      center: whether frames are centred.
      pad_mode: how the ends are extended.
      power: exponent of the magnitude, 2 for power, 1 for amplitude.
      n_mels: number of bands.
      fmin: lowest frequency in Hz.
      fmax: highest frequency in Hz; default `sr / 2`.
      htk: HTK's mel formula instead of Slaney's.
      norm: 'slaney' for unit-area bands, a number p for unit p-norm, None for unit height.

    Returns:
      float32 `(..., n_mels, T)`.

    Raises:
      ValueError: as `stft`; `fmax` above Nyquist; `power` not positive and finite; a negative `norm`.

    >>> melspectrogram(np.ones((2, 8000), np.float32), sr=16000, n_mels=40).shape
    (2, 40, 16)
    """
    y, mel = check_mel(
        y,
        sr=sr,
        n_fft=n_fft,
        hop_length=hop_length,
        win_length=win_length,
        window=window,
        center=center,
        pad_mode=pad_mode,
        power=power,
        n_mels=n_mels,
        fmin=fmin,
        fmax=fmax,
        htk=htk,
        norm=norm,
    )
    return _melspectrogram(y, mel)


# Default arguments of `melspectrogram`, for features that are built on it.
MEL_DEFAULTS: dict[str, Any] = melspectrogram.__kwdefaults__ or {}
