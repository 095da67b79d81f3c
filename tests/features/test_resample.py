"""Resampling against libsoxr and scipy, through librosa."""

import jax
import jax.numpy as jnp
import librosa
import numpy as np
import pytest
import soxr

from rann_jax.features import resample
from rann_jax.features.resample import impulse_response

pytestmark = pytest.mark.fast

# Whole and fractional ratios, up and down, one and several stages of libsoxr, a ratio of four digits.
RATES = [
    (44100, 22050),
    (44100, 11025),
    (44100, 16000),
    (48000, 44100),
    (22050, 44100),
    (8000, 22050),
    (16000, 44100),
    (44100, 32768),
]


@pytest.mark.parametrize(("orig_sr", "target_sr"), RATES)
@pytest.mark.parametrize("res_type", ["soxr_hq", "polyphase"])
def test_white_noise_with_a_hard_start(orig_sr, target_sr, res_type, hostile, relative_error):
    y = np.stack([hostile(9001)["noise"], hostile(9001)["dc"]])
    rates = {"orig_sr": orig_sr, "target_sr": target_sr, "res_type": res_type}
    assert relative_error(resample(y, **rates), librosa.resample(y, **rates)) < 2e-6


@pytest.mark.parametrize("down", [5, 7, 9, 10, 24])
@pytest.mark.parametrize("res_type", ["soxr_hq", "soxr_vhq", "soxr_mq", "soxr_lq"])
def test_the_start_when_decimating_by_any_whole_factor(down, res_type):
    """How far the start of libsoxr's stages reaches depends on the factor: clicks show every sample of it."""
    clicks = np.eye(120 * down, dtype=np.float32)[:: 2 * down - 1]
    arguments = {"orig_sr": down, "target_sr": 1, "res_type": res_type}
    reference = librosa.resample(clicks, **arguments)
    error = np.max(np.abs(np.asarray(resample(clicks, **arguments)) - reference))
    assert error < 1e-6  # of the clicks' height


@pytest.mark.parametrize("n", [1, 3, 100, 1000])
@pytest.mark.parametrize(("orig_sr", "target_sr"), [(48000, 16000), (44100, 11025), (3, 7)])
def test_short_signals_have_librosas_length(n, orig_sr, target_sr, hostile, relative_error):
    y = hostile(9001)["noise"][:n]
    rates = {"orig_sr": orig_sr, "target_sr": target_sr}
    assert relative_error(resample(y, **rates), librosa.resample(y, **rates)) < 2e-6


@pytest.mark.parametrize(
    ("res_type", "tolerance"), [("soxr_vhq", 1e-6), ("soxr_mq", 2e-5), ("soxr_lq", 2e-5)]
)
def test_other_qualities_on_a_real_clip(res_type, tolerance, clip, relative_error):
    arguments = {"orig_sr": 44100, "target_sr": 32000, "res_type": res_type, "scale": True}
    y = clip(44100)
    error = relative_error(resample(y, **arguments), librosa.resample(y, **arguments))
    assert error < tolerance


def test_without_fix_the_length_is_that_of_libsoxr(hostile, relative_error):
    y = hostile(9001)["noise"]
    ours = resample(y, orig_sr=44100, target_sr=11025, fix=False)
    assert relative_error(ours, soxr.resample(y, 4, 1, quality="soxr_hq")) < 2e-6


def test_the_decimator_by_two_is_a_symmetric_fir_of_367_taps():
    pulse = np.zeros(4000)
    pulse[2000] = 1
    answer = soxr.resample(pulse, 2, 1, quality="soxr_hq")[900:1101]
    np.testing.assert_allclose(impulse_response(1, 2, "soxr_hq"), answer, atol=1e-7)
    # The output holds every other tap of -183 .. 183, so at most 91 on either side.
    heard = np.flatnonzero(np.abs(answer) > 5e-7) - 100
    assert (heard.min(), heard.max()) == (-heard.max(), heard.max())
    assert 88 <= heard.max() <= 91


def test_leading_axes_jit_vmap_and_gradient(hostile):
    y = jnp.asarray(np.stack([hostile(2001)["noise"], hostile(2001)["chirp"]])[None])

    def halve(y):
        return resample(y, orig_sr=2, target_sr=1)

    eager = halve(y)
    assert eager.shape == (1, 2, 1001)
    np.testing.assert_array_equal(jax.jit(halve)(y), eager)
    np.testing.assert_allclose(jax.vmap(jax.vmap(halve))(y), eager, atol=1e-6)
    # The gradient of the sum is the filter's response at zero frequency: one half per sample.
    gradient = jax.jit(jax.grad(lambda y: jnp.sum(halve(y))))(jnp.zeros_like(y))
    np.testing.assert_allclose(gradient[..., 400:-400], 0.5, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"orig_sr": 44100.5}, "orig_sr"),
        ({"target_sr": 0}, "target_sr"),
        ({"orig_sr": np.nan}, "orig_sr must be a positive whole number"),
        ({"target_sr": np.inf}, "target_sr must be a positive whole number"),
        ({"target_sr": 344}, "a factor of 128 apart: resample in steps, first to 3784 Hz"),
        ({"orig_sr": 100, "target_sr": 44100}, "first to 2100 Hz"),
        ({"res_type": "kaiser_best"}, "res_type"),
        ({"y": np.zeros(100, np.int16)}, "y must be floating"),
        ({"y": np.zeros(0, np.float32)}, "y must hold samples"),
        ({"y": np.zeros(1, np.float32), "fix": False}, "give a longer y"),
    ],
)
def test_impossible_arguments_are_refused(change, named):
    arguments = {"y": np.zeros(100, np.float32), "orig_sr": 44100, "target_sr": 16000, **change}
    with pytest.raises(ValueError, match=named):
        resample(arguments.pop("y"), **arguments)


def test_an_equal_rate_copies():
    """JAX may take over the memory of a NumPy array that is aligned, and the caller fill it again."""
    room = np.zeros(64 + 16, np.float32)
    y = room[-room.ctypes.data % 64 // 4 :][:64]
    y[:] = 1
    same = jax.block_until_ready(resample(y, orig_sr=8000, target_sr=8000))
    y[:] = 0
    np.testing.assert_array_equal(same, np.ones(64))
