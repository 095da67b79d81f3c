"""Arguments of a wrong type are refused by a ValueError that names them; any kind of number will do.

This goes through the signatures of all public features, so that a new argument is tested as well.
"""

import inspect

import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax import features

SOUND = np.random.default_rng(0).normal(size=4000).astype(np.float32)
IMAGE = np.abs(SOUND).reshape(20, 200)
SPECTRA = IMAGE[:17].astype(np.complex64)

CLASSES = {"FRONT_ENDS", "FrontEnd", "ImageFrontEnd", "WaveformFrontEnd"}

# Arguments without which a feature cannot run, or that make it quick.
REQUIRED: dict[str, dict] = {
    "amplitude_to_db": {"S": IMAGE},
    "chroma_cens": {"y": SOUND, "n_octaves": 1, "fmin": 500.0, "win_len_smooth": 3},
    "chroma_cqt": {"y": SOUND, "n_octaves": 1, "fmin": 500.0},
    "chroma_stft": {"y": SOUND},
    "cqt": {"y": SOUND, "n_bins": 12, "fmin": 500.0},
    "cwt": {"y": SOUND, "scales": [2.0, 3.0], "wavelet": "morl"},
    "cyclic_tempogram": {"y": SOUND, "octave_num": 1, "hop_length": 128},
    "delta": {"data": IMAGE},
    "dwt": {"y": SOUND, "wavelet": "db2"},
    "fourier_tempogram": {"y": SOUND},
    "front_end": {"name": "log_mel"},
    "gammatonegram": {"y": SOUND, "sr": 8000},
    "gfcc": {"y": SOUND, "sr": 8000},
    "istft": {"stft_matrix": SPECTRA},
    "melspectrogram": {"y": SOUND},
    "mfcc": {"y": SOUND},
    "onset_strength": {"y": SOUND},
    "pcen": {"S": IMAGE},
    "power_to_db": {"S": IMAGE},
    "resample": {"y": SOUND, "orig_sr": 8000, "target_sr": 4000},
    "scalogram": {"y": SOUND, "sr": 8000},
    "stft": {"y": SOUND},
    "tempogram": {"y": SOUND},
    "vqt": {"y": SOUND, "n_bins": 12, "fmin": 500.0},
    "wavedec": {"y": SOUND, "wavelet": "db2"},
}
WRONG = ("44.1 k", b"8", {}, object(), [["a"]])


def parameters(name: str) -> dict[str, inspect.Parameter]:
    """Return the parameters of a feature; of `mfcc` also those that it passes on."""
    signature = inspect.signature(getattr(features, name)).parameters
    if name == "mfcc":
        signature = {**inspect.signature(features.melspectrogram).parameters, **signature}
    return {
        key: parameter for key, parameter in signature.items() if parameter.kind is not parameter.VAR_KEYWORD
    }


EVERY = [(name, key) for name in REQUIRED for key in parameters(name) if key != "name"]


@pytest.mark.fast
def test_every_feature_is_here():
    assert REQUIRED.keys() == set(features.__all__) - CLASSES


