"""The report on a compiled step: traffic of handwritten HLO and of a program whose traffic is known."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from rann_jax import compile as compiler
from rann_jax import distributed
from rann_jax.devices.collectives import Traffic, array_bytes, traffic
from rann_jax.training.gradients import accumulated
from tests.refusals import refused

HLO = """
  %p = f32[8,4]{1,0:T(8,128)} parameter(0)
  %r = (f32[16]{0}, bf16[2,3]{1,0}) all-reduce(%a, %b), channel_id=1, replica_groups={{0,1}}
  %r.clone = (f32[16]{0}, bf16[2,3]{1,0}) all-reduce(%a, %b), channel_id=1, replica_groups={{0,1}}
  %s = (f32[4]{0}, f32[8]{0}) all-gather-start(%c), channel_id=2
  %d = f32[8]{0} all-gather-done(%s)
  ROOT %q = f32[2,4]{1,0} reduce-scatter(%p), channel_id=3, dimensions={0}
  %x = f32[] add(%all-reduce.1, %y)
"""


@pytest.mark.fast
def test_traffic_of_handwritten_hlo():
    assert traffic(HLO) == {
        "all-reduce": Traffic(1, 16 * 4 + 6 * 2),
        "all-gather": Traffic(1, 8 * 4),
        "reduce-scatter": Traffic(1, 32 * 4),  # counts its operand, the larger side
    }
    assert array_bytes("pred[5]{0}") == 5
    assert array_bytes("f32[]") == 4
    assert array_bytes("(c64[2]{0}, c128[1], f8e4m3fn[3]{0}, u32[], token[])") == 16 + 16 + 3 + 4
    with pytest.raises(KeyError, match="x7"):
        array_bytes("x7[2]")


LOOPS = """
%inner (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  ROOT %r = f32[8]{0} all-reduce(%a), channel_id=1
}

%outer (b: f32[8]) -> f32[8] {
  %b = f32[8]{0} parameter(0)
  %s = f32[8]{0} all-reduce(%b), channel_id=2
  ROOT %w = f32[8]{0} while(%s), condition=%more, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
}

ENTRY %main (c: f32[8]) -> f32[8] {
  %c = f32[8]{0} parameter(0)
  %u = f32[8]{0} while(%c), condition=%more, body=%unknown
  ROOT %v = f32[8]{0} while(%u), condition=%more, body=%outer, backend_config={"known_trip_count":{"n":"2"}}
}
"""


@pytest.mark.fast
def test_traffic_in_a_loop_counts_as_often_as_the_loop_runs():
    assert traffic(LOOPS) == {"all-reduce": Traffic(2 * 3 + 2, (2 * 3 + 2) * 32)}


FUSED = """
%all-reduce-scatter.6 (a: f32[8], b: u32[]) -> f32[2] {
  %a = f32[8]{0} parameter(0)
  %r = f32[8]{0} all-reduce(%a), channel_id=1
  ROOT %s = f32[2]{0} dynamic-slice(%r, %b), dynamic_slice_sizes={2}
}

ENTRY %main (c: f32[8], d: u32[]) -> f32[2] {
  %c = f32[8]{0} parameter(0)
  %d = u32[] parameter(1)
  ROOT %f = f32[2]{0} fusion(%c, %d), kind=kCustom, calls=%all-reduce-scatter.6
}
"""


@pytest.mark.fast
def test_an_all_reduce_fused_with_a_slice_is_a_reduce_scatter():
    assert traffic(FUSED) == {"reduce-scatter": Traffic(1, 32)}


@pytest.mark.fast
def test_expected_cycles_are_those_of_all_operations():
    class Compiled:
        def as_text(self) -> str:
            return """
              %f = f32[8]{0} fusion(%p), backend_config={"used":[],"estimated_cycles":"40","iterations":"1"}
              ROOT %c = f32[8]{0} copy(%f), backend_config={"estimated_cycles":"2"}
            """

    assert compiler.expected_cycles(Compiled()) == 42
    assert compiler.expected_cycles(jax.jit(jnp.sin).lower(0.0).compile()) == 0  # only for TPUs


@pytest.mark.fast
def test_traffic_of_a_gradient():
    """Data-parallel least squares sends only the gradient of its 24 weights."""
    mesh = distributed.data_mesh()
    split, whole = distributed.split_batch(mesh), NamedSharding(mesh, PartitionSpec())

    def slope(w, x):
        return jax.grad(lambda v: jnp.square(x @ v).sum())(w)

    w = jax.ShapeDtypeStruct((24,), jnp.float32, sharding=whole)
    x = jax.ShapeDtypeStruct((16, 24), jnp.float32, sharding=split)
    compiled = jax.jit(slope, out_shardings=whole).lower(w, x).compile()
    assert traffic(compiled.as_text()) == {"all-reduce": Traffic(1, 24 * 4)}
    assert compiler.memory_bytes(compiled) >= 24 * 4 + 2 * 24 * 4


@pytest.mark.fast
def test_traffic_of_a_gradient_in_parts():
    """Every part's gradient is summed over the devices by itself."""
    mesh, parts = distributed.data_mesh(), 3
    split, whole = distributed.split_batch(mesh), NamedSharding(mesh, PartitionSpec())

    def loss(w, statistics, x, labels, key):
        return jnp.square(x @ w).sum(), statistics

    def slope(w, x, key):
        return accumulated(loss, parts)(w, (), x, x[:, :1], key)[1]

    w = jax.ShapeDtypeStruct((24,), jnp.float32, sharding=whole)
    x = jax.ShapeDtypeStruct((16 * parts, 24), jnp.float32, sharding=split)
    key = jax.ShapeDtypeStruct((), jax.random.key(0).dtype, sharding=whole)
    compiled = jax.jit(slope, out_shardings=whole).lower(w, x, key).compile()
    assert traffic(compiled.as_text())["all-reduce"] == Traffic(parts, parts * 24 * 4)


def test_the_step_of_a_config(capsys):
    arguments = ["--config", "tests/two_blocks.py", "--cpu-devices", "8", "--config.accumulate=2"]
    assert compiler.main([*arguments, "--config.batch_size=16"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("two_blocks, batch 16, on 8 x cpu (data=8)\n")
    for text in ("memory per device: ", "FLOPs per device and step: ", "all-reduce: "):
        assert text in said


@pytest.mark.fast
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--cpu-devices", "8", "--config.batch_size=12"],
            "config.batch_size=12 cannot be split evenly over 8",
        ),
        (["--cpu-devices", "0"], "--cpu-devices=0: it must be at least 1"),
        (["--cpu-devices", "-1"], "--cpu-devices=-1: it must be at least 1"),
        (["--cpu-devices", "8", "please"], "'please' is not understood"),
        (["--topology", "v5e:none"], "--topology v5e:none: "),
    ],
)
def test_steps_that_cannot_be_compiled_are_refused(arguments, says, capsys):
    assert says in refused(compiler.main, capsys, "--config", "tests/two_blocks.py", *arguments)
