"""Mel-frequency cepstral coefficients and their derivatives, equal to librosa's."""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy
import scipy.fft
from numpy.typing import ArrayLike

from rann_jax.features import signal
from rann_jax.features.decibels import power_to_db
from rann_jax.features.mel import MEL_DEFAULTS, Mel, check_mel, check_mel_norm
from rann_jax.options import did_you_mean


class Dct(NamedTuple):
    """The type and norm of a cosine transform, and its lifter."""

    dct_type: int
    norm: str | None
    lifter: float


@functools.lru_cache(maxsize=64)
def dct_matrix(n_out: int, n_in: int, dct_type: int, norm: str | None, lifter: float) -> np.ndarray:
    """Return the first `n_out` rows of SciPy's DCT, liftered, `(n_out, n_in)` float32.

    Row k is multiplied by `1 + lifter / 2 * sin(pi * (k + 1) / lifter)`; 0 means no lifter.
    """
    rows = scipy.fft.dct(np.eye(n_in), type=dct_type, norm=norm, axis=0)[:n_out]
    if lifter > 0:
        rows *= 1 + lifter / 2 * np.sin(np.pi * np.arange(1, n_out + 1) / lifter)[:, None]
    return rows.astype(np.float32)


def dct_rows(
    S: jax.Array, n_out: int, dct_type: int = 2, norm: str | None = "ortho", lifter: float = 0.0
) -> jax.Array:
    """Apply `dct_matrix` along the second to last axis: `(..., F, T)` -> `(..., n_out, T)`."""
    matrix = dct_matrix(n_out, S.shape[-2], dct_type, norm, lifter)
    return jnp.einsum("kf,...ft->...kt", matrix, S, precision=jax.lax.Precision.HIGHEST)


@functools.partial(jax.jit, static_argnames=("n_mfcc", "dct"))
def _of_levels(S: jax.Array, n_mfcc: int, dct: Dct) -> jax.Array:
    return dct_rows(S, n_mfcc, *dct)


@functools.partial(jax.jit, static_argnames=("mel", "n_mfcc", "dct"))
def _of_waveform(y: jax.Array, mel: Mel, n_mfcc: int, dct: Dct) -> jax.Array:
    return dct_rows(power_to_db(mel.spectrogram(y)), n_mfcc, *dct)


def mfcc(
    y: ArrayLike | None = None,
    *,
    sr: float = 22050,
    S: ArrayLike | None = None,
    n_mfcc: int = 20,
    dct_type: int = 2,
    norm: str | None = "ortho",
    lifter: float = 0.0,
    mel_norm: str | float | None = "slaney",
    **mel: Any,
) -> jax.Array:
    """Mel-frequency cepstral coefficients, equal to `librosa.feature.mfcc`.

    This is the DCT over the bands of `power_to_db(melspectrogram(y))`, floored 80 dB below the clip's peak.

    Args:
      y: waveform `(..., N)`, floating; not needed if `S` is given.
      sr: sample rate in Hz.
      S: log-power mel spectrogram `(..., n_mels, T)` to use instead of `y`.
      n_mfcc: number of coefficients.
      dct_type: type of the DCT: 1, 2, 3 or 4.
      norm: 'ortho' or None, see `scipy.fft.dct`.
      lifter: cepstral lifter L, weights `1 + L / 2 * sin(pi * (k + 1) / L)`; 0 for none.
      mel_norm: `norm` of `melspectrogram`.
      **mel: other arguments of `melspectrogram`, such as `n_mels`, `n_fft`, `fmax`.

    Returns:
      float32 `(..., n_mfcc, T)`.

    Raises:
      ValueError: as `melspectrogram`; more coefficients than bands; an unknown DCT, or type 1 of a
        single band; a negative or infinite lifter; neither `y` nor `S`; an unknown argument.

    >>> mfcc(np.ones((2, 8000), np.float32), sr=16000, n_mfcc=13, n_mels=40).shape
    (2, 13, 16)
    """
    signal.check_positive(n_mfcc=n_mfcc)
    if dct_type not in (1, 2, 3, 4):
        raise ValueError(f"dct_type={dct_type!r} does not exist: use 1, 2, 3 or 4")
    if norm not in ("ortho", None):
        raise ValueError(f"norm={norm!r} is not supported: use 'ortho' or None")
    unknown = sorted(mel.keys() - MEL_DEFAULTS.keys())
    if unknown:
        known = [*(mfcc.__kwdefaults__ or {}), *(name for name in MEL_DEFAULTS if name not in ("sr", "norm"))]
        raise ValueError(
            f"mfcc has no argument {unknown[0]!r}: use one of {', '.join(known)}"
            + did_you_mean(unknown[0], known)
        )
    lifter = signal.number("lifter", lifter)
    if not 0 <= lifter < math.inf:
        raise ValueError(f"lifter={lifter} must not be negative or infinite; 0 turns it off")
    dct = Dct(int(dct_type), norm, lifter)
    if S is not None:
        S = signal.as_waveform(S, "S")
        if S.ndim < 2:
            raise ValueError(f"S must be (..., n_mels, T), got shape {S.shape}")
        _check_bands(n_mfcc, S.shape[-2], dct_type)
        return _of_levels(S, n_mfcc, dct)
    if y is None:
        raise ValueError("mfcc needs a waveform y or a log-mel spectrogram S")
    y, checked = check_mel(
        y, **{**MEL_DEFAULTS, "sr": sr, "norm": check_mel_norm(mel_norm, "mel_norm"), **mel}
    )
    _check_bands(n_mfcc, checked.n_mels, dct_type)
    return _of_waveform(y, checked, n_mfcc, dct)


