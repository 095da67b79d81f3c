"""Rules that turn operations of a jaxpr into ONNX nodes, for the networks and most front ends here.

A rule takes the graph, the equation and the values of its inputs, and returns the value of its output.
Shapes have at most one symbolic size, the batch. A value that is the same for the whole batch may keep size 1
on that axis, because ONNX broadcasts as NumPy does.
"""

import string
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import JaxprEqn
from jax.lax import FftType, GatherScatterMode
from onnx import helper

from rann_jax.interop.onnx_graph import Graph, Shape, Tensor, Value

Rule = Callable[..., Any]


class Unsupported(Exception):
    """An operation that no rule can translate; the message is its name."""


class Complex(NamedTuple):
    """A complex value as two real ones."""

    real: Value
    imag: Value


def is_static(shape: Sequence[Any]) -> bool:
    """Return whether a shape does not depend on the batch."""
    return all(isinstance(size, int | np.integer) for size in shape)


def result_of(eqn: JaxprEqn) -> Any:
    """Return the shape and type of an equation's output."""
    return eqn.outvars[0].aval


def computed(graph: Graph, eqn: JaxprEqn, op: str, *inputs: Value, **attributes: Any) -> Tensor:
    """Add one node that gives the output of an equation; return that output."""
    (name,) = graph.node(op, *inputs, **attributes)
    aval = result_of(eqn)
    shape = aval.shape
    if all(is_static(np.shape(x) if isinstance(x, np.ndarray) else x.shape) for x in inputs):
        shape = tuple(_sizes(shape, batch=1).tolist())
    return Tensor(name, shape, np.dtype(aval.dtype))


def _between(graph: Graph, op: str, like: Value, shape: Shape, *inputs: Value, **attributes: Any) -> Tensor:
    """Add a node for an intermediate value with the type of `like`; return its output."""
    (name,) = graph.node(op, *inputs, **attributes)
    return Tensor(name, shape, np.dtype(like.dtype))


def _sizes(shape: Sequence[Any], batch: int = -1) -> np.ndarray:
    """Return a shape for ONNX, with the number `batch` for a symbolic size."""
    return np.array([size if isinstance(size, int | np.integer) else batch for size in shape], np.int64)


def _same(op: str) -> Rule:
    """Return the rule for an operation that ONNX has too, as `op`; both broadcast as NumPy does."""
    return lambda graph, eqn, *inputs: computed(graph, eqn, op, *inputs)


def _square(graph: Graph, eqn: JaxprEqn, x: Value) -> Tensor:
    return computed(graph, eqn, "Mul", x, x)


def _rsqrt(graph: Graph, eqn: JaxprEqn, x: Value) -> Tensor:
    return computed(graph, eqn, "Reciprocal", _between(graph, "Sqrt", x, x.shape, x))


def _cbrt(graph: Graph, eqn: JaxprEqn, x: Value) -> Tensor:
    size = _between(
        graph, "Pow", x, x.shape, _between(graph, "Abs", x, x.shape, x), np.array(1 / 3, np.float32)
    )
    return computed(graph, eqn, "Mul", size, _between(graph, "Sign", x, x.shape, x))


def _integer_pow(graph: Graph, eqn: JaxprEqn, x: Value) -> Tensor:
    return computed(graph, eqn, "Pow", x, np.asarray(eqn.params["y"], x.dtype))


def _select(graph: Graph, eqn: JaxprEqn, which: Value, *cases: Value) -> Tensor:
    if len(cases) != 2 or which.dtype != np.bool_:
        raise Unsupported("select_n of more than two cases")
    return computed(graph, eqn, "Where", which, cases[1], cases[0])


def _convert(graph: Graph, eqn: JaxprEqn, x: Value) -> Tensor:
    to = helper.np_dtype_to_tensor_dtype(np.dtype(eqn.params["new_dtype"]))
    return computed(graph, eqn, "Cast", x, to=to)


