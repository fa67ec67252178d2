"""Small whole networks in ONNX, and what tests of their import ask of them."""

from __future__ import annotations

from collections import Counter

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_graphs import run


def floats(*shape: int, seed: int = 0, scale: float = 0.5) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def node(kind: str, inputs: str, output: str, **attributes) -> onnx.NodeProto:
    return helper.make_node(
        kind, inputs.split(), output.split(), name=f"{kind}/{output}", **attributes
    )


def graph(
    nodes,
    shape,
    outputs: str,
    opset: int = 17,
    ir: int = 8,
    inputs: str = "x",
    dtype=TensorProto.FLOAT,
    **weights: np.ndarray,
) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    values = [helper.make_tensor_value_info(name, dtype, shape) for name in inputs.split()]
    if ir < 4:
        values += [helper.make_tensor_value_info(t.name, t.data_type, list(t.dims)) for t in stored]
    made = helper.make_graph(
        nodes,
        "net",
        values,
        [onnx.ValueInfoProto(name=name) for name in outputs.split()],
        stored,
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(made, opset_imports=opsets, ir_version=ir, producer_name="test")
    inferred = onnx.shape_inference.infer_shapes(model).graph.output
    for value, known in zip(model.graph.output, inferred, strict=True):
        value.CopyFrom(known)
        if not known.HasField("type"):
            value.type.tensor_type.elem_type = dtype
    return model


def kinds(model: keras.Model) -> Counter:
    """How often each kind of layer or operation stands in a model, inputs left out."""
    names = (type(operation).__name__ for operation in model.operations)
    return Counter(name for name in names if name != "InputLayer")


def small_cnn(**options) -> onnx.ModelProto:
    """Conv, ReLU, pool, Flatten, Gemm on (1, 3, 8, 8)."""
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("MaxPool", "r", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", "p", "f"),
        node("Gemm", "f v d", "y", transB=1),
    ]
    weights = {
        "w": floats(4, 3, 3, 3),
        "b": floats(4, seed=1),
        "v": floats(5, 64, seed=2),
        "d": floats(5, seed=3),
    }
    return graph(nodes, [1, 3, 8, 8], "y", **weights, **options)


def every_kind(**options) -> onnx.ModelProto:
    """One of each kind of layer with weights."""
    nodes = [
        node("Conv", "x w0 b0", "a", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "a g1 b1 m1 v1", "b"),
        node("PRelu", "b p2", "c"),
        node("Conv", "c w3", "d", group=4, pads=[1, 1, 1, 1]),
        node("Conv", "d w4", "e", group=2),
        node("ConvTranspose", "e w5 b5", "f", strides=[2, 2]),
        node("ConvTranspose", "f w6", "g", group=2, pads=[1, 1, 1, 1]),
        node("InstanceNormalization", "g g7 b7", "h"),
        node("LayerNormalization", "h g8 b8", "i"),
        node("MatMul", "w9 i", "j"),
        node("Gemm", "k w11 c11", "y", alpha=0.5, beta=2.0, transB=1),
    ]
    nodes.insert(10, node("Flatten", "j", "k"))
    weights = {
        "w0": floats(4, 3, 3, 3),
        "b0": floats(4),
        "g1": 1 + floats(4, scale=0.1),
        "b1": floats(4, seed=1),
        "m1": floats(4, seed=2),
        "v1": 1 + np.abs(floats(4)),
        "p2": np.abs(floats(4, 1, 1)),
        "w3": floats(8, 1, 3, 3),
        "w4": floats(6, 4, 1, 1),
        "w5": floats(6, 4, 2, 2),
        "b5": floats(4),
        "w6": floats(4, 3, 3, 3),
        "g7": 1 + floats(6, scale=0.1),
        "b7": floats(6),
        "g8": 1 + floats(8, scale=0.1),
        "b8": floats(8),
        "w9": floats(3, 8),
        "w11": floats(5, 144, scale=0.1),
        "c11": floats(5),
    }
    return graph(nodes, [1, 3, 4, 4], "y", **weights, **options)


def check_write_back(imported, inputs, model=None) -> onnx.ModelProto:
    """Change every weight, write back, and hold ONNX Runtime against Keras."""
    model = imported.model if model is None else model
    for number, weight in enumerate(model.trainable_weights):
        weight.assign(weight * 1.1 + 0.01 * (number + 1))
    written = imported.write_back(model)
    onnx.checker.check_model(written, full_check=True)
    stored = [np.transpose(x, axes) for x, axes in zip(inputs, imported.input_axes, strict=True)]
    packed = keras.tree.pack_sequence_as(model.input, stored)
    ours = keras.tree.flatten(model(packed, training=False))
    for mine, theirs, axes in zip(ours, run(written, inputs), imported.output_axes, strict=True):
        np.testing.assert_allclose(
            mine, np.transpose(theirs, axes), rtol=1e-4, atol=1e-5 * np.abs(theirs).max()
        )
    return written
