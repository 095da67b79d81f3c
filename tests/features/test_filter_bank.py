"""Filter banks that are applied band by band."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax.features.filter_bank import filtered, narrow_bands, summed
from rann_jax.features.power import to_exponent


@pytest.mark.fast
@pytest.mark.filterwarnings("ignore:Empty filters")
@pytest.mark.parametrize("power", [1.0, 2.0])
@pytest.mark.parametrize(
    "arguments",
    [
        {"sr": 44100, "n_fft": 2048},
        {"sr": 44100, "n_fft": 1380, "fmin": 50, "fmax": 14000},
        {"sr": 32000, "n_fft": 1024, "n_mels": 64, "norm": None},
        {"sr": 16000, "n_fft": 512, "htk": True},  # some bands lie between two bins and are empty
    ],
    ids=str,
)
def test_band_sums_equal_the_matrix_product(arguments, power):
    bank = librosa.filters.mel(**arguments)
    bands = narrow_bands(bank)
    assert sum(len(group.starts) for group in bands) == len(bank)
    rng = np.random.default_rng(0)
    spectra = rng.normal(size=(2, 3, bank.shape[1])) + 1j * rng.normal(size=(2, 3, bank.shape[1]))
    sums = jax.jit(summed, static_argnums=2)(jnp.asarray(spectra, jnp.complex64), bands, power)
    np.testing.assert_allclose(sums, np.abs(spectra) ** power @ bank.T.astype(float), rtol=2e-6, atol=1e-12)


@pytest.mark.fast
@pytest.mark.parametrize("bank", [np.ones((12, 65)), librosa.filters.chroma(sr=22050, n_fft=2048)])
def test_wide_bands_use_the_matrix(bank):
    assert not narrow_bands(bank)


@pytest.mark.fast
def test_an_empty_bank_gives_zeros():
    y, window = jnp.ones((1, 256)), np.hanning(64)
    assert not np.any(filtered(y, window, 64, 16, np.zeros((4, 33), np.float32)))


def test_only_gpus_use_band_sums():
    """A GPU's program has sums and no matrix product; its derivative and other devices use the product."""
    bank = librosa.filters.mel(sr=8000, n_fft=256, n_mels=8)

    def power(y):
        return filtered(y, np.hanning(256), 256, 64, bank)

    def dots(function, platform):
        traced = jax.jit(function).trace(jnp.ones((1, 512)))
        return traced.lower(lowering_platforms=(platform,)).as_text().count("dot_general")

    assert [dots(power, platform) for platform in ("cuda", "cpu", "tpu")] == [0, 1, 1]
    assert dots(jax.grad(lambda y: jnp.sum(power(y))), "cuda")


@pytest.mark.fast
def test_an_exponent_of_silence_has_no_gradient():
    assert jax.grad(lambda x: to_exponent(x, 1.0))(0.0) == 0
