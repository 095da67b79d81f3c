"""Wavegram: sizes, gradients, and training with it alone and beside log-mel."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rann_jax import augment, models
from rann_jax.devices.compiler import xla_options
from rann_jax.experiment import build
from rann_jax.main import run
from rann_jax.models.wavegram import adaptive_max_pool
from rann_jax.steps import make_train_step
from tests.tiny import filled, get_config


def tiny(feature: str):
    config = get_config("steps=4")
    config.feature.name = feature
    config.augment = {"mixup": {"alpha": 1.0}, "spec_augment": {}}
    return config


def shapes_of(model, wave):
    return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros(wave.shape), train=False))


def count(variables) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.fast
@pytest.mark.parametrize("samples", [44100, 32000, 8000, 16001, 777])
@pytest.mark.parametrize(("bins", "frames"), [(128, 128), (40, 50)])
def test_any_rate_gives_exactly_the_frames(samples, bins, frames):
    model = models.Wavegram(bins, frames)
    wave = jax.ShapeDtypeStruct((2, samples), jnp.float32)
    variables = shapes_of(model, wave)
    image = jax.eval_shape(lambda v, x: model.apply(v, x, train=False), variables, wave)
    assert image.shape == (2, bins, frames)


def test_the_published_layer():
    """32 kHz and 100 frames a second give a kernel of 11 and the parameters of the paper's code."""
    model = models.Wavegram(128, 1000)
    wave = jax.ShapeDtypeStruct((1, 320_000), jnp.float32)
    variables = shapes_of(model, wave)
    assert variables["params"]["conv0"]["kernel"].shape == (11, 1, 64)
    pairs = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 128), (128, 128)]
    by_hand = 11 * 64 + 2 * 64 + sum(3 * i * o + 2 * o for i, o in pairs)
    assert count(variables) == by_hand


@pytest.mark.fast
def test_kernels_start_with_hes_variance():
    """It is 2 / inputs, counted over the three positions of the kernel."""

    @jax.jit
    def kernel(key):
        variables = models.Wavegram(64, 8).init(key, jnp.zeros((1, 2048)), train=False)
        return variables["params"]["block3_conv2"]["kernel"]

    drawn = kernel(jax.random.key(0))
    assert drawn.shape == (3, 64, 64)
    assert np.std(drawn) == pytest.approx(np.sqrt(2 / (3 * 64)), rel=0.03)


@pytest.mark.fast
@pytest.mark.parametrize(("length", "size"), [(12, 3), (13, 3), (2205, 512), (3, 5), (7, 7)])
def test_adaptive_windows(length, size):
    x = np.random.default_rng(0).standard_normal((2, length, 3)).astype(np.float32)
    expected = [
        x[:, math.floor(i * length / size) : math.ceil((i + 1) * length / size)].max(1) for i in range(size)
    ]
    np.testing.assert_array_equal(adaptive_max_pool(jnp.asarray(x), size), np.stack(expected, 1))


@pytest.mark.fast
def test_a_later_sound_moves_in_the_image():
    """Frame t covers the samples around t N / T, so a click appears at its time."""
    model = models.Wavegram(8, 64)
    wave = np.zeros((1, 22050), np.float32)
    variables = filled(shapes_of(model, wave), 0)
    apply = jax.jit(lambda x: model.apply(variables, x, train=False))
    silent = apply(wave)
    for sample in (2000, 11025, 20000):
        click = wave.copy()
        click[0, sample] = 1.0
        changed = np.flatnonzero(np.abs(apply(click) - silent).max((0, 1)) > 1e-6)
        assert abs(changed.mean() - (sample / 22050 * 64 - 0.5)) < 1


def test_gradients_at_silence_are_finite():
    model = models.Wavegram(8, 32)
    wave = jnp.zeros((2, 4000), jnp.float32)
    variables = filled(shapes_of(model, wave), 0)

    @jax.jit
    def gradients(params, wave):
        def loss(params, wave):
            image, _ = model.apply({**variables, "params": params}, wave, train=True, mutable=["batch_stats"])
            return jnp.sum(jnp.square(image))

        return jax.grad(loss, argnums=(0, 1))(params, wave)

    for gradient in jax.tree.leaves(gradients(variables["params"], wave)):
        assert np.isfinite(gradient).all()


