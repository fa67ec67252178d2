"""Operators that ONNX Runtime's quantizer takes for others are quantized all the same."""

from __future__ import annotations

import numpy as np
import onnx
from onnx_nets import floats, graph, node

from dsconvert.deploy.exporting.export import export


def test_attention_of_onnx_is_not_that_of_microsoft(tmp_path):
    nodes = [
        node("MatMul", "x q", "xq"),
        node("Attention", "xq x x", "a", q_num_heads=2, kv_num_heads=2),
        node("MatMul", "a o", "y"),
    ]
    weights = {"q": floats(8, 8), "o": floats(8, 4, seed=1)}
    onnx.save(graph(nodes, ["n", 5, 8], "y", opset=23, ir=11, **weights), tmp_path / "m.onnx")
    export(tmp_path / "m.onnx", tmp_path / "small.onnx", quantize="dynamic")
    kinds = [one.op_type for one in onnx.load(tmp_path / "small.onnx").graph.node]
    assert kinds.count("MatMulInteger") == 2
    assert kinds.count("Attention") == 1


def test_a_transposed_convolution_of_groups_with_a_bias(tmp_path):
    nodes = [node("ConvTranspose", "x w b", "y", group=2, strides=[2, 2])]
    weights = {"w": floats(8, 3, 2, 2), "b": floats(6, seed=1)}
    onnx.save(graph(nodes, ["n", 8, 5, 5], "y", **weights), tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(8, 8, 5, 5)).astype(np.float32)
    made = export(tmp_path / "m.onnx", tmp_path / "small.onnx", quantize="int8", calibration=[x])
    assert made.fidelity[0].sqnr_db > 30
    stored = {
        one.name: one.data_type for one in onnx.load(tmp_path / "small.onnx").graph.initializer
    }
    assert onnx.TensorProto.INT8 in stored.values()
