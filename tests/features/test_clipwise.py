"""Work clip by clip on a CPU, and per device on sharded batches, gives the results of the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from rann_jax import distributed, features
from rann_jax.devices.collectives import traffic
from rann_jax.features.clipwise import clipwise, devicewise

pytestmark = pytest.mark.fast


def halves(clips):
    assert clips.ndim == 2
    return jnp.stack([clips[:, :3], clips[:, 3:]], axis=1) ** 2


@pytest.mark.parametrize("leading", [(), (1,), (4,), (2, 3)])
def test_leading_axes_are_kept(leading):
    y = jnp.asarray(np.random.default_rng(0).standard_normal((*leading, 6)), jnp.float32)
    out = jax.jit(lambda y: clipwise(halves, y))(y)
    np.testing.assert_allclose(out, np.square(y).reshape(*leading, 2, 3))
    gradient = jax.grad(lambda y: jnp.sum(clipwise(halves, y)))(y)
    np.testing.assert_allclose(gradient, 2 * y)


def test_a_cpu_works_on_one_clip_at_a_time():
    y = jnp.ones((5, 6))
    lowered = jax.jit(lambda y: clipwise(halves, y)).lower(y).as_text()
    assert "while" in lowered
    assert "tensor<1x2x3xf32>" in lowered


def test_other_devices_work_on_some_clips_at_a_time():
    y = jnp.ones((10, 6))
    image = jax.jit(lambda y: clipwise(halves, y, at_once=4))
    lowered = image.trace(y).lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.while" in lowered
    assert "tensor<4x1x2x3xf32>" in lowered
    assert "tensor<2x1x2x3xf32>" in lowered  # the rest
    fits = jax.jit(lambda y: clipwise(halves, y, at_once=10))
    assert "stablehlo.while" not in fits.trace(y).lower(lowering_platforms=("cuda",)).as_text()


def test_some_clips_at_a_time_have_the_same_values_and_gradients(monkeypatch):
    def anywhere(*arguments, cpu, default):
        return default(*arguments)

    monkeypatch.setattr(jax.lax, "platform_dependent", anywhere)
    y = jnp.asarray(np.random.default_rng(0).standard_normal((10, 6)), jnp.float32)
    np.testing.assert_allclose(clipwise(halves, y, at_once=4), np.square(y).reshape(10, 2, 3))
    gradient = jax.grad(lambda y: jnp.sum(clipwise(halves, y, at_once=4)))(y)
    np.testing.assert_allclose(gradient, 2 * y)


def spectra(clips, keys):
    """Return spectra of noisy clips in a loop; XLA's partitioner would compute the whole batch per device."""
    noise = jax.vmap(lambda key: jax.random.normal(key, (6,)))(keys)
    return jax.lax.map(jnp.fft.rfft, clips + noise)


@pytest.mark.parametrize("clips", [16, 12])
def test_each_device_works_on_its_own_clips(clips):
    y = jnp.asarray(np.random.default_rng(1).standard_normal((clips, 6)), jnp.float32)
    keys = jax.random.split(jax.random.key(0), clips)
    mesh = distributed.data_mesh()
    split = distributed.split_batch(mesh) if clips % mesh.size == 0 else distributed.replicated(mesh)
    compute = jax.jit(lambda keys, y: devicewise(spectra, y, keys), out_shardings=split)
    placed = jax.device_put(y, split)
    np.testing.assert_allclose(compute(keys, placed), spectra(y, keys), rtol=1e-5, atol=1e-5)
    if clips % mesh.size == 0:
        assert traffic(compute.lower(keys, placed).compile().as_text()) == {}


SHARED = [
    ("stft", {"n_fft": 64}),
    ("melspectrogram", {"sr": 8000, "n_fft": 64, "n_mels": 8}),
    ("gfcc", {"sr": 8000, "n_fft": 64, "hop_length": 16, "n_filters": 8, "n_gfcc": 4}),
    ("chroma_stft", {"sr": 8000, "n_fft": 256, "tuning": 0.0}),
    ("cwt", {"scales": (2, 3), "wavelet": "morl"}),
    ("resample", {"orig_sr": 8000, "target_sr": 6000, "res_type": "polyphase"}),
    ("resample", {"orig_sr": 8000, "target_sr": 4000}),
]


@pytest.mark.parametrize(("name", "arguments"), SHARED)
def test_features_of_a_sharded_batch_need_no_traffic(name, arguments):
    assert_computed_where_clips_are(getattr(features, name), 800, arguments)


def test_decimation_on_accelerators_needs_no_traffic(monkeypatch):
    """Accelerators decimate through spectra. The length is new, so that no compiled program is reused."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda y, *, cpu, default: default(y))
    assert_computed_where_clips_are(features.resample, 810, {"orig_sr": 8000, "target_sr": 4000})


def assert_computed_where_clips_are(function, samples, arguments):
    mesh = distributed.data_mesh()
    y = jnp.asarray(np.random.default_rng(2).standard_normal((mesh.size, samples)), jnp.float32)
    feature = jax.jit(lambda y: function(y, **arguments))
    placed = jax.device_put(y, distributed.split_batch(mesh))
    out = feature(placed)
    assert out.sharding.shard_shape(out.shape)[0] == 1
    np.testing.assert_allclose(out, feature(y), rtol=1e-5, atol=1e-5)
    assert traffic(feature.lower(placed).compile().as_text()) == {}


def test_devicewise_inside_shard_map_does_not_split_again():
    mesh = distributed.data_mesh()
    y = jax.device_put(jnp.ones((8, 6)), distributed.split_batch(mesh))
    spec = jax.sharding.PartitionSpec(mesh.axis_names)
    own = jax.shard_map(lambda y: devicewise(halves, y), mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_array_equal(jax.jit(own)(y), np.ones((8, 2, 3)))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("melspectrogram", {"sr": 8000, "n_fft": 64, "n_mels": 8}),
        ("resample", {"orig_sr": 8000, "target_sr": 6000, "res_type": "polyphase"}),
    ],
)
@pytest.mark.parametrize("axis", [0, 1, None])
def test_features_of_a_batch_on_a_mesh_with_explicit_axes(name, arguments, axis):
    """Such are the axes of jax.make_mesh by default."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    y = np.random.default_rng(2).standard_normal((4, 200)).astype(np.float32)
    split = PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "data")
    placed = jax.device_put(y, NamedSharding(mesh, split))

    def feature(y):
        return getattr(features, name)(y, **arguments)

    out = feature(placed)
    np.testing.assert_allclose(out, feature(y), rtol=1e-5, atol=1e-5)
    assert out.sharding.spec[0] == ("data" if axis == 0 else None)
    gradient = jax.jit(jax.grad(lambda y: jnp.sum(feature(y))))
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(gradient(placed), gradient(y), rtol=1e-3, atol=1e-3)
