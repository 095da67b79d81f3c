"""An ONNX graph under construction: its nodes, and its constants without duplicates."""

import dataclasses
import hashlib
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 20  # the first opset whose DFT takes its axis as an input
IR_VERSION = 10  # ONNX's version at that opset; newer ones exclude older runtimes

Shape: TypeAlias = tuple[Any, ...]  # of int, and of symbolic sizes


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A value that the graph computes.

    Attributes:
      name: its name in the graph.
      shape: its shape as traced by JAX; the batch size is symbolic.
      dtype: type of its elements.
    """

    name: str
    shape: Shape
    dtype: np.dtype


Value: TypeAlias = "Tensor | np.ndarray"


class Graph:
    """Nodes and initializers in the order in which they were added."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, Shape, bytes], onnx.TensorProto] = {}

    def name(self, value: Value) -> str:
        """Return the name of a value; a constant becomes an initializer."""
        if isinstance(value, Tensor):
            return value.name
        array = np.ascontiguousarray(value).reshape(np.shape(value))  # the former makes scalars (1,)
        key = (str(array.dtype), array.shape, hashlib.sha256(array.tobytes()).digest())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"c{len(self._constants)}")
        return self._constants[key].name

    def node(self, op: str, *inputs: Value, outputs: int = 1, **attributes: Any) -> list[str]:
        """Add a node; return the names of its outputs."""
        number = len(self._nodes)
        names = [f"v{number}" if outputs == 1 else f"v{number}_{i}" for i in range(outputs)]
        self._nodes.append(
            helper.make_node(op, [self.name(value) for value in inputs], names, f"n{number}", **attributes)
        )
        return names

    def model(self, inputs: dict[str, Shape], result: Value, shape: Shape, name: str) -> onnx.ModelProto:
        """Return the checked model with float32 inputs and one float32 output; non-int sizes are symbolic."""
        self._nodes.append(helper.make_node("Identity", [self.name(result)], [name]))
        graph = helper.make_graph(
            self._nodes,
            "rann_jax",
            [_info(*item) for item in inputs.items()],
            [_info(name, shape)],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="rann_jax"
        )
        onnx.checker.check_model(model, full_check=True)
        return model


def _info(name: str, shape: Shape) -> onnx.ValueInfoProto:
    sizes = [size if isinstance(size, int) else str(size) for size in shape]
    return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)
