"""The windows of a sound that comes in blocks, and its resampling."""

import numpy as np
import pytest
import soxr

from rann_jax.tagging.windows import resampled, sliding

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("cuts", [[], [5], [1, 2, 3, 50, 51]], ids=str)
@pytest.mark.parametrize("length", [1, 9, 10, 11, 13, 14, 97])
def test_windows_are_slices_of_the_sound(length, cuts):
    """A window starts every four samples, and one ends with the sound; each start occurs once."""
    wave = np.arange(1, length + 1, dtype=np.float32)
    blocks = np.split(wave, [cut for cut in cuts if cut < length])
    starts = []
    for start, stop, window in sliding(blocks, 10, 4):
        np.testing.assert_array_equal(window[: stop - start], wave[start:stop])
        assert not window[stop - start :].any()
        starts.append(start)
    assert stop == length
    assert starts == sorted({0, *range(0, length - 9, 4), max(0, length - 10)})


@pytest.mark.parametrize("rate", [8000, 44100])
def test_resampling_a_stream_is_resampling_the_whole(rate):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, 150001).astype(np.float32)
    stream = np.concatenate(list(resampled(np.split(wave, [17, 90000]), 16000, rate)))
    np.testing.assert_allclose(stream, soxr.resample(wave, 16000, rate, quality="HQ"), atol=1e-5)
