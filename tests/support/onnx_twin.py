"""The digits network of conftest as an ONNX graph with the same weights, channels first."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

FLOAT = onnx.TensorProto.FLOAT


def onnx_twin(model, batch: int | str = "N") -> onnx.ModelProto:
    """The same function of (n, 1, 8, 8) as the Keras model is of (n, 8, 8, 1)."""
    held: dict[str, np.ndarray] = {}

    def conv(name: str, source: str, target: str):
        layer = model.get_layer(name)
        held[f"{name}.w"] = np.asarray(layer.kernel).transpose(3, 2, 0, 1)
        inputs = [source, f"{name}.w"]
        if layer.use_bias:
            held[f"{name}.b"] = np.asarray(layer.bias)
            inputs.append(f"{name}.b")
        return helper.make_node("Conv", inputs, [target], name, pads=[1, 1, 1, 1])

    norm, scores = model.get_layer("norm"), model.get_layer("scores")
    held |= dict(zip("gomv", norm.get_weights(), strict=True))
    held["scores.w"], held["scores.b"] = scores.get_weights()
    pooling = {"kernel_shape": [2, 2], "strides": [2, 2]}
    nodes = [
        conv("stem", "image", "s"),
        helper.make_node("Relu", ["s"], ["s_act"]),
        conv("middle", "s_act", "m_"),
        helper.make_node("Relu", ["m_"], ["m_act"]),
        helper.make_node("MaxPool", ["m_act"], ["small"], **pooling),
        conv("last", "small", "l"),
        helper.make_node(
            "BatchNormalization", ["l", *"gomv"], ["normed"], "norm", epsilon=norm.epsilon
        ),
        helper.make_node("Relu", ["normed"], ["l_act"]),
        helper.make_node("GlobalAveragePool", ["l_act"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "scores.w", "scores.b"], ["logits"], "scores"),
        helper.make_node("Softmax", ["logits"], ["probs"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", FLOAT, [batch, 1, 8, 8])],
        [helper.make_tensor_value_info("probs", FLOAT, [batch, 10])],
        [numpy_helper.from_array(np.ascontiguousarray(v), k) for k, v in held.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(made, full_check=True)
    return made
