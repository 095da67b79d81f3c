"""Tempograms, equal to librosa's.

A tempogram shows the rhythm of a sound. The onset envelope, one value per frame, is cut into windows
of `win_length` frames, one around every frame, and each window is analysed for its periods.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.fft
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.clipwise import clipwise
from rann_jax.features.normalize import check_norm, normalize
from rann_jax.features.onset import onset_strength
from rann_jax.features.power import squared
from rann_jax.features.stft import Framing, transformed


def checked_envelope(
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


class Autocorrelation(NamedTuple):
    """Settings of a tempogram: checked, hashable as one static argument of `jax.jit`.

    Attributes:
      win_length: frames in a window, and number of lags.
      window: made by `signal.hashable_window`.
      center: whether windows are centred on their frame.
      norm: norm of each column, see `normalize`.
    """

    win_length: int
    window: object
    center: bool
    norm: float | None

    @property
    def samples(self) -> np.ndarray:
        """The window, `(win_length,)` float32."""
        return signal.window_samples(self.window, self.win_length, self.win_length).astype(np.float32)

    def of_windows(self, envelope: jax.Array) -> jax.Array:
        """Return the autocorrelation of each window, `(..., win_length, T)`, of an envelope."""
        win_length = self.win_length
        n_frames = envelope.shape[-1] if self.center else envelope.shape[-1] - win_length + 1
        if self.center:
            ramp = np.arange(win_length // 2, dtype=np.float32) / max(1, win_length // 2)
            ramp = ramp.reshape((1,) * (envelope.ndim - 1) + ramp.shape)
            rising, falling = envelope[..., :1] * ramp, envelope[..., -1:] * ramp[..., ::-1]
            envelope = jnp.concatenate([rising, envelope, falling], axis=-1)
        frames = signal.frame(envelope, win_length, 1)[..., :n_frames, :]
        frames = frames * self.samples.reshape((1,) * (frames.ndim - 1) + (win_length,))
        # Twice the length, so that the correlation is not circular.
        n_fft = scipy.fft.next_fast_len(2 * win_length - 1, real=True)
        spectra = jnp.fft.rfft(frames, n=n_fft)
        lags = jnp.fft.irfft(squared(spectra).astype(jnp.complex64), n=n_fft)[..., :win_length]
        return jnp.swapaxes(normalize(lags, self.norm, axis=-1), -1, -2)


@functools.partial(jax.jit, static_argnames="autocorrelation")
def _tempogram(envelope: jax.Array, autocorrelation: Autocorrelation) -> jax.Array:
    return clipwise(autocorrelation.of_windows, envelope)


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
    envelope = checked_envelope(y, sr, onset_envelope, hop_length, win_length, center)
    hashable = signal.hashable_window(window, int(win_length))
    autocorrelation = Autocorrelation(int(win_length), hashable, signal.flag("center", center), norm)
    return _tempogram(envelope, autocorrelation)


def check_windows(win_length: int, window: signal.WindowSpec, center: bool) -> Framing:
    """Check how an envelope is cut into windows, one around every frame, and return that as a `Framing`."""
    hashable = signal.hashable_window(window, int(win_length))
    return Framing(int(win_length), 1, int(win_length), hashable, signal.flag("center", center), "constant")


@functools.partial(jax.jit, static_argnames="windows")
def _fourier_tempogram(envelope: jax.Array, windows: Framing) -> jax.Array:
    return clipwise(lambda envelopes: transformed(envelopes, windows), envelope)


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
    envelope = checked_envelope(y, sr, onset_envelope, hop_length, win_length, center)
    return _fourier_tempogram(envelope, check_windows(win_length, window, center))
