"""MACs and weights of a whole ONNX model."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from dsconvert.base.predictor import Shape
from dsconvert.formats.onnx.constants import constant_of, constant_shape
from dsconvert.formats.onnx.graph import OnnxGraph, is_op
from dsconvert.formats.onnx.tensors import FLOATS

from .read import kernel_shape

if TYPE_CHECKING:
    from onnx import NodeProto


_STORED_AT = {
    "DequantizeLinear": (0,),
    "ConvInteger": (1,),
    "MatMulInteger": (1,),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (3,),
    "QGemm": (3, 6),
}
"""Where operators of quantized graphs read weights and biases that are whole numbers."""


def model_macs(graph: OnnxGraph, *, dense_only: bool = False) -> int | None:
    """Multiply-accumulates of one image through convolutions and dense layers.

    Args:
        graph: The model's.
        dense_only: Count dense layers alone.

    Returns:
        None where the model leaves the image's size free.
    """
    total = 0
    for node in graph.nodes:
        if dense_only and not is_op(node, "Gemm", "MatMul"):
            continue
        macs = _node_macs(graph, node)
        if macs is None:
            return None
        total += macs
    return int(total)


def model_params(graph: OnnxGraph) -> int:
    """Return the number of values in initialisers and Constant nodes that stand for real ones.

    Those are floating-point ones, and the whole numbers that a quantized graph takes as weights;
    its scales are none.
    """
    stored, scales = _quantized(graph)
    total = sum(
        prod(tensor.dims)
        for name, tensor in graph.initializers.items()
        if name in stored or (tensor.data_type in FLOATS and name not in scales)
    )
    for name in graph.constants:
        value = constant_of(graph, name)
        if value is not None and (
            name in stored or (value.dtype.kind == "f" and name not in scales)
        ):
            total += int(value.size)
    return int(total)


def _quantized(graph: OnnxGraph) -> tuple[set[str], set[str]]:
    """Return the names of quantized weights, and those of scales."""
    stored: set[str] = set()
    scales: set[str] = set()
    for node in graph.nodes:
        places = _STORED_AT.get(node.op_type, ())
        held = {node.input[at] for at in places if at < len(node.input)}
        stored |= held
        if places or node.op_type == "QuantizeLinear" or node.op_type.startswith("QLinear"):
            scales.update(set(node.input[1:]) - held)
    return stored, scales


def model_kernels(graph: OnnxGraph) -> int | None:
    """Weights of convolutions and dense layers, without biases and norms; shared ones once.

    Returns:
        None where a kernel's shape is not known.
    """
    shapes: dict[str, Shape | None] = {}
    for node in graph.nodes:
        if is_op(node, "Conv", "ConvTranspose"):
            shapes[node.input[1]] = kernel_shape(graph, node)
        elif is_op(node, "Gemm", "MatMul"):
            shape = constant_shape(graph, node.input[1])
            shapes[node.input[1]] = (0,) if shape is None else shape
    counts = [_times(shape, ()) for shape in shapes.values()]
    return None if None in counts else sum(count or 0 for count in counts)


def _node_macs(graph: OnnxGraph, node: NodeProto) -> int | None:
    """Return each weight of a convolution is used once per output position, so count those."""
    if is_op(node, "Conv", "ConvTranspose"):
        # Transposed: each weight is used once per *input* position.
        value = node.output[0] if node.op_type == "Conv" else node.input[0]
        return _times(kernel_shape(graph, node), _positions(graph.shapes.get(value), 2))
    if is_op(node, "Gemm"):
        return _times(constant_shape(graph, node.input[1]) or (0,), ())
    if is_op(node, "MatMul"):
        shape = constant_shape(graph, node.input[1])
        if shape is None or len(shape) != 2:
            return 0  # a product of two activations is no layer
        output = graph.shapes.get(node.output[0])
        return _times(shape, None if output is None else output[1:-1])
    return 0


def _positions(shape: Shape | None, first: int) -> Shape | None:
    return None if shape is None else shape[first:]


def _times(weights: Shape | None, positions: Shape | None) -> int | None:
    if weights is None or positions is None or None in weights or None in positions:
        return None
    return prod(size or 0 for size in (*weights, *positions))