def _reduce(op: str) -> Rule:
    def rule(graph: Graph, eqn: JaxprEqn, x: Value) -> Tensor:
        return computed(graph, eqn, op, x, np.array(eqn.params["axes"], np.int64), keepdims=0)

    return rule


def _reshape(graph: Graph, eqn: JaxprEqn, x: Value) -> Tensor:
    return computed(graph, eqn, "Reshape", x, _sizes(result_of(eqn).shape))


def _broadcast(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    """Insert axes of size 1, then expand to the known sizes; the batch axis is broadcast when it is used."""
    shape, places = eqn.params["shape"], eqn.params["broadcast_dimensions"]
    spread: list[Any] = [1] * len(shape)
    for place, size in zip(places, np.shape(x) if isinstance(x, np.ndarray) else x.shape, strict=True):
        spread[place] = size
    wanted = _sizes(shape, batch=1)
    if isinstance(x, np.ndarray):
        return np.broadcast_to(x.reshape(spread), wanted)
    x = _between(graph, "Reshape", x, tuple(spread), x, _sizes(spread))
    if all(a == b or not is_static([b]) for a, b in zip(spread, shape, strict=True)):
        return x
    return computed(graph, eqn, "Expand", x, wanted)


def _transpose(graph: Graph, eqn: JaxprEqn, x: Value) -> Tensor:
    return computed(graph, eqn, "Transpose", x, perm=[int(axis) for axis in eqn.params["permutation"]])


def _concatenate(graph: Graph, eqn: JaxprEqn, *parts: Value) -> Tensor:
    parts = _for_all_of_the_batch(graph, parts)
    return computed(graph, eqn, "Concat", *parts, axis=int(eqn.params["dimension"]))


def _stack(graph: Graph, eqn: JaxprEqn, *parts: Value) -> Tensor:
    ndim = len(result_of(eqn).shape)
    axis = int(eqn.params["axis"]) % ndim
    place = np.array([axis])
    grown = [
        _between(graph, "Unsqueeze", p, (*p.shape[:axis], 1, *p.shape[axis:]), p, place)
        for p in _for_all_of_the_batch(graph, parts)
    ]
    return computed(graph, eqn, "Concat", *grown, axis=axis)


def _for_all_of_the_batch(graph: Graph, parts: Sequence[Value]) -> tuple[Value, ...]:
    """Repeat the parts that are the same for the whole batch, because concatenation does not broadcast."""
    whole = next((part for part in parts if not is_static(part.shape)), None)
    if whole is None:
        return tuple(parts)
    (axis,) = (axis for axis, size in enumerate(whole.shape) if not is_static([size]))
    batch = _between(graph, "Shape", np.array(0), (1,), whole, start=axis, end=axis + 1)

    def repeated(part: Value) -> Value:
        if not is_static(part.shape):
            return part
        shape = (*part.shape[:axis], whole.shape[axis], *part.shape[axis + 1 :])
        before, after = (np.array(sizes, np.int64) for sizes in (part.shape[:axis], part.shape[axis + 1 :]))
        wanted = _between(graph, "Concat", np.array(0), (len(shape),), before, batch, after, axis=0)
        return _between(graph, "Expand", part, shape, part, wanted)

    return tuple(map(repeated, parts))


def _rev(graph: Graph, eqn: JaxprEqn, x: Value) -> Tensor:
    axes = np.array(eqn.params["dimensions"], np.int64)
    back = np.full_like(axes, -1)
    return computed(graph, eqn, "Slice", x, back, np.full_like(axes, np.iinfo(np.int64).min), axes, back)


def _slice(graph: Graph, eqn: JaxprEqn, x: Value) -> Value:
    p = eqn.params
    steps = p["strides"] or (1,) * len(p["start_indices"])
    rows = [
        (axis, start, stop, step)
        for axis, (start, stop, step, size) in enumerate(
            zip(p["start_indices"], p["limit_indices"], steps, x.shape, strict=True)
        )
        if (start, step) != (0, 1) or not _is_all(stop, size)
    ]
    if not is_static([value for row in rows for value in row]):
        raise Unsupported("slice of the batch")
    if not rows:
        return x
    axes, starts, stops, strides = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    return computed(graph, eqn, "Slice", x, starts, stops, axes, strides)


def _pad(graph: Graph, eqn: JaxprEqn, x: Value, fill: Value) -> Value:
    low, high, inside = (
        np.array(column, np.int64) for column in zip(*eqn.params["padding_config"], strict=True)
    )
    if inside.any() or (low < 0).any() or (high < 0).any():
        raise Unsupported("pad by less than nothing, or inside")
    if not low.any() and not high.any():
        return x
    return computed(graph, eqn, "Pad", x, np.concatenate([low, high]), fill)


def _dot(graph: Graph, eqn: JaxprEqn, a: Value, b: Value) -> Tensor:
    (a_sum, b_sum), (a_batch, b_batch) = eqn.params["dimension_numbers"]
    a_ndim, b_ndim = len(a.shape), len(b.shape)
    if not a_batch and tuple(a_sum) == (a_ndim - 1,) and tuple(b_sum) == (0,) and b_ndim == 2:
        return computed(graph, eqn, "MatMul", a, b)
    letters = iter(string.ascii_lowercase)
    of_a = [next(letters) for _ in range(a_ndim)]
    of_b = [next(letters) for _ in range(b_ndim)]
    for i, j in [*zip(a_sum, b_sum, strict=True), *zip(a_batch, b_batch, strict=True)]:
        of_b[j] = of_a[i]
    free_a = [c for i, c in enumerate(of_a) if i not in (*a_sum, *a_batch)]
    free_b = [c for j, c in enumerate(of_b) if j not in (*b_sum, *b_batch)]
    result = "".join([of_a[i] for i in a_batch] + free_a + free_b)
    return computed(graph, eqn, "Einsum", a, b, equation=f"{''.join(of_a)},{''.join(of_b)}->{result}")


def _conv(graph: Graph, eqn: JaxprEqn, x: Value, kernel: Value) -> Tensor:
    """Transpose around the convolution, since ONNX has channels second; runtimes optimise that away."""
    p = eqn.params
    if p["batch_group_count"] != 1 or set(p["lhs_dilation"]) != {1}:
        raise Unsupported("transposed convolution")
    numbers = p["dimension_numbers"]
    x = _moved(graph, x, numbers.lhs_spec)
    kernel = _moved(graph, kernel, numbers.rhs_spec)
    low, high = zip(*p["padding"], strict=True)
    out = result_of(eqn).shape
    y = _between(
        graph,
        "Conv",
        x,
        tuple(out[axis] for axis in numbers.out_spec),
        x,
        kernel,
        strides=list(p["window_strides"]),
        pads=[int(width) for width in (*low, *high)],
        dilations=list(p["rhs_dilation"]),
        group=p["feature_group_count"],
    )
    return _moved(graph, y, np.argsort(numbers.out_spec).tolist())


def _moved(graph: Graph, x: Value, axes: Sequence[int]) -> Any:
    """Return x with its axes in another order."""
    if isinstance(x, np.ndarray):
        return x.transpose(axes)
    return _between(graph, "Transpose", x, tuple(x.shape[axis] for axis in axes), x, perm=list(axes))


def _gather(graph: Graph, eqn: JaxprEqn, x: Value, indices: Value) -> Tensor:
    """Take slices at constant positions along one axis, such as frames of a sound or selected bins."""
    p = eqn.params
    numbers, sizes = p["dimension_numbers"], p["slice_sizes"]
    if not isinstance(indices, np.ndarray) or numbers.operand_batching_dims:
        raise Unsupported("gather at places that depend on the input")
    starts = {axis: indices[..., i] for i, axis in enumerate(numbers.start_index_map)}
    chosen = [
        axis
        for axis, size in enumerate(x.shape)
        if not _is_all(sizes[axis], size) or axis in numbers.collapsed_slice_dims
    ]
    if len(chosen) != 1 or any(axis not in chosen and np.any(start) for axis, start in starts.items()):
        raise Unsupported("gather along several axes")
    (axis,) = chosen
    last = x.shape[axis] - sizes[axis]
    begin = starts[axis].astype(np.int64)
    if p["mode"] not in (GatherScatterMode.CLIP, "clip") and (begin.min() < 0 or begin.max() > last):
        raise Unsupported("gather beyond the ends")
    begin = np.clip(begin, 0, last)
    collapsed = axis in numbers.collapsed_slice_dims
    places: Value = begin
    if not collapsed and sizes[axis] > 1:
        # Added in the graph: a table of all positions of all frames could be larger than the network.
        many = Tensor("", (*begin.shape, sizes[axis]), begin.dtype)
        places = _between(graph, "Add", begin, many.shape, begin[..., None], np.arange(sizes[axis]))
    elif not collapsed:
        places = begin[..., None]
    shape = (*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])
    gathered = _between(graph, "Gather", x, shape, x, places, axis=axis)
    # The axes are now: those before, those of the indices, the slice, those after.
    index_axes = [axis + i for i in range(begin.ndim)]
    own = [i if i < axis else i + begin.ndim for i in range(len(x.shape)) if i != axis or not collapsed]
    if collapsed:
        own = [i if i < axis else i - 1 for i in own]
    total = begin.ndim + len(own)
    order, offsets, rest = [], iter(own), iter(index_axes)
    for place in range(total):
        order.append(next(offsets) if place in numbers.offset_dims else next(rest))
    return computed(graph, eqn, "Transpose", gathered, perm=order)


