"""Augmentations refuse arrays of another shape than they document; NumPy and JAX would broadcast them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax import augment

KEY = jax.random.key(3)
LABELS = np.eye(2, dtype=np.float32)
STRIPES = {"time_stripes": 1, "time_width": 2, "frequency_stripes": 1, "frequency_width": 2}

# Each takes waveforms.
ON_AUDIO = {
    "gain": functools.partial(augment.gain, KEY, low_db=-1.0, high_db=1.0),
    "white_noise": functools.partial(augment.white_noise, KEY, low_snr=10.0, high_snr=20.0),
    "roll": functools.partial(augment.roll, KEY, share=0.5),
    "crop": functools.partial(augment.crop, KEY, samples=100),
    "stretch": functools.partial(augment.stretch, rate=1.5, n_fft=64),
    "pitch_shift": functools.partial(augment.pitch_shift, semitones=1, highest=1, n_fft=64),
    "sound_pressure": functools.partial(augment.sound_pressure, sample_rate=640),
    "between_class": lambda audio: augment.between_class(KEY, audio, LABELS, sample_rate=640)[0],
}


@pytest.mark.fast
@pytest.mark.parametrize("name", ON_AUDIO)
@pytest.mark.parametrize("shape", [(), (400,), (2, 1, 400)])
def test_audio_must_be_a_batch_of_waveforms(name, shape):
    with pytest.raises(ValueError, match=r"audio must be \(B, N\)"):
        ON_AUDIO[name](np.zeros(shape, np.float32))


@pytest.mark.fast
@pytest.mark.parametrize("name", ["gain", "white_noise", "roll", "crop"])
def test_one_waveform_within_vmap_is_refused_and_the_message_says_how(name):
    audio = jnp.ones((3, 400))
    with pytest.raises(ValueError, match=r"x\[None\]"):
        jax.vmap(ON_AUDIO[name])(audio)
    assert jax.vmap(lambda x: ON_AUDIO[name](x[None])[0])(audio).shape[0] == 3


@pytest.mark.fast
def test_images_must_be_a_batch_of_images():
    for shape in ((8, 8), (2, 1, 8, 8)):
        with pytest.raises(ValueError, match=r"features must be \(B, F, T\)"):
            augment.spec_augment(KEY, np.zeros(shape, np.float32), **STRIPES)


@pytest.mark.fast
@pytest.mark.parametrize(
    "mix",
    [functools.partial(augment.mixup, alpha=1.0), functools.partial(augment.between_class, sample_rate=640)],
    ids=["mixup", "between_class"],
)
@pytest.mark.parametrize("labels", [np.array([0, 1, 2]), np.eye(2), np.zeros((3, 1, 2))])
def test_labels_must_be_one_row_of_classes_per_example(mix, labels):
    """Class indices would be mixed as if class 1 were halfway between classes 0 and 2."""
    with pytest.raises(ValueError, match=r"labels must be \(B, C\), 3 rows here.*np\.eye"):
        mix(KEY, np.zeros((3, 200), np.float32), labels)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("change", "name"),
    [
        (functools.partial(augment.stretch, n_fft=64), "rate"),
        (functools.partial(augment.pitch_shift, highest=3, n_fft=64), "semitones"),
    ],
)
def test_one_number_holds_for_all_waveforms(change, name):
    audio = np.random.default_rng(0).normal(size=(2, 400)).astype(np.float32)
    np.testing.assert_array_equal(change(audio, 1.25), change(audio, jnp.full(2, 1.25)))
    with pytest.raises(ValueError, match=rf"{name} must be a number or \(B,\), 2 numbers here"):
        change(audio, np.ones(3, np.float32))


@pytest.mark.fast
@pytest.mark.parametrize("name", ["gain", "white_noise", "roll", "crop", "between_class"])
def test_numbers_in_the_byte_order_of_another_machine(name):
    audio = np.random.default_rng(0).uniform(-1, 1, (2, 400)).astype(np.float32)
    swapped = audio.astype(audio.dtype.newbyteorder())
    np.testing.assert_array_equal(ON_AUDIO[name](swapped), ON_AUDIO[name](audio))
