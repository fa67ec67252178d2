"""Networks of a few convolutions in ONNX, without a training framework."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def conv_stack(path: Path, kernels: Sequence[int], channels: int = 8) -> Path:
    """Write convolutions of these kernel sizes, one after the other, on 16×16 images."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], [], "x"
    for number, size in enumerate(kernels):
        deviation = 1 / (size * np.sqrt(channels))
        kernel = rng.normal(0, deviation, (channels, channels, size, size)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"w{number}"))
        pads, into, name = [size // 2] * 4, f"y{number}", f"conv{number}"
        nodes.append(helper.make_node("Conv", [last, f"w{number}"], [into], name, pads=pads))
        last = into
    shape = [1, channels, 16, 16]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        weights,
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path
