"""Policies: which augmentations run, how often and until which step, and that only the key decides."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from ml_collections import ConfigDict
from scipy import stats

from configs import esc50
from rann_jax import augment, distributed
from rann_jax.devices.compiler import xla_options
from rann_jax.errors import ConfigError
from rann_jax.experiment import build
from tests import tiny

pytestmark = pytest.mark.usefixtures("quickly_compiled")

KEY, RATE = jax.random.key(7), 8000
EVERYTHING = {name: {"probability": 0.5} for name in augment.AUGMENTATIONS}


def policy(options, **arguments):
    return augment.policy(options, sample_rate=RATE, **arguments)


def noise(batch: int, samples: int = 100) -> tuple[jax.Array, jax.Array]:
    return jax.random.normal(KEY, (batch, samples), jnp.float32), jnp.eye(batch, dtype=jnp.float32)


@pytest.mark.fast
def test_policy_follows_the_registry_and_the_key():
    chosen = policy({"mixup": {"alpha": 0.5}, "gain": {}, "spec_augment": {}})
    assert [type(a.augmentation).__name__ for a in chosen.audio] == ["Gain", "Mixup"]
    assert [type(a.augmentation).__name__ for a in chosen.features] == ["SpecAugment"]
    audio, labels = noise(4)
    first, again = (chosen.on_audio(KEY, audio, labels)[0] for _ in range(2))
    other, _ = chosen.on_audio(jax.random.key(8), audio, labels)
    np.testing.assert_array_equal(first, again)
    assert (np.asarray(first) != np.asarray(other)).any()
    unchanged, _ = policy({}).on_audio(KEY, audio, labels)
    assert unchanged is audio


@pytest.mark.fast
def test_a_config_dict_gives_the_same_policy_as_a_dict():
    options = {"gain": {}, "mixup": {"alpha": 0.5}}
    assert policy(ConfigDict(options)) == policy(options)


@pytest.mark.fast
def test_examples_are_augmented_with_the_given_probability():
    audio, labels = noise(4000, 2)
    louder, _ = policy({"gain": {"probability": 0.3}}).on_audio(KEY, audio, labels)
    changed = (np.asarray(louder) != np.asarray(audio)).any(axis=1)
    assert stats.binomtest(int(changed.sum()), 4000, 0.3).pvalue > 0.01
    # The choice of examples does not affect their values: the levels cover the whole range.
    level = 20 * np.log10(np.asarray(louder / audio)[changed, 0])
    assert stats.kstest(level, stats.uniform(-6, 12).cdf).pvalue > 0.01
    never, _ = policy({"gain": {"probability": 0.0}}).on_audio(KEY, audio, labels)
    np.testing.assert_array_equal(never, audio)


@pytest.mark.fast
def test_an_example_that_is_not_mixed_keeps_its_label():
    audio, labels = noise(64)
    mixed, mixed_labels = policy({"mixup": {"probability": 0.5}}).on_audio(KEY, audio, labels)
    kept = (np.asarray(mixed) == np.asarray(audio)).all(axis=1)
    assert 16 < kept.sum() < 48
    np.testing.assert_array_equal(mixed_labels[kept], labels[kept])
    np.testing.assert_allclose(mixed_labels.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.fast
def test_mixup_stops_at_the_configured_step():
    chosen = policy({"mixup": {"until": 0.75}}, total_steps=100)
    audio, labels = noise(8)

    @jax.jit
    def at(step):
        return chosen.on_audio(KEY, audio, labels, step)[0]

    always = policy({"mixup": {}}).on_audio(KEY, audio, labels)[0]
    np.testing.assert_allclose(at(jnp.int32(74)), always, atol=1e-6)
    np.testing.assert_array_equal(at(jnp.int32(75)), audio)


@pytest.mark.fast
def test_masks_stop_at_the_configured_step():
    chosen = policy({"spec_augment": {"until": 0.5, "time_share": 1.0}}, total_steps=100)
    images, labels = jax.random.normal(KEY, (8, 16, 16)), jnp.eye(8)
    masked = jax.jit(chosen.on_features)
    assert (masked(KEY, images, labels, 49)[0] != images).any()
    np.testing.assert_array_equal(masked(KEY, images, labels, 50)[0], images)


def test_eight_devices_augment_as_one():
    """Every augmentation at probability 0.5, on clips with different padding, one of them silent."""
    chosen = policy(EVERYTHING)
    rng = np.random.default_rng(0)
    audio = rng.uniform(-1, 1, (16, 4000)).astype(np.float32)
    for row, length in enumerate(range(0, 4000, 250)):
        audio[row, length:] = 0
    labels = np.eye(16, dtype=np.float32)

    @partial(jax.jit, compiler_options=xla_options())
    def augmented(key, audio, labels):
        audio, labels = chosen.on_audio(key, audio, labels)
        image, labels = chosen.on_features(key, audio.reshape(16, 40, 100), labels)
        return audio, image, labels

    one = augmented(KEY, audio, labels)
    sharded = NamedSharding(distributed.data_mesh(), PartitionSpec("data"))
    eight = augmented(KEY, *jax.device_put((audio, labels), sharded))
    assert len(eight[0].sharding.device_set) == 8
    for a, b in zip(one, eight, strict=True):
        assert np.isfinite(a).all()
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(one[2].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    ("dtype", "becomes"),
    [(jnp.bfloat16, jnp.bfloat16), (jnp.float16, jnp.float16), (jnp.int16, jnp.float32)],
)
@pytest.mark.parametrize("probability", [0.5, 1.0])
@pytest.mark.parametrize("name", ["stretch", "pitch"])
def test_stretch_and_pitch_keep_the_floating_type_of_the_sound(name, probability, dtype, becomes):
    audio, labels = noise(8, 1000)
    audio = (100 * audio).astype(dtype)
    chosen = policy({name: {"probability": probability}})
    changed, _ = chosen.on_audio(KEY, audio, labels)
    expected, _ = chosen.on_audio(KEY, audio.astype(jnp.float32), labels)
    assert changed.dtype == becomes
    np.testing.assert_allclose(changed.astype(jnp.float32), expected, rtol=0.01, atol=0.01)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mixip": {}}, "mixip"),
        ({"mixup": {"alpha": 0.0}}, "alpha"),
        ({"mixup": {"beta": 1.0}}, "beta"),
        ({"stretch": {"sample_rate": 1000}}, "stretch has no option .sample_rate."),
        ({"mixup": {"until": 0.5}}, "until=0.5.*total_steps"),
        ({"gain": {"low_db": 3.0, "high_db": 1.0}}, "low_db"),
        ({"gain": {"probability": 1.5}}, "probability=1.5"),
        ({"spec_augment": {"time_share": 2.0}}, "time_share"),
        ({"spec_augment": {"time_stripes": -1}}, "time_stripes"),
        ({"white_noise": {"low_snr": 3.0, "high_snr": 1.0}}, "low_snr"),
        ({"roll": {"share": 0.7}}, "share=0.7"),
        ({"crop": {"share": 0.0}}, "share=0.0"),
        ({"stretch": {"slowest": 1.2, "fastest": 0.9}}, "1.2 and 0.9"),
        ({"stretch": {"fastest": 9.0}}, "9.0"),
        ({"pitch": {"lowest": 1.0, "highest": -1.0}}, "1.0 and -1.0"),
    ],
)
def test_wrong_options_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        policy(options)


@pytest.mark.fast
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("augmentation", "name"),
    [
        (augment.Gain, "low_db"),
        (augment.Gain, "high_db"),
        (augment.WhiteNoise, "low_snr"),
        (augment.WhiteNoise, "high_snr"),
        (augment.Mixup, "alpha"),
        (augment.FeatureMixup, "alpha"),
        (augment.SpecAugment, "time_stripes"),
        (augment.SpecAugment, "frequency_share"),
        (partial(augment.Stretch, sample_rate=RATE), "fastest"),
        (partial(augment.Pitch, sample_rate=RATE), "lowest"),
        (augment.Crop, "share"),
        (augment.Roll, "share"),
    ],
)
def test_options_that_are_not_finite_are_refused(augmentation, name, value):
    with pytest.raises(ValueError, match=rf"{value}|spec_augment.*{name}"):
        augmentation(**{name: value})


@pytest.mark.fast
def test_feature_mixup_refuses_images_beside_waveforms():
    audio, labels = noise(4)
    chosen = policy({"feature_mixup": {}})
    mixed, _ = chosen.on_features(KEY, audio[:, None], labels)
    assert (np.asarray(mixed) != np.asarray(audio[:, None])).any()
    with pytest.raises(ValueError, match=r"feature_mixup.*image and waveform: use mixup"):
        chosen.on_features(KEY, {"image": audio[:, None], "waveform": audio}, labels)


def test_an_experiment_names_the_config_key():
    config = tiny.get_config()
    config.augment = {"feature_mixup": {}}
    config.feature.name = "log_mel+wavegram"
    with pytest.raises(ConfigError, match=r"config\.augment: feature_mixup"):
        build(config)


@pytest.mark.fast
@pytest.mark.parametrize("preset", esc50.AUGMENT)
def test_presets_of_esc50_are_policies(preset):
    config = esc50.get_config(f"augment={preset}")
    made = augment.policy(
        config.augment.to_dict(), sample_rate=config.sample_rate, total_steps=config.total_steps
    )
    names = {
        name
        for name, cls in augment.AUGMENTATIONS.items()
        for a in made.audio + made.features
        if type(a.augmentation) is cls
    }
    mixup, masks = {"between_class"}, {"spec_augment"}
    everything = {"stretch", "pitch", "white_noise"} | mixup | masks
    assert names == {"none": set(), "specaugment": masks, "mixup": mixup, "all": everything}[preset]
