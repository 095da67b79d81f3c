"""The inverse STFT against librosa, on hostile signals and real clips."""

import functools

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax import features


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"length": 8000},
        {"length": 9100},
        {"n_fft": 401, "win_length": 300, "hop_length": 100},
        {"center": False, "window": "hamming"},
    ],
    ids=lambda arguments: ",".join(arguments),
)
def test_istft_equals_librosa(hostile, relative_error, arguments):
    y = np.stack([hostile()["noise"], hostile()["chirp"]])
    forward = {key: value for key, value in arguments.items() if key != "length"}
    matrix = librosa.stft(y, **forward)
    # In double precision: librosa's float32 loses digits near the ends, where windows hardly overlap.
    expected = librosa.istft(matrix.astype(np.complex128), **arguments)
    assert relative_error(features.istft(matrix, **arguments), expected) < 3e-6


def test_istft_inverts_stft(clip):
    y = clip(16000)
    again = features.istft(features.stft(y, n_fft=512), n_fft=512, length=len(y))
    np.testing.assert_allclose(again, y, atol=1e-6)


def test_istft_of_a_symbolic_batch():
    (batch,) = jax.export.symbolic_shape("batch")
    shape = jax.ShapeDtypeStruct((batch, 129, 9), jnp.complex64)
    exported = jax.export.export(jax.jit(features.istft))(shape)
    matrix = features.stft(np.random.default_rng(0).normal(size=(3, 512)).astype(np.float32), n_fft=256)
    np.testing.assert_allclose(exported.call(matrix), features.istft(matrix), atol=1e-6)


def test_istft_refuses_invalid_input():
    with pytest.raises(ValueError, match="complex"):
        features.istft(np.ones((129, 5), np.float32))
    with pytest.raises(ValueError, match="bins"):
        features.istft(np.ones((129, 5), np.complex64), n_fft=300)


@pytest.mark.fast
def test_inside_shard_map():
    """Which checks, by default, over which axes of the mesh values vary."""
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:2])
    split = jax.sharding.PartitionSpec("data")
    spectra = features.stft(np.random.default_rng(0).standard_normal((2, 400)).astype(np.float32), n_fft=64)
    inverse = functools.partial(features.istft, n_fft=64)
    own = jax.shard_map(inverse, mesh=mesh, in_specs=split, out_specs=split)
    np.testing.assert_allclose(jax.jit(own)(spectra), inverse(spectra), atol=1e-6)
