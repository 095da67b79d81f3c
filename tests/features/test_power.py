"""Power spectra in double precision, under JAX's transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax.features.power import exact_power_spectrum, power_spectrum

WINDOW = np.hanning(250)


@pytest.fixture(scope="module")
def frames():
    """Noise plus a hum a million times as strong, `(2, 3, 250)`: upper bins lie 120 dB below the peak."""
    noise = np.random.default_rng(0).normal(size=(2, 3, 250))
    return jnp.asarray(noise + 1e6 * np.sin(np.arange(250) / 9), jnp.float32)


def spectrum(frames):
    return exact_power_spectrum(frames, WINDOW, 256)


@pytest.mark.fast
@pytest.mark.parametrize(
    "transformed",
    [
        spectrum,
        jax.jit(spectrum),
        jax.vmap(spectrum),
        jax.jit(jax.vmap(spectrum, in_axes=1, out_axes=1)),
        jax.vmap(jax.vmap(spectrum)),
        lambda frames: jax.lax.map(jax.vmap(spectrum), frames),
        jax.vmap(lambda frames: jax.lax.map(spectrum, frames)),
        jax.checkpoint(spectrum),
        lambda frames: jax.jvp(spectrum, (frames,), (frames,))[0],
    ],
    ids=["eager", "jit", "vmap", "second axis", "vmap twice", "vmap in map", "map in vmap", "remat", "jvp"],
)
def test_it_equals_numpy_in_float64(frames, transformed):
    expected = np.abs(np.fft.rfft(np.asarray(frames, np.float64) * WINDOW, n=256)) ** 2
    np.testing.assert_allclose(transformed(frames), expected, rtol=1e-6)


@pytest.mark.fast
def test_its_derivatives_equal_those_of_the_float32_transform():
    frames = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 250)), jnp.float32)

    def loss(kind, frames):
        return jnp.sum(jnp.log1p(kind(frames, WINDOW, 256)))

    for derivative in (
        jax.grad,
        lambda f: jax.vmap(jax.grad(f)),
        lambda f: jax.grad(jax.checkpoint(f)),
        lambda f: lambda y: jax.jvp(jax.grad(f), (y,), (y,))[1],
    ):
        ours, single = (
            jax.jit(derivative(lambda frames, kind=kind: loss(kind, frames)))(frames)
            for kind in (exact_power_spectrum, power_spectrum)
        )
        scale = np.max(np.abs(single))
        np.testing.assert_allclose(ours, single, atol=1e-5 * scale, rtol=0)
    assert not np.any(jax.jit(jax.grad(lambda y: loss(exact_power_spectrum, y)))(jnp.zeros((1, 250))))
