"""What is drawn for one augmentation, example or axis says nothing about what is drawn for another."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax import augment
from rann_jax.augment.padding import sound_length
from rann_jax.augment.policy import Policy, Scheduled

pytestmark = [pytest.mark.fast, pytest.mark.usefixtures("quickly_compiled")]

KEY = jax.random.key(7)
GAIN, SECOND = (Scheduled(name, augment.Gain()) for name in ("gain", "second gain"))


def decibels(x: jax.Array) -> np.ndarray:
    return 20 * np.log10(np.asarray(x)[:, 0])


def correlation(a, b) -> float:
    return abs(np.corrcoef(a, b)[0, 1])


def test_two_augmentations_of_a_policy():
    """The variances of two independent draws from U(-6, 6) add up; the same draw twice has double that."""
    ones = jnp.ones((4000, 1))
    louder, _ = Policy(audio=(GAIN, SECOND)).on_audio(KEY, ones, ones)
    assert np.var(decibels(louder)) == pytest.approx(2 * 12**2 / 12, rel=0.1)


def test_sounds_and_images():
    chosen, ones = Policy(audio=(GAIN,), features=(SECOND,)), jnp.ones((4000, 1))
    drawn = [decibels(apply(KEY, ones, ones)[0]) for apply in (chosen.on_audio, chosen.on_features)]
    assert correlation(*drawn) < 0.1


def test_equal_names_would_draw_the_same():
    with pytest.raises(ValueError, match="two augmentations have the name 'gain'"):
        Policy(audio=(GAIN,), features=(GAIN,))


def test_draws_do_not_depend_on_the_other_augmentations():
    """Else comparing runs with and without one would change the draws of all."""
    wave = jax.random.uniform(KEY, (4, 400))
    options = {"white_noise": {"probability": 0.5}}
    alone, together = (
        augment.policy(given, sample_rate=2000).on_audio(KEY, wave, jnp.eye(4))[0]
        for given in (options, {"roll": {"probability": 0.0}, **options})
    )
    np.testing.assert_array_equal(alone, together)
    assert 0 < (np.asarray(alone) != np.asarray(wave)).any(axis=1).sum() < 4


def test_examples_that_are_augmented_one_by_one():
    chosen = augment.policy({"stretch": {}}, sample_rate=2000)
    stretched, _ = jax.jit(chosen.on_audio)(KEY, jnp.ones((20, 1000)), jnp.ones((20, 1)))
    assert len(set(sound_length(stretched).tolist())) > 8  # about half of them are cut, to 1000 samples


def test_widths_of_stripes_in_time_and_frequency():
    images = jax.random.normal(KEY, (500, 32, 32))
    stripe = {"time_stripes": 1, "time_width": 8, "frequency_stripes": 1, "frequency_width": 8}
    changed = np.asarray(jax.jit(partial(augment.spec_augment, **stripe))(KEY, images) != images)
    assert correlation(changed.all(axis=1).sum(axis=1), changed.all(axis=2).sum(axis=1)) < 0.2


WAVES = np.random.default_rng(3).uniform(-1, 1, (5, 64)).astype(np.float32)
IMAGES = np.random.default_rng(4).uniform(-1, 1, (5, 16, 16)).astype(np.float32)
CLASSES = np.eye(5, dtype=np.float32)


@pytest.mark.parametrize(
    "augmented",
    [
        lambda: augment.mixup(KEY, WAVES, CLASSES, alpha=1.0),
        lambda: augment.mixup(KEY, WAVES, CLASSES, alpha=0.4),
        lambda: augment.crop(KEY, WAVES, samples=8),
        lambda: augment.roll(KEY, WAVES, share=0.5),
        lambda: augment.gain(KEY, WAVES, low_db=-6.0, high_db=6.0),
        lambda: augment.spec_augment(
            KEY, IMAGES, time_stripes=2, time_width=4, frequency_stripes=2, frequency_width=4
        ),
        lambda: augment.policy({"gain": {"probability": 0.5}}, sample_rate=2000).on_audio(
            KEY, WAVES, CLASSES
        ),
    ],
    ids=["mixup", "mixup of a Beta", "crop", "roll", "gain", "spec_augment", "policy"],
)
def test_a_program_with_float64_draws_the_same(augmented):
    """By default JAX draws in the widest type that is enabled, and so other numbers."""
    expected = augmented()
    with jax.enable_x64(True):
        jax.tree.map(np.testing.assert_array_equal, augmented(), expected)
