"""STFT, its inverse and decibels against librosa, on real clips and hostile signals."""

import warnings

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest

from rann_jax import features
from rann_jax.features.stft import transformed


def librosa_quietly(function, *args, **kwargs):
    """Call a function of librosa without its warnings about clips shorter than a frame."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*args, **kwargs)


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 32000, 44100, 48000])
def test_stft_equals_librosa_on_real_clips(clip, relative_error, rate):
    y = clip(rate)
    assert relative_error(features.stft(y), librosa_quietly(librosa.stft, y)) < 3e-7


@pytest.mark.parametrize(
    "arguments",
    [
        {"n_fft": 1380, "hop_length": 345},
        {"n_fft": 512, "win_length": 400, "hop_length": 160, "window": "hamming"},
        {"n_fft": 401, "hop_length": 100, "pad_mode": "reflect"},
        {"n_fft": 256, "center": False},
        {"n_fft": 300, "pad_mode": "edge", "window": ("kaiser", 4.0)},
        {"n_fft": 256, "pad_mode": "symmetric", "window": np.hanning(256)},
    ],
    ids=lambda arguments: ",".join(arguments),
)
def test_stft_arguments(hostile, relative_error, arguments):
    for y in hostile().values():
        assert relative_error(features.stft(y, **arguments), librosa.stft(y, **arguments)) < 1e-6


def test_equal_windows_share_one_compilation():
    y = np.random.default_rng(0).normal(size=500).astype(np.float32)
    expected = features.stft(y, n_fft=128)
    cosine = features.stft(y, n_fft=128, window=("general_cosine", [0.5, 0.5]))
    np.testing.assert_allclose(cosine, expected, atol=1e-5)
    made = []
    for _ in range(3):
        # The periodic Hann window is compiled once, for its samples, not once for each new function.
        spectra = features.stft(y, n_fft=128, window=lambda n: np.hanning(n + 1)[:n])
        made.append(transformed._cache_size())
        np.testing.assert_allclose(spectra, expected, atol=1e-5)
    assert made == [made[0]] * 3


def test_numpy_numbers_as_windows_get_along_with_arrays_in_the_cache():
    y = np.ones(1000, np.float32)
    features.stft(y, n_fft=64, window=np.hanning)
    ours = features.stft(y, n_fft=64, window=np.float32(5.5))  # Kaiser's beta
    np.testing.assert_array_equal(ours, features.stft(y, n_fft=64, window=("kaiser", 5.5)))


@pytest.mark.filterwarnings("ignore:n_fft=:UserWarning")  # two clips of one sample look like stereo
@pytest.mark.parametrize("length", [1, 7, 200, 1025])
def test_clip_shorter_than_a_window(relative_error, length):
    y = np.random.default_rng(length).normal(size=(2, length)).astype(np.float32)
    expected = librosa_quietly(librosa.stft, y)
    assert relative_error(features.stft(y), expected) < 5e-7


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


@pytest.mark.parametrize("top_db", [None, 80.0])
@pytest.mark.parametrize("ref", [1.0, 0.3, np.max])
def test_decibels_equal_librosa(clip, ref, top_db):
    power = librosa.feature.melspectrogram(y=clip(44100), sr=44100)
    ours = features.power_to_db(power, ref=ref, top_db=top_db)
    np.testing.assert_allclose(ours, librosa.power_to_db(power, ref=ref, top_db=top_db), atol=5e-5, rtol=0)
    ours = features.amplitude_to_db(power, ref=ref, top_db=top_db)
    np.testing.assert_allclose(
        ours, librosa.amplitude_to_db(power, ref=ref, top_db=top_db), atol=5e-5, rtol=0
    )


def test_decibels_of_a_complex_matrix(clip):
    matrix = librosa.stft(clip(22050))
    for ref in (1.0, np.max):
        np.testing.assert_allclose(
            features.amplitude_to_db(matrix, ref=ref),
            librosa.amplitude_to_db(np.abs(matrix), ref=ref),
            atol=5e-5,
            rtol=0,
        )


@pytest.mark.parametrize("ref", [1.0, jnp.max])
def test_top_db_is_per_clip(ref):
    loud_and_quiet = np.random.default_rng(0).uniform(1e-9, 1, (3, 2, 8, 20)).astype(np.float32)
    loud_and_quiet *= np.array([1, 1e-4, 1e-8], np.float32).reshape(3, 1, 1, 1)
    together = features.power_to_db(loud_and_quiet, ref=ref, top_db=20.0)
    for index in np.ndindex(3, 2):
        alone = features.power_to_db(loud_and_quiet[index], ref=ref, top_db=20.0)
        np.testing.assert_array_equal(together[index], alone)


def test_jit_vmap_and_leading_axes_agree():
    y = np.random.default_rng(1).normal(size=(2, 3, 3001)).astype(np.float32)
    eager = features.stft(y, n_fft=256)
    assert eager.shape == (2, 3, 129, 47)
    np.testing.assert_array_equal(eager, jax.jit(lambda y: features.stft(y, n_fft=256))(y))
    mapped = jax.vmap(jax.vmap(lambda y: features.stft(y, n_fft=256)))(y)
    np.testing.assert_allclose(mapped, eager, atol=1e-5)
    assert features.stft(y.astype(np.float64), n_fft=256).dtype == jnp.complex64


def test_gradients_at_silence_are_finite():
    silence = jnp.zeros(2000)

    def loss(y):
        matrix = features.stft(y, n_fft=256)
        decibels = features.amplitude_to_db(matrix, ref=jnp.max)
        again = features.istft(matrix, n_fft=256)
        return jnp.sum(decibels) + jnp.sum(jnp.square(again))

    gradient = jax.jit(jax.grad(loss))(silence)
    assert np.all(np.isfinite(gradient))


@pytest.mark.parametrize(
    ("y", "arguments", "message"),
    [
        (np.zeros(0, np.float32), {}, "at least one sample"),
        (np.zeros((0, 5), np.float32), {}, "at least one clip"),
        (np.float32(1), {}, "last axis"),
        (np.zeros(5, np.int16), {}, "floating-point, got int16"),
        (np.zeros(5, np.complex64), {}, "floating-point, got complex64"),
        (np.zeros(500), {"n_fft": 256, "win_length": 400}, "shorter than the window"),
        (np.zeros(500), {"n_fft": 0}, "n_fft must be a positive integer"),
        (np.zeros(500), {"hop_length": 2.5}, "hop_length must be a positive integer"),
        (np.zeros(500), {"center": False}, "center=True"),
        (np.zeros(500), {"pad_mode": "wrap"}, "pad_mode='wrap'"),
        (np.zeros(500), {"window": "hannn"}, "(?i)window"),
        (np.zeros(500), {"window": np.ones(7)}, "win_length is 2048"),
        (np.zeros(500), {"window": np.ones((1, 2048))}, r"shape \(1, 2048\)"),
        (np.zeros(500), {"window": lambda n: np.ones(n + 1)}, r"shape \(2049,\)"),
    ],
)
def test_impossible_arguments_are_refused(y, arguments, message):
    with pytest.raises(ValueError, match=message):
        features.stft(y, **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"amin": 0.0}, "amin"),
        ({"amin": -1e-5}, "amin"),
        ({"amin": 1e-39}, "amin"),
        ({"amin": 1e39}, "amin"),
        ({"amin": 1e200}, "amin"),
        ({"amin": float("inf")}, "amin"),
        ({"amin": float("nan")}, "amin"),
        ({"top_db": -1.0}, "top_db"),
        ({"top_db": float("nan")}, "top_db"),
        ({"ref": float("nan")}, "ref=nan must be finite"),
        ({"ref": -np.inf}, "ref=-inf must be finite"),
        ({"ref": np.float32("nan")}, "ref=.*nan.* must be finite"),
        ({"ref": 1e39}, r"ref=1e\+39 must be finite"),
        ({"ref": "max"}, "ref must be a number or a function, got 'max'"),
        ({"ref": None}, "ref must be a number or a function, got None"),
    ],
)
def test_impossible_decibel_arguments_are_refused(arguments, message):
    for function in (features.power_to_db, features.amplitude_to_db):
        with pytest.raises(ValueError, match=message):
            function(np.ones((2, 2)), **arguments)


@pytest.mark.parametrize("ref", [0, 0.0, -0.3, 1e-12, 0.3 + 0.4j, np.float64(0.3), np.int32(2), 1e19])
def test_number_as_reference_as_in_librosa(ref):
    S = np.random.default_rng(0).uniform(0, 2, (3, 5)).astype(np.float32)
    for name in ("power_to_db", "amplitude_to_db"):
        expected = getattr(librosa, name)(S, ref=ref, top_db=None)
        np.testing.assert_allclose(getattr(features, name)(S, ref=ref, top_db=None), expected, atol=2e-4)


def test_decibels_of_the_least_amplitude_and_of_a_list():
    assert features.amplitude_to_db([[0.0, 1.0]], amin=2e-19, top_db=None).tolist() == [
        [pytest.approx(-373.9794), 0]
    ]
    with pytest.raises(ValueError, match=r"at least 1\.1e-19"):
        features.amplitude_to_db([[0.0, 1.0]], amin=1e-20)


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