def _check_bands(n_mfcc: int, n_mels: int, dct_type: int) -> None:
    if n_mfcc > n_mels:
        raise ValueError(
            f"n_mfcc={n_mfcc} coefficients need at least as many bands, but there are {n_mels}:"
            " use fewer coefficients or more n_mels"
        )
    if dct_type == 1 and n_mels == 1:
        raise ValueError("dct_type=1 needs two bands or more, but there is 1: use more n_mels or dct_type=2")


DELTA_MODES = {"interp": "", "mirror": "reflect", "nearest": "edge", "constant": "constant"}


@functools.lru_cache(maxsize=64)
def _derivative_matrix(width: int, order: int) -> np.ndarray:
    """Return `(width, width)`: the derivative, at each sample, of one polynomial fitted to all samples."""
    return scipy.signal.savgol_filter(
        np.eye(width), width, polyorder=order, deriv=order, axis=0, mode="interp"
    ).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("width", "order", "axis", "mode"))
def _delta(data: jax.Array, width: int, order: int, axis: int, mode: str) -> jax.Array:
    data = jnp.moveaxis(data, axis, -1)
    matrix = _derivative_matrix(width, order)
    half = width // 2
    inner = data
    if mode != "interp":
        widths = [(0, 0)] * (data.ndim - 1) + [(half, half)]
        inner = jnp.pad(data, widths, mode=DELTA_MODES[mode])
    length = inner.shape[-1] - width + 1
    slopes = sum(float(matrix[half, i]) * inner[..., i : i + length] for i in range(width))
    if mode == "interp":
        fit = functools.partial(jnp.einsum, "...w,hw->...h", precision=jax.lax.Precision.HIGHEST)
        first = fit(data[..., :width], matrix[:half])
        last = fit(data[..., -width:], matrix[half + 1 :])
        slopes = jnp.concatenate([first, slopes, last], axis=-1)
    return jnp.moveaxis(slopes, -1, axis)


def delta(
    data: ArrayLike, *, width: int = 9, order: int = 1, axis: int = -1, mode: str = "interp"
) -> jax.Array:
    """Derivative along time by a Savitzky-Golay filter, equal to `librosa.feature.delta`.

    Args:
      data: features `(..., F, T)`, floating.
      width: number of frames that each local polynomial is fitted to, odd, at least 3.
      order: order of the derivative and of the polynomial, below `width`.
      axis: the time axis.
      mode: how the ends are treated: 'interp' (the first and last polynomial are continued),
        'mirror', 'nearest' or 'constant' (zeros).

    Returns:
      float32, the shape of `data`; the unit is that of `data` per frame**order.

    Raises:
      ValueError: an even or small `width`, `order` not in 1..width-1, an `axis` that `data` does not
        have, fewer than `width` frames with mode 'interp', an unknown mode.

    >>> delta(np.arange(12, dtype=np.float32)[None, :] * 3)[0, :3].round(4).tolist()
    [3.0, 3.0, 3.0]
    """
    signal.check_positive(width=width, order=order)
    data = signal.as_waveform(data, "data")
    if not signal.is_whole(axis) or not -data.ndim <= axis < data.ndim:
        raise ValueError(f"axis={axis!r} does not exist: data has {data.ndim} axes")
    if width < 3 or width % 2 == 0:
        raise ValueError(f"width={width} must be odd and at least 3")
    if order >= width:
        raise ValueError(f"order={order} must be below width={width}")
    signal.check_choice("mode", mode, DELTA_MODES)
    if mode == "interp" and data.shape[axis] < width:
        raise ValueError(
            f"data has {data.shape[axis]} frames, fewer than width={width}:"
            " use a smaller width or another mode"
        )
    return _delta(data, width=int(width), order=int(order), axis=int(axis), mode=mode)
