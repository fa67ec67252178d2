"""Masked scores of ONNX files are drawn so that int8 files of them keep their scores."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper, numpy_helper
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


ATTENTION = {
    "causal": ({"is_causal": 1}, None),
    "chosen": ({}, BELOW),
    "added": ({}, np.where(BELOW, 0, -np.inf).astype(np.float32)),
}


@pytest.mark.parametrize("way", ATTENTION)
def test_attention_of_onnx_own(way, tmp_path):
    """ONNX spells it out with a mask that it computes from the length of the sequence."""
    given, mask = ATTENTION[way]
    made = node("Attention", "q q q mask" if mask is not None else "q q q", "y", **given,
                q_num_heads=2, kv_num_heads=2)  # fmt: skip
    held = {} if mask is None else {"mask": mask}
    nodes = [node("MatMul", "x a", "q"), made]
    proto = graph(nodes, ["n", LENGTH, WIDTH], "y", 23, 11, a=floats(WIDTH, WIDTH), **held)
    imported = assert_same(proto, [X])
    made = export(imported.model, tmp_path / "m.tflite", quantize="int8", calibration=[X])
    assert made.fidelity[0].sqnr_db > 25


def test_of_the_length_that_a_reshape_leaves_open(tmp_path):
    """With a free batch ONNX's inference does not know it, and it is the same for any batch."""
    length = [node("Shape", "t", "shape"), node("Gather", "shape at", "n")]
    mask = [
        node("Concat", "n n", "square", axis=0),
        node("ConstantOfShape", "square", "far"),
        node("Trilu", "far one", "m0", upper=1),
        node("Sub", "m0 zero", "mask"),
    ]
    far = numpy_helper.from_array(np.array([-1e9], np.float32))
    mask[1].attribute.append(helper.make_attribute("value", far))
    nodes = [
        node("Reshape", "x form", "t"), *length, *mask, node("MatMul", "t a", "q"),
        node("Transpose", "t", "k", perm=[0, 2, 1]), node("MatMul", "q k", "s"),
        node("Add", "s mask", "m"), node("Cast", "m", "c", to=1),
        node("Softmax", "c", "p", axis=-1), node("MatMul", "p t", "y"),
    ]  # fmt: skip
    proto = graph(
        nodes, ["n", 3, 4, WIDTH], "y", form=np.array([0, -1, WIDTH]), at=np.array([1]),
        a=floats(WIDTH, WIDTH), zero=np.float32(0), one=np.array(1),
    )  # fmt: skip
    images = X.reshape(-1, 3, 4, WIDTH)
    imported = assert_same(proto, [images])
    made = export(imported.model, tmp_path / "m.tflite", quantize="int8", calibration=[images])
    assert made.fidelity[0].sqnr_db > 25


CHOICES = {
    "filled": [node("Where", "not far s", "m")],
    "filled the other way": [node("Where", "kept s far", "m")],
    "added": [node("Where", "not far zero", "w"), node("Add", "s w", "m")],
}


@pytest.mark.parametrize("far", [-1e9, -3.4e38])
@pytest.mark.parametrize("way", CHOICES)
def test_what_is_kept_is_computed(way, far, tmp_path):
    """Padding, as PyTorch's masked_fill writes it."""
    nodes = [
        node("ReduceMax", "x", "r", axes=[2], keepdims=0), node("Greater", "r one", "g"),
        node("Unsqueeze", "g first", "kept"), node("Not", "kept", "not"),
        *SCORES, *CHOICES[way], *REST,
    ]  # fmt: skip
    read = {name for one in nodes for name in one.input}
    weights = {"far": np.float32(far), "one": np.float32(1), "zero": np.float32(0)}
    held = {name: value for name, value in weights.items() if name in read}
    proto = graph(
        nodes, ["n", LENGTH, WIDTH], "y", a=floats(WIDTH, WIDTH), first=np.array([1]), **held
    )
    imported = assert_same(proto, [X])
    made = export(imported.model, tmp_path / "m.tflite", quantize="int8", calibration=[X])
    assert made.fidelity[0].sqnr_db > 25


@pytest.mark.parametrize("far", [-1e4, -1e9])
def test_rows_of_which_nothing_is_kept_are_even(far):
    """Beside -1e4 the scores still count."""
    nodes = [
        node("ReduceMax", "x", "r", axes=[1, 2], keepdims=1), node("Greater", "r two", "kept"),
        *SCORES, node("Where", "kept s far", "m"), *REST,
    ]  # fmt: skip
    proto = graph(
        nodes, ["n", LENGTH, WIDTH], "y", a=floats(WIDTH, WIDTH), far=np.float32(far),
        two=np.float32(2.5),
    )  # fmt: skip
    assert_same(proto, [X])