def _is_all(size: Any, whole: Any) -> bool:
    return bool(size == whole)


def _fft(graph: Graph, eqn: JaxprEqn, x: Value) -> Complex:
    if eqn.params["fft_type"] != FftType.RFFT or len(eqn.params["fft_lengths"]) != 1:
        raise Unsupported("fft other than of real sound")
    (length,) = eqn.params["fft_lengths"]
    ndim = len(x.shape)
    column = _between(graph, "Unsqueeze", x, (*x.shape, 1), x, np.array([ndim], np.int64))
    shape = (*result_of(eqn).shape, 2)
    both = _between(graph, "DFT", x, shape, column, np.array(length), np.array(ndim - 1), onesided=1)
    return Complex(
        *(_between(graph, "Gather", x, shape[:-1], both, np.array(part), axis=ndim) for part in (0, 1))
    )


RULES: dict[str, Rule] = {
    "add": _same("Add"),
    "sub": _same("Sub"),
    "mul": _same("Mul"),
    "div": _same("Div"),
    "max": _same("Max"),
    "min": _same("Min"),
    "neg": _same("Neg"),
    "abs": _same("Abs"),
    "exp": _same("Exp"),
    "log": _same("Log"),
    "pow": _same("Pow"),
    "sqrt": _same("Sqrt"),
    "tanh": _same("Tanh"),
    "logistic": _same("Sigmoid"),
    "floor": _same("Floor"),
    "ge": _same("GreaterOrEqual"),
    "gt": _same("Greater"),
    "le": _same("LessOrEqual"),
    "lt": _same("Less"),
    "eq": _same("Equal"),
    "stop_gradient": _same("Identity"),
    "copy": _same("Identity"),
    "square": _square,
    "rsqrt": _rsqrt,
    "cbrt": _cbrt,
    "integer_pow": _integer_pow,
    "select_n": _select,
    "convert_element_type": _convert,
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reshape": _reshape,
    "squeeze": _reshape,
    "expand_dims": _reshape,
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "stack": _stack,
    "slice": _slice,
    "rev": _rev,
    "pad": _pad,
    "dot_general": _dot,
    "conv_general_dilated": _conv,
    "gather": _gather,
    "fft": _fft,
    "real": lambda graph, eqn, x: x.real,
    "imag": lambda graph, eqn, x: x.imag,
}
