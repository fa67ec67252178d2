"""Masked scores of ONNX files are drawn so that int8 files of them keep their scores."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import assert_same
from onnx_nets import floats, graph, node

from dsconvert.deploy.exporting.export import export

LENGTH, WIDTH = 12, 8
BELOW = np.tril(np.ones((LENGTH, LENGTH), bool))
X = np.random.default_rng(0).normal(size=(24, LENGTH, WIDTH)).astype(np.float32)
SCORES = [
    node("MatMul", "x a", "q"),
    node("Transpose", "x", "k", perm=[0, 2, 1]),
    node("MatMul", "q k", "s"),
]
REST = [node("Softmax", "m", "p", axis=-1), node("MatMul", "p x", "y")]
COMPUTED = [
    node("ReduceMax", "x", "r", axes=[2], keepdims=0),
    node("Greater", "r one", "g"),
    node("Cast", "g", "n", to=1),
    node("Mul", "n far", "e"),
    node("Unsqueeze", "e first", "u"),
    node("Add", "s u", "m"),
]
MASKS = {
    "added": ([node("Add", "s far", "m")], lambda far: np.where(BELOW, 0, far)),
    "added to a bias": ([node("Add", "far s", "m")], lambda far: np.where(BELOW, 0.5, far)),
    "chosen": ([node("Where", "below s far", "m")], lambda far: np.asarray(far)),
    "chosen the other way": ([node("Where", "above far s", "m")], lambda far: np.asarray(far)),
    "computed": (COMPUTED, lambda far: np.asarray(max(far, -3e38))),
}


def masked(way, far, opset=17):
    nodes, values = MASKS[way]
    weights = {"below": BELOW, "above": ~BELOW, "one": np.float32(1), "first": np.array([1])}
    read = {name for one in nodes for name in one.input}
    weights = {name: value for name, value in weights.items() if name in read}
    given = {"a": floats(WIDTH, WIDTH), "far": values(far).astype(np.float32), **weights}
    return graph([*SCORES, *nodes, *REST], ["n", LENGTH, WIDTH], "y", opset=opset, **given)


@pytest.mark.parametrize("far", [-100.0, -1e9, -np.inf])
@pytest.mark.parametrize("way", MASKS)
def test_scores_beside_a_mask(way, far, tmp_path):
    imported = assert_same(masked(way, far), [X])
    if way == "computed":  # stays as it is
        return
    made = export(imported.model, tmp_path / "m.tflite", quantize="int8", calibration=[X])
    assert made.fidelity[0].sqnr_db > 25


def test_of_an_old_opset_without_axes_as_an_input():
    assert_same(masked("added", -1e9, opset=13), [X])


def test_rows_that_are_masked_as_a_whole_stay_as_they_are():
    """Of equal scores, -1e4 lower each, a softmax is that of the scores."""
    proto = masked("added", -1e4)
    (far,) = (one for one in proto.graph.initializer if one.name == "far")
    far.raw_data = np.full((LENGTH, LENGTH), -1e4, np.float32).tobytes()
    assert_same(proto, [X])