def test_two_branches_are_two_channels():
    alone, both = (build(tiny(feature)) for feature in ("log_mel", "log_mel+wavegram"))
    shapes = [jax.eval_shape(experiment.initial_state).params for experiment in (alone, both)]
    assert shapes[0]["stage0_block0"]["conv1"]["kernel"].shape == (3, 3, 1, 8)
    assert shapes[1]["stage0_block0"]["conv1"]["kernel"].shape == (3, 3, 2, 8)
    assert shapes[1]["wavegram_norm"]["scale"].shape == (16,)
    assert set(shapes[0]) == set(shapes[1]) - {"wavegram", "wavegram_norm"}


@pytest.mark.fast
def test_spec_augment_changes_only_the_image():
    policy = augment.policy({"spec_augment": {"time_share": 1.0}}, sample_rate=16000)
    key, labels = jax.random.key(0), jnp.ones((8, 2), jnp.float32)
    image, wave = jax.random.normal(key, (8, 16, 32)), jax.random.normal(key, (8, 500))
    both, same = policy.on_features(key, {"image": image, "waveform": wave}, labels)
    assert both["waveform"] is wave
    assert same is labels
    np.testing.assert_array_equal(both["image"], policy.on_features(key, image, labels)[0])
    alone, _ = policy.on_features(key, {"waveform": wave}, labels)
    assert alone["waveform"] is wave


@pytest.mark.usefixtures("quickly_compiled")  # with which gradients of a plain maximum were NaN
def test_a_few_sounds_are_learned():
    """On one repeated batch of tones with different pitches, the loss halves and all weights change."""
    config = tiny("log_mel+wavegram")
    config.augment = {}
    config.optimizer = {"schedule": "constant", "learning_rate": 1e-3}
    experiment = build(config)
    seconds = np.arange(experiment.crop_samples) / config.sample_rate
    pitches = 200 * 1.5 ** np.arange(8)
    batch = {
        "audio": (8000 * np.sin(2 * np.pi * pitches[:, None] * seconds)).astype(np.int16),
        "labels": np.eye(10, dtype=np.float32)[:8],
    }
    step = jax.jit(
        make_train_step(
            experiment.model, experiment.front_end, experiment.tx, task=config.task, ema_decay=0.999
        ),
        compiler_options=xla_options(),
    )
    state, losses = experiment.create(), []
    begin = state.params
    for _ in range(8):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] / 2
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: np.any(np.asarray(a) != b), begin, state.params)))


@pytest.mark.usefixtures("quickly_compiled", "one_device")
def test_the_program_trains_and_evaluates_it(tmp_path):
    config = tiny("wavegram")
    config.total_steps = 2
    config.prepared_dir = str(tmp_path / "prepared")
    options = {"checkpoint": "latest", "quiet": True}
    scores = run(config, tmp_path / "run", mode="train", **options)
    assert run(None, tmp_path / "run", mode="eval", **options) == scores


@pytest.mark.fast
@pytest.mark.parametrize(
    ("shape", "bins", "says"),
    [((100,), 128, "waveforms"), ((1, 1000), 5, "even"), ((1, 15), 128, "15 samples")],
)
def test_impossible_inputs_are_refused(shape, bins, says):
    wave = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(ValueError, match=says):
        jax.eval_shape(lambda x: models.Wavegram(bins, 32).init(jax.random.key(0), x, train=False), wave)


@pytest.mark.fast
def test_a_waveform_alone_needs_a_size():
    model = models.create("rann-1x4-1", num_classes=5)
    wave = jax.ShapeDtypeStruct((1, 16000), jnp.float32)
    with pytest.raises(ValueError, match="wavegram_shape"):
        jax.eval_shape(lambda x: model.init(jax.random.key(0), {"waveform": x}), wave)