@pytest.mark.fast
@pytest.mark.parametrize(("name", "key"), EVERY)
def test_a_wrong_type_is_refused_by_name(name, key):
    for wrong in WRONG:
        with pytest.raises(ValueError, match=rf"\b{key}\b") as error:
            getattr(features, name)(**{**REQUIRED[name], key: wrong})
        assert "Non-hashable" not in str(error.value)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("melspectrogram", {"sr": "44100"}, "sr must be a number, got '44100'"),
        ("melspectrogram", {"fmax": "8k"}, "fmax must be a number, got '8k'"),
        ("melspectrogram", {"sr": None}, "sr must be a number, got None"),
        ("melspectrogram", {"sr": True}, "sr must be a number, got True"),
        ("resample", {"orig_sr": "44100"}, "orig_sr must be a number, got '44100'"),
        ("front_end", {"name": ["mfcc"]}, r"unknown front end \['mfcc'\]: use one of"),
        ("front_end", {"seconds": "8"}, "seconds must be a number, got '8'"),
        ("front_end", {"frames_per_second": "8"}, "frames_per_second must be a number"),
        ("chroma_cqt", {"threshold": "a"}, "threshold must be a number, got 'a'"),
        ("chroma_cqt", {"window": []}, r"window must be weights of shape \(width,\), got \[\]"),
        ("chroma_cqt", {"window": [[1.0, 1.0]]}, r"window must be weights of shape \(width,\)"),
        ("chroma_cens", {"smoothing_window": []}, "smoothing_window: window must be"),
        ("cqt", {"fmin": "C1"}, "fmin must be a number, got 'C1'"),
        ("vqt", {"intervals": 5}, "intervals=5 is not supported"),
        ("vqt", {"window": None}, "window must be"),
        ("cqt", {"window": ("kaiser", None)}, "window=.* cannot be made: "),
        ("cqt", {"window": "hamn"}, "window='hamn' cannot be made: "),
        ("cwt", {"scales": [[1.0, 2.0]]}, "scales must be"),
        ("stft", {"window": np.nan}, "window must be"),
        ("stft", {"window": [np.nan] * 2048}, "window must have finite samples"),
        ("stft", {"window": np.array(["a"] * 2048)}, "window cannot be made: "),
        ("stft", {"window": [0.5] * 2047 + ["x"]}, "window of 2048 samples cannot be made: "),
        ("chroma_stft", {"base_c": "A"}, "base_c must be True or False, got 'A'"),
        ("melspectrogram", {"sr": np.True_}, "sr must be a number, got (np.)?True_?"),
        ("delta", {"axis": True}, "axis=True"),
        ("wavedec", {"level": True}, "level=True"),
        ("mfcc", {"foo": 3}, "mfcc has no argument 'foo': use one of .*"),
        ("mfcc", {"n_mel": 3}, "mfcc has no argument 'n_mel'.*; did you mean 'n_mels'?"),
        ("mfcc", {"n_mfc": 3}, "use one of sr, S, n_mfcc, .*n_mels.*; did you mean 'n_mfcc'?"),
        ("mfcc", {"lift": 3}, "mfcc has no argument 'lift'.*; did you mean 'lifter'?"),
        ("stft", {"y": np.zeros(5000, np.int16)}, "got int16: scale it first, e.g. int16 with y / 32768$"),
        ("stft", {"y": np.zeros(5000, np.int32)}, "got int32: scale .* e.g. int32 with y / 2147483648$"),
        ("stft", {"y": [0] * 5000}, "got int64: scale .* e.g. int16 with y / 32768$"),
        ("power_to_db", {"S": np.ones((3, 4), int)}, r"S must be floating-point, .* S.astype\(np.float32\)$"),
        ("stft", {"y": np.zeros(5000, np.uint8)}, "got uint8: scale .* e.g. int16 with y / 32768$"),
        ("onset_strength", {"aggregate": "mean"}, "aggregate must be a function"),
    ],
)
def test_the_message_says_what_was_given(name, arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        getattr(features, name)(**{**REQUIRED[name], **arguments})
    assert "\n" not in str(error.value)


NUMBERS = [(name, key) for name, key in EVERY if isinstance(parameters(name)[key].default, float)]


@pytest.mark.parametrize(("name", "key"), NUMBERS)
def test_a_number_of_jax_or_numpy_is_a_number(name, key):
    default = parameters(name)[key].default
    expected, *others = (
        getattr(features, name)(**{**REQUIRED[name], key: number})
        for number in (float(np.float32(default)), np.float32(default), jnp.float32(default))
    )
    for other in others:
        np.testing.assert_array_equal(expected, other)


@pytest.mark.fast
@pytest.mark.parametrize("name", [name for name, key in EVERY if key == "sr"])
def test_a_rate_of_jax_is_a_rate(name):
    arguments = {"sr": 22050, **REQUIRED[name]}
    rate = arguments.pop("sr")
    expected, other = (getattr(features, name)(**arguments, sr=sr) for sr in (rate, jnp.float32(rate)))
    np.testing.assert_array_equal(expected, other)


class Tensor:
    """An array of another library, with a dtype that is not NumPy's, such as a tensor of PyTorch."""

    dtype = "torch.float32"

    def __init__(self, values: np.ndarray):
        self.values = values

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.values


@pytest.mark.fast
@pytest.mark.parametrize(
    "name", ["stft", "melspectrogram", "amplitude_to_db", "power_to_db", "istft", "delta"]
)
def test_an_array_of_another_library_is_converted(name):
    (_, array), *_ = REQUIRED[name].items()
    feature = getattr(features, name)
    np.testing.assert_array_equal(feature(Tensor(array)), feature(array))


@pytest.mark.fast
@pytest.mark.parametrize("name", ["stft", "melspectrogram", "mfcc", "chroma_stft", "gfcc", "onset_strength"])
def test_swapped_axes_are_warned_of(name):
    """soundfile gives (N, channels). librosa warns too."""
    arguments = {**REQUIRED[name], "y": SOUND.reshape(-1, 2)}
    warned = r"n_fft=2048 is too large for a waveform of 2 samples, .*\(2000, 2\).*y\.T"
    with pytest.warns(UserWarning, match=warned) as caught:
        getattr(features, name)(**arguments)
    assert [warning.filename for warning in caught] == [__file__]  # the caller's file is shown, and once
    arguments["y"] = SOUND[:400].reshape(2, 200)  # two short clips
    getattr(features, name)(**arguments)


@pytest.mark.fast
def test_a_matrix_may_be_a_list():
    matrix = [[1j, 1.0], [1.0, 1j], [0.5, 1j]]
    np.testing.assert_array_equal(features.istft(matrix), features.istft(np.asarray(matrix)))
    levels = features.amplitude_to_db([[1j, 10.0]])
    np.testing.assert_allclose(levels, [[0, 20]], atol=1e-5)
