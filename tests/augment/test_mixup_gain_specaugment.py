"""Mixup, gain and SpecAugment: distributions, labels, and traffic between devices."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rann_jax import augment, distributed
from rann_jax.devices import collectives

KEY = jax.random.key(7)


@pytest.mark.fast
def test_mixup_mixes_sound_and_labels_alike():
    identity = jnp.eye(64, dtype=jnp.float32)
    x, labels = augment.mixup(KEY, identity, identity, alpha=1.0)
    np.testing.assert_array_equal(x, labels)
    np.testing.assert_allclose(labels.sum(1), 1, rtol=1e-6)
    assert (np.asarray(labels) >= 0).all()


@pytest.mark.fast
@pytest.mark.parametrize("dtype", [np.int32, np.uint8, bool])
@pytest.mark.parametrize(
    "mix",
    [functools.partial(augment.mixup, alpha=1.0), functools.partial(augment.between_class, sample_rate=640)],
)
def test_integer_labels_are_mixed_like_float_labels(mix, dtype):
    mix = jax.jit(mix)
    audio = np.random.default_rng(0).normal(size=(4, 200)).astype(np.float32)
    labels = np.eye(4, dtype=dtype)
    np.testing.assert_array_equal(mix(KEY, audio, labels)[1], mix(KEY, audio, labels.astype(np.float32))[1])


@pytest.mark.parametrize("alpha", [0.4, 1.0])
def test_mixup_ratio_is_beta_distributed(alpha):
    identity = jnp.eye(2000, dtype=jnp.float32)
    _, labels = augment.mixup(KEY, identity, identity, alpha=alpha)
    ratio = np.diag(np.asarray(labels))
    assert stats.kstest(ratio, stats.beta(alpha, alpha).cdf).pvalue > 0.01


@pytest.mark.fast
@pytest.mark.parametrize(
    ("name", "options"),
    [("mixup", {"alpha": 1.0}), ("mixup", {"alpha": 0.4}), ("between_class", {"sample_rate": 640})],
    ids=["uniform", "beta", "between_class"],
)
def test_mixing_sends_one_example_per_device(name, options):
    split = distributed.split_batch(distributed.data_mesh())
    audio = jax.ShapeDtypeStruct((16, 640), jnp.float32, sharding=split)
    labels = jax.ShapeDtypeStruct((16, 3), jnp.float32, sharding=split)
    mix = functools.partial(getattr(augment, name), **options)
    compiled = jax.jit(mix, out_shardings=(split, split)).lower(KEY, audio, labels).compile()
    sent = collectives.traffic(compiled.as_text())
    levels = 2 * 4 if name == "between_class" else 0
    assert sent["collective-permute"].bytes == 4 * 640 + 4 * 3 + levels
    # Devices agree on whether every ratio has been drawn: one bit per loop of JAX's Beta sampler.
    agreed = sent.pop("all-reduce", collectives.Traffic(0, 0)).bytes
    assert agreed <= (4 if options.get("alpha") == 0.4 else 0)
    assert sent.keys() == {"collective-permute"}


def test_widths_of_hidden_stripes_are_uniform():
    images = jax.random.normal(KEY, (500, 32, 64), jnp.float32)
    stripes = {"time_stripes": 1, "time_width": 10, "frequency_stripes": 1, "frequency_width": 4}
    hidden = jax.jit(functools.partial(augment.spec_augment, **stripes))(KEY, images)
    changed = np.asarray(hidden != images)
    columns, rows = changed.all(axis=1).sum(axis=1), changed.all(axis=2).sum(axis=1)
    for counts, width in ((columns, 10), (rows, 4)):
        assert counts.min() == 0
        assert counts.max() == width
        assert stats.chisquare(np.bincount(counts, minlength=width + 1)).pvalue > 1e-3
    means = np.broadcast_to(np.asarray(images).mean((1, 2), keepdims=True), images.shape)
    np.testing.assert_allclose(np.asarray(hidden)[changed], means[changed], rtol=1e-5, atol=1e-6)


@pytest.mark.fast
@pytest.mark.parametrize(("axis", "size"), [("time", 64), ("frequency", 8)])
def test_the_widest_stripe_is_a_share_of_its_own_axis(axis, size):
    other = "frequency" if axis == "time" else "time"
    mask = augment.SpecAugment(**{f"{axis}_stripes": 1, f"{axis}_share": 0.5, f"{other}_stripes": 0})
    images = jax.random.normal(KEY, (500, 8, 64))
    changed = np.asarray(jax.jit(mask)(KEY, images, jnp.ones((500, 1)))[0] != images)
    widths = changed.all(axis=1 if axis == "time" else 2).sum(axis=1)
    assert widths.max() == size // 2


@pytest.mark.fast
def test_two_stripes_hide_the_expected_frames():
    """Two stripes of up to 3 of 12 frames may overlap; the expected counts enumerate all pairs of stripes."""
    size, width = 12, 3
    stripes = [
        (frozenset(range(start, start + w)), 1 / (width + 1) / (size - w + 1))
        for w in range(width + 1)
        for start in range(size - w + 1)
    ]
    expected = np.zeros(2 * width + 1)
    for first, p in stripes:
        for second, q in stripes:
            expected[len(first | second)] += p * q
    images = jax.random.normal(KEY, (4000, 2, size), jnp.float32)
    drawn = {"time_stripes": 2, "time_width": width, "frequency_stripes": 0, "frequency_width": 0}
    hidden = jax.jit(functools.partial(augment.spec_augment, **drawn))(KEY, images)
    frames = np.asarray(hidden != images).all(axis=1)
    seen = np.bincount(frames.sum(axis=1), minlength=2 * width + 1)
    assert stats.chisquare(seen, 4000 * expected).pvalue > 1e-3
    # Each frame, including the first and last, is hidden as often as the stripes that cover it are drawn.
    by_one = np.array([sum(p for stripe, p in stripes if frame in stripe) for frame in range(size)])
    np.testing.assert_allclose(frames.mean(axis=0), 1 - (1 - by_one) ** 2, atol=0.03)


@pytest.mark.fast
def test_gain_is_uniform_in_decibels_and_keeps_silence():
    audio = jnp.ones((4000, 2), jnp.float32).at[:, 1].set(0)
    louder = np.asarray(augment.gain(KEY, audio, low_db=-6.0, high_db=6.0))
    level = 20 * np.log10(louder[:, 0])
    assert stats.kstest(level, stats.uniform(-6, 12).cdf).pvalue > 0.01
    assert not louder[:, 1].any()


@pytest.mark.fast
@pytest.mark.parametrize("name", ["gain", "white_noise"])
@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_integer_sound_is_changed_as_float32(name, probability):
    audio = np.random.default_rng(1).normal(0, 3000, (6, 400)).astype(np.int16)
    changed, same = (
        augment.policy({name: {"probability": probability}}, sample_rate=8000).on_audio(KEY, x, np.eye(6))[0]
        for x in (audio, audio.astype(np.float32))
    )
    assert changed.dtype == jnp.float32
    assert (np.asarray(changed) != audio).any()
    np.testing.assert_array_equal(changed, same)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("stripes", "named"),
    [
        ({"time_width": -1}, "time_width=-1"),
        ({"frequency_width": -2}, "frequency_width=-2"),
        ({"time_stripes": -1}, "time_stripes=-1"),
        ({"frequency_stripes": -1}, "frequency_stripes=-1"),
        ({"time_width": 9}, "4 bins and 9 frames do not fit an image of 4 x 8"),
    ],
)
def test_impossible_stripes_are_refused(stripes, named):
    allowed = {"time_stripes": 2, "time_width": 8, "frequency_stripes": 2, "frequency_width": 4}
    images = jnp.zeros((1, 4, 8), jnp.float32)
    augment.spec_augment(KEY, images, **allowed)
    with pytest.raises(ValueError, match=named):
        augment.spec_augment(KEY, images, **{**allowed, **stripes})
