"""Power spectra of frames, in double precision where decibels need it and the device has it.

librosa transforms in float64 and rounds the result. A float32 transform differs from that by noise 120 to
135 dB below the loudest bin of a frame. Decibels without a floor show this noise: single cells of real
recordings differ by up to 0.2 dB. TPUs have no float64 FFT and on many GPUs it is slow, so both use float32.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def power_spectrum(frames: jax.Array, window: np.ndarray, n_fft: int) -> jax.Array:
    """Return `|rfft(frames * window, n_fft)|**2`; its gradient at silence is zero.

    Args:
      frames: float32 `(..., L)`.
      window: `(L,)`.
      n_fft: length of the transform, at least L.

    Returns:
      float32 `(..., 1 + n_fft // 2)`.
    """
    return squared(spectrum(frames, window, n_fft))


def exact_power_spectrum(frames: jax.Array, window: np.ndarray, n_fft: int) -> jax.Array:
    """Return `power_spectrum`, on CPUs computed as in librosa: in float64, rounded at the end."""

    def single(frames: jax.Array) -> jax.Array:
        return power_spectrum(frames, window, n_fft)

    def double(frames: jax.Array) -> jax.Array:
        with jax.enable_x64(True):
            windowed = frames.astype(jnp.float64) * _along(window, frames, np.float64)
            return squared(jnp.fft.rfft(windowed, n=n_fft)).astype(jnp.float32)

    # JAX must not transform `double` outside its `with`, where float64 is off. So vmap calls it on frames
    # with one more axis, and its derivative is that of `single`.
    batched = jax.custom_batching.custom_vmap(double)
    batched.def_vmap(lambda size, in_batched, frames: (batched(frames), True))

    def power(frames: jax.Array) -> jax.Array:
        return jax.lax.platform_dependent(frames, cpu=batched, default=single)

    return differentiated_as(single, power)(frames)


def differentiated_as(
    other: Callable[[jax.Array], jax.Array], function: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    """Return `function` with the derivative of `other`, which computes the same values in another way."""
    wrapped = jax.custom_jvp(function)

    @wrapped.defjvp
    def derivative(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
        return wrapped(*primals), jax.jvp(other, primals, tangents)[1]

    return wrapped


def spectrum(frames: jax.Array, window: np.ndarray, n_fft: int) -> jax.Array:
    """Return `rfft(frames * window, n_fft)`, complex64; the arguments are those of `power_spectrum`."""
    return jnp.fft.rfft(frames * _along(window, frames, np.float32), n=n_fft)


def squared(bins: jax.Array) -> jax.Array:
    """Return `|bins|**2`; its gradient at silence is zero."""
    return jnp.square(bins.real) + jnp.square(bins.imag)


def to_exponent(power_spectrum: jax.Array, power: float) -> jax.Array:
    """Turn `|X|**2` into `|X|**power`, with gradient zero where `|X|` is zero."""
    if power == 2:
        return power_spectrum
    silent = power_spectrum == 0
    safe = jnp.where(silent, jnp.float32(1), power_spectrum)
    return jnp.where(silent, jnp.float32(0), jnp.power(safe, jnp.float32(power / 2)))


def _along(window: np.ndarray, frames: jax.Array, dtype: type) -> np.ndarray:
    return window.astype(dtype).reshape((1,) * (frames.ndim - 1) + (-1,))
