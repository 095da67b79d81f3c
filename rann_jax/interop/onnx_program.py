"""Translation of a JAX function into an ONNX model by its jaxpr, without a second description of a network.

Everything that does not depend on the input is computed at translation, so only two constants of a BatchNorm
are left. Called functions are inlined. If a function has a form for each platform, the default one is used.
The operations are in rann_jax/interop/onnx_rules.py.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnx
from jax.extend.core import Jaxpr, JaxprEqn, Literal  # a stable part of JAX, for such programs

from rann_jax.interop.onnx_graph import Graph, Tensor
from rann_jax.interop.onnx_rules import RULES, Complex, Unsupported, is_static, result_of

# Primitives that call a jaxpr, and the parameter that holds it.
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
}


def to_onnx(
    function: Callable[[jax.Array], jax.Array], size: tuple[int, ...], *, name: str, result: str
) -> onnx.ModelProto:
    """Return the model of a function (B, *size) float32 -> (B, ...) float32, for any B.

    Args:
      function: traceable by JAX; its constants become the model's.
      size: shape of the input without the batch.
      name: name of the input.
      result: name of the output.

    Raises:
      Unsupported: the function has an operation that is not in RULES; the message names it.
    """
    (batch,) = jax.export.symbolic_shape("batch")
    shape = (batch, *size)
    closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct(shape, jnp.float32))
    graph = Graph()
    given = [Tensor(name, shape, np.dtype(np.float32))]
    (value,) = _written(graph, closed.jaxpr, [np.asarray(c) for c in closed.consts], given)
    (out,) = closed.out_avals
    return graph.model({name: shape}, value, out.shape, result)


def _written(graph: Graph, jaxpr: Jaxpr, consts: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """Add the equations of a jaxpr to the graph; return the values of its results."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

    def read(atom: Any) -> Any:
        if not isinstance(atom, Literal):
            return values[atom]
        aval: Any = atom.aval
        return np.asarray(atom.val, aval.dtype)

    for eqn in jaxpr.eqns:
        results = _equation(graph, eqn, [read(atom) for atom in eqn.invars])
        values.update(zip(eqn.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _equation(graph: Graph, eqn: JaxprEqn, inputs: list[Any]) -> list[Any]:
    primitive = eqn.primitive.name
    if primitive in CALLS:
        called = eqn.params[CALLS[primitive]]
        return _written(graph, called.jaxpr, [np.asarray(c) for c in called.consts], inputs)
    if primitive == "platform_index":  # the default form is the last
        return [np.int32(len(eqn.params["platforms"]) - 1)]
    if primitive == "cond" and isinstance(inputs[0], np.ndarray | np.generic):
        branch = eqn.params["branches"][int(inputs[0])]
        return _written(graph, branch.jaxpr, [np.asarray(c) for c in branch.consts], inputs[1:])
    if primitive == "dim_as_value":  # the size of the batch, which is traced but never used here
        return [None]
    if all(_is_constant(value) for value in inputs) and is_static(result_of(eqn).shape):
        found = eqn.primitive.bind(*map(jnp.asarray, inputs), **eqn.params)
        return [np.asarray(v) for v in (found if eqn.primitive.multiple_results else [found])]
    known = primitive in ("real", "imag") or not any(isinstance(value, Complex) for value in inputs)
    if primitive not in RULES or not known or any(value is None for value in inputs):
        raise Unsupported(primitive)
    return [RULES[primitive](graph, eqn, *inputs)]


def _is_constant(value: Any) -> bool:
    return isinstance(value, np.ndarray | np.generic)
