"""How an ONNX file stores its weights. Every way computes with them in float32."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

Weights = Literal["fp32", "fp16", "int8"]
_EXACT = 0.05
STORED: dict[str, str] = {
    "fp32": "fp32",
    "fp16": "fp16; the smallest kernels, together 5 % of the weights, as fp32",
    "int8": "int8 with one scale per output channel; the smallest kernels, together 5 % of the weights, as fp32",
}
"""The same in words, for a model card. The smallest kernels are the first ones, those of single channels and that of
the last layer. Rounding them changed probabilities most: those of a coffee classifier by up to .020 with fp16, and .21
with int8, instead of .004 and .07."""


def store_weights(graph: "GraphProto", weights: Weights) -> None:
    """Store kernels and matrices of a graph in fewer bits, each converted to float32 before it is used.

    Biases and statistics stay: they are small, and a variance may be too small for float16. So does what float16
    cannot hold, and the basis of the distance, whose rows would no longer be orthogonal.

    Args:
        graph: The graph; it is changed.
        weights: fp16 makes the file about half as large, int8 less than a third, see `STORED`; fp32 changes nothing.
    """
    if weights == "fp32":
        return
    axes = _channel_axes(graph)
    kernels = [tensor for tensor in graph.initializer if tensor.name in axes and _fits(tensor)]
    scales: list[TensorProto] = []
    nodes: list[NodeProto] = []
    for tensor in _without_smallest(kernels):
        nodes += _to_float16(tensor) if weights == "fp16" else _to_int8(tensor, axes[tensor.name], scales)
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(scales)


def rounded(kernel: NDArray[np.float32], axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return a kernel in int8, and the scale of each channel along an axis.

    Each channel keeps its sum to within half a step. What comes in is mostly positive, behind a rectifier, so that
    errors of one sign would add up: weights nearest to the middle between two steps are rounded to the other side.

    >>> values, scales = rounded(np.array([[127, 0.4, 0.4, 0.3]], np.float32), 0)
    >>> values.tolist(), scales.tolist()
    ([[127, 1, 0, 0]], [1.0])
    """
    rows = np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)
    scales = np.abs(rows).max(1, keepdims=True) / np.float32(127)
    scales[scales < np.finfo(np.float32).tiny] = 1  # a channel of zeros
    exact = rows / scales
    steps = np.rint(exact)
    missing = exact - steps
    missed = np.rint(missing.sum(1, keepdims=True, dtype=np.float64))
    rank = np.argsort(np.argsort(-missing * np.sign(missed), axis=1, kind="stable"), axis=1, kind="stable")
    steps = np.clip(steps + np.sign(missed) * (rank < np.abs(missed)), -127, 127)
    shape = [kernel.shape[axis], *(size for number, size in enumerate(kernel.shape) if number != axis)]
    return np.ascontiguousarray(np.moveaxis(steps.reshape(shape), 0, axis)).astype(np.int8), scales[:, 0]


def _channel_axes(graph: "GraphProto") -> dict[str, int]:
    """Return the axis of the output channels of each kernel and matrix, by name."""
    from onnx.helper import get_attribute_value

    axes: dict[str, int] = {}
    for node in graph.node:
        settings: dict[str, Any] = {one.name: get_attribute_value(one) for one in node.attribute}
        if node.op_type == "Conv" or (node.op_type == "Gemm" and settings.get("transB")):
            axes[node.input[1]] = 0
        elif node.op_type in ("Gemm", "MatMul"):
            axes.setdefault(node.input[1], 1)  # the map reads the matrix of a layer the other way round
    return axes


def _fits(tensor: "TensorProto") -> bool:
    from onnx.numpy_helper import to_array

    values = to_array(tensor)
    is_kernel = values.dtype == np.float32 and values.ndim >= 2 and not tensor.name.endswith("basis")
    return is_kernel and bool(np.abs(values).max(initial=0) <= np.finfo(np.float16).max)


def _without_smallest(kernels: "list[TensorProto]") -> "list[TensorProto]":
    """Return the kernels without the smallest, which together hold at most 5 % of all weights."""
    by_size = sorted(kernels, key=lambda tensor: (np.prod(tensor.dims), tensor.name))
    cumulated = np.cumsum([np.prod(tensor.dims) for tensor in by_size])
    return [tensor for tensor, total in zip(by_size, cumulated, strict=True) if total > _EXACT * cumulated[-1]]


def _to_float16(tensor: "TensorProto") -> "list[NodeProto]":
    """Store a tensor in float16, and return the node that computes it."""
    from onnx import TensorProto, helper, numpy_helper

    name = tensor.name
    tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_float16"))
    return [helper.make_node("Cast", [f"{name}_float16"], [name], name=f"{name}_cast", to=TensorProto.FLOAT)]


def _to_int8(tensor: "TensorProto", axis: int, scales: "list[TensorProto]") -> "list[NodeProto]":
    """Store a tensor in int8, append its scales, and return the nodes that compute it.

    Not DequantizeLinear: onnxruntime makes one operation of it and a MatMul, which rounds what comes in to 8 bits too.
    """
    from onnx import TensorProto, helper, numpy_helper

    name = tensor.name
    steps, scale = rounded(numpy_helper.to_array(tensor), axis)
    tensor.CopyFrom(numpy_helper.from_array(steps, f"{name}_int8"))
    shape = [-1 if number == axis else 1 for number in range(steps.ndim)]
    scales.append(numpy_helper.from_array(scale.reshape(shape), f"{name}_scale"))
    cast = helper.make_node("Cast", [f"{name}_int8"], [f"{name}_steps"], name=f"{name}_cast", to=TensorProto.FLOAT)
    return [cast, helper.make_node("Mul", [f"{name}_steps", f"{name}_scale"], [name], name=f"{name}_mul")]
