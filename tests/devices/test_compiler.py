"""XLA options and forms of networks for devices, and how options unknown to XLA are handled."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from rann_jax import distributed, models
from rann_jax.devices import compiler
from rann_jax.evaluate import SplitEvaluator
from rann_jax.experiment import build
from rann_jax.models import rann
from rann_jax.tagger import Tagger
from rann_jax.training.compiled import sharded_step
from tests import tiny

pytestmark = pytest.mark.fast


def gradient(weights, images):
    def convolved(weights):
        return jax.lax.conv_general_dilated(
            images, weights, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    out, back = jax.vjp(convolved, weights)
    return back(out)[0]


def test_weight_gradients_on_cpus_use_xlas_own_convolutions():
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.standard_normal((3, 3, 32, 32), np.float32))
    images = jnp.asarray(rng.standard_normal((2, 16, 24, 32), np.float32))
    plain = jax.jit(gradient).lower(weights, images).compile()
    ours = jax.jit(gradient, compiler_options=compiler.xla_options()).lower(weights, images).compile()
    if "ynn_fusion" not in plain.as_text():
        pytest.skip("this version of XLA gives no convolution to YNN: rann_jax/devices/compiler.py can go")
    assert "ynn_fusion" not in ours.as_text()
    expected = plain(weights, images)
    np.testing.assert_allclose(ours(weights, images), expected, atol=1e-5 * float(abs(expected).max()))


@dataclasses.dataclass
class Chip:
    platform: str
    device_kind: str


def test_other_devices_use_xlas_defaults():
    assert compiler.xla_options(Chip("tpu", "TPU v4")) == {}


@pytest.mark.parametrize(
    ("platform", "kind", "lanes"),
    [
        ("tpu", "TPU v5 lite", 128),
        ("tpu", "TPU v4", 128),
        ("tpu", "TPU v6 lite", 256),
        ("tpu", "TPU7x", 256),
        ("gpu", "NVIDIA H100 80GB HBM3", 1),
        ("cpu", "cpu", 1),
    ],
)
@pytest.mark.parametrize("name", ["rann-8x4-6", "cnn14"])
def test_a_network_fills_the_matrix_units_of_a_tpu(name, platform, kind, lanes):
    network = models.create(name, num_classes=2)
    assert compiler.suited(network, Chip(platform, kind)).lanes == lanes
    assert compiler.suited(network.clone(lanes=64), Chip(platform, kind)).lanes == 64


def test_the_default_device_is_meant_and_other_networks_have_one_form():
    network = nn.Dense(2)
    assert compiler.suited(network, Chip("tpu", "TPU v4")) is network
    assert compiler.suited(models.create("rann-8x4-6", num_classes=2)).lanes == 1


def test_options_unknown_to_xla_are_left_out():
    known = dict(compiler.CPU_OPTIONS)
    assert compiler.known_options(xla_cpu_no_such_option="1", **known) == known
    (name,) = known
    assert compiler.known_options(**{name: "LIBRARY_FUSION_TYPE_NONE_SUCH"}) == {}


def test_training_evaluation_and_tagging_use_the_form_for_the_device(monkeypatch):
    config = tiny.get_config()
    experiment, mesh = build(config), distributed.data_mesh(devices=jax.devices()[:1])
    packings: list[set[int]] = []
    real = rann.packed

    def noted(images, columns):
        packings[-1].add(columns)
        return real(images, columns)

    monkeypatch.setattr(rann, "packed", noted)
    monkeypatch.setattr(compiler, "lanes", lambda device: 4 * experiment.model.width * rann.BASE_CHANNELS)
    state = experiment.abstract_state(distributed.replicated(mesh))
    nothing = types.SimpleNamespace(targets=lambda split: np.zeros((0, 2)), fingerprint=lambda split: "")
    evaluator = SplitEvaluator(experiment, nothing, "test", mesh)
    tagger = Tagger(experiment, state.ema_variables, ["dog", "cat"])
    audio = jax.ShapeDtypeStruct((config.batch_size, experiment.crop_samples), jnp.int16)
    labels = jax.ShapeDtypeStruct((config.batch_size, config.num_classes), jnp.float32)
    for function, arguments in (
        (sharded_step(experiment, mesh), (state, {"audio": audio, "labels": labels})),
        (evaluator._step, (tagger.variables, audio)),
        (tagger._probabilities, (tagger.variables, audio)),
        (tagger._embeddings, (tagger.variables, audio)),
    ):
        packings.append(set())
        jax.eval_shape(function, *arguments)
    assert packings == [{4}] * 4
