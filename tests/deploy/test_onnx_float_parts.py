"""Masks of a softmax and norms that are spelled out stay in float in int8 .onnx files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx_nets import floats, graph, node

from dsconvert.deploy.exporting.export import export

LENGTH, WIDTH = 16, 8
BELOW = np.tril(np.ones((LENGTH, LENGTH), bool))
SCORES = [
    node("MatMul", "x a", "q"),
    node("Transpose", "x", "k", perm=[0, 2, 1]),
    node("MatMul", "q k", "s"),
]
REST = [node("Softmax", "m", "p", axis=-1), node("MatMul", "p x", "o"), node("MatMul", "o b", "y")]
PROJECTIONS = {"a": floats(WIDTH, WIDTH), "b": floats(WIDTH, 4, seed=1)}
MASKS = {
    "added": ([node("Add", "s far", "m")], lambda far: np.where(BELOW, 0, far)),
    "chosen": ([node("Where", "below s far", "m")], lambda far: np.asarray(far)),
    "computed": (
        [
            node("Sub", "one kept", "n"),
            node("Mul", "n far", "e"),
            node("Unsqueeze", "e first", "u"),
            node("Add", "s u", "m"),
        ],
        lambda far: np.asarray(max(far, -3e38)),
    ),
}


def int8(nodes, shape, path, x, **weights):
    """The SQNR of an int8 file, and the file."""
    onnx.save(graph(nodes, shape, "y", **weights), path / "m.onnx")
    made = export(path / "m.onnx", path / "small.onnx", quantize="int8", calibration=[x])
    return made.fidelity[0].sqnr_db, onnx.load(path / "small.onnx")


@pytest.mark.parametrize("far", [-100.0, -1e4, -1e9, np.finfo(np.float32).min, -np.inf])
@pytest.mark.parametrize("way", MASKS)
def test_scores_beside_a_mask(way, far, tmp_path):
    masked, values = MASKS[way]
    weights = {**PROJECTIONS, "far": values(far).astype(np.float32)}
    more = {
        "below": BELOW,
        "one": np.float32(1),
        "kept": BELOW.astype("f4"),
        "first": np.array([0]),
    }
    read = {name for one in masked for name in one.input}
    weights |= {name: value for name, value in more.items() if name in read}
    x = np.random.default_rng(0).normal(size=(24, LENGTH, WIDTH)).astype(np.float32)
    shape = ["n", LENGTH, WIDTH]
    sqnr, model = int8([*SCORES, *masked, *REST], shape, tmp_path, x, **weights)
    assert sqnr > 25
    quantized = {one.input[0] for one in model.graph.node if one.op_type == "DequantizeLinear"}
    assert len(quantized) > 6  # the products are integers


NORMS = {
    "variance": [
        node("ReduceMean", "c", "mu", axes=[1]),
        node("Sub", "c mu", "d"),
        node("Pow", "d two", "sq"),
        node("ReduceMean", "sq", "va", axes=[1]),
        node("Add", "va small", "e"),
        node("Sqrt", "e", "r"),
        node("Div", "d r", "z"),
    ],
    "root mean square": [
        node("Mul", "c c", "sq"),
        node("ReduceMean", "sq", "va", axes=[1]),
        node("Add", "va small", "e"),
        node("Pow", "e half", "r"),
        node("Mul", "c r", "z"),
    ],
}


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_divided_by_a_small_root(norm, tmp_path):
    """The images' pixels lie between 0.1 and 1, as shadows and lights do."""
    random = np.random.default_rng(0)
    size = 10.0 ** random.uniform(-1, 0, (24, 1, 8, 8))
    x = (random.normal(size=(24, 3, 8, 8)) * size).astype(np.float32)
    nodes = [node("Conv", "x w", "c"), *NORMS[norm], node("Conv", "z v", "y", pads=[1, 1, 1, 1])]
    weights = {"two": np.float32(2), "half": np.float32(-0.5), "small": np.float32(1e-8)}
    read = {name for one in NORMS[norm] for name in one.input}
    weights = {name: value for name, value in weights.items() if name in read}
    given = {"w": floats(8, 3, 1, 1), "v": floats(4, 8, 3, 3, seed=1), **weights}
    sqnr, model = int8(nodes, ["n", 3, 8, 8], tmp_path, x, **given)
    kinds = [one.op_type for one in model.graph.node]
    assert kinds.count("DequantizeLinear") > 4
    assert sqnr > 18
