"""ScatterND, ScatterElements, NonZero and NonMaxSuppression: the outputs are ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import assert_same
from onnx_nets import floats, graph, node

from dsconvert.base.errors import GateFailed
from dsconvert.models.onnx_import import import_onnx, verify
from dsconvert.models.onnx_import.ops import detection

IMAGE = floats(1, 3, 6, 6, seed=5)


def written(kind, where, values, **attributes):
    """A convolution of four channels, of which some places are written to."""
    nodes = [
        node("Conv", "x k", "a", pads=[1, 1, 1, 1]),
        node(kind, "a where values", "s", **attributes),
        node("Relu", "s", "y"),
    ]
    return graph(nodes, [1, 3, 6, 6], "y", opset=18, k=floats(4, 3, 3, 3), where=where,
                 values=values)  # fmt: skip


def grid(*ranges):
    return np.stack(np.meshgrid(*ranges, indexing="ij"), -1).astype(np.int64)


@pytest.mark.parametrize(
    ("where", "shape"),
    [
        (grid([0], range(1, 3), range(2, 5)), (1, 2, 3, 6)),
        (grid([0], [3, 1], [0, 5]), (1, 2, 2, 6)),
        (np.array([[0, -1], [0, 1]]), (2, 6, 6)),
    ],
    ids=["a block", "here and there", "from the end"],
)
def test_slices_are_written(where, shape):
    assert_same(written("ScatterND", where, floats(*shape, seed=3)), [IMAGE])


@pytest.mark.parametrize("reduction", ["add", "mul", "max", "min"])
def test_what_is_written_twice_is_combined(reduction):
    where = np.array([[0, 1], [0, 3], [0, 1]])
    proto = written("ScatterND", where, floats(3, 6, 6, seed=3), reduction=reduction)
    assert_same(proto, [IMAGE])


def test_elements_are_written():
    where = np.array([1, 3, -4]).reshape(1, 3, 1, 1) * np.ones((1, 3, 6, 6), np.int64)
    assert_same(written("ScatterElements", where, floats(1, 3, 6, 6, seed=3), axis=1), [IMAGE])


def test_values_from_the_data():
    """``y[:, :2] = sigmoid(y[:, :2])``, as detectors write their boxes."""
    nodes = [
        node("Conv", "x k", "a", pads=[1, 1, 1, 1]),
        node("Slice", "a from to axes", "part"),
        node("Sigmoid", "part", "values"),
        node("ScatterND", "a where values", "y"),
    ]
    proto = graph(nodes, [1, 3, 6, 6], "y", k=floats(4, 3, 3, 3), axes=np.array([1]),
                  where=grid([0], range(2), range(6), range(6)), to=np.array([2]),
                  **{"from": np.array([0])})  # fmt: skip
    assert_same(proto, [IMAGE])


def test_places_that_are_not_zero():
    nodes = [node("Conv", "x k", "a"), node("Greater", "a least", "b"), node("NonZero", "b", "y")]
    proto = graph(nodes, ["n", 3, 6, 6], "y", k=floats(4, 3, 3, 3), least=np.float32(0.3))
    proto.graph.output[0].type.tensor_type.elem_type = 7
    assert_same(proto, [floats(2, 3, 6, 6, seed=1)])


def test_a_result_of_another_length_for_each_sample():
    """The batch that is fixed in the file is not freed then."""
    proto = graph([node("NonZero", "x", "y")], [2, 2], "y", dtype=9)
    proto.graph.output[0].type.tensor_type.elem_type = 7
    assert_same(proto, [np.array([[True, False], [True, True]])])


def detector(center=0):
    """Twelve boxes of two classes, from the means of an image's columns."""
    sizes = np.array([6, 6, 3, 3] if center else [-3, -3, 3, 3], np.float32)
    nodes = [
        node("Conv", "x k", "a", pads=[1, 1, 1, 1]),
        node("Reshape", "a flat", "rows"),
        node("Slice", "rows zero four one", "raw"),
        node("Transpose", "raw", "moved", perm=[0, 2, 1]),
        node("Add", "moved sizes", "boxes"),
        node("Slice", "rows four six one", "s"),
        node("Sigmoid", "s", "scores"),
        node("NonMaxSuppression", "boxes scores most overlap least", "found",
             center_point_box=center),
        node("Gather", "found two", "which", axis=1),
        node("Squeeze", "boxes zero", "all"),
        node("Gather", "all which", "y", axis=0),
    ]  # fmt: skip
    proto = graph(
        nodes, [1, 3, 4, 3], "found y", k=floats(6, 3, 3, 3, scale=0.6), sizes=sizes,
        flat=np.array([1, 6, 12]), zero=np.array([0]), one=np.array([1]), four=np.array([4]),
        six=np.array([6]), two=np.array(2), most=np.array([4]),
        overlap=np.array([0.4], np.float32), least=np.array([0.45], np.float32),
    )  # fmt: skip
    proto.graph.output[0].type.tensor_type.elem_type = 7
    return proto


@pytest.mark.parametrize("center", [0, 1])
def test_boxes_of_each_class_are_kept_and_read(center):
    image = floats(1, 3, 4, 3, seed=8, scale=2)
    assert_same(detector(center), [image])


def test_a_wrong_choice_of_boxes_is_seen(monkeypatch):
    """Were it compared by the shape alone, this would pass."""
    monkeypatch.setattr(detection, "_NOTHING", 2.0)
    with pytest.raises(GateFailed, match="differs"):
        import_onnx(detector())


def test_an_empty_result_alone_proves_nothing():
    empty, full = np.zeros((1, 0)), np.ones((1, 2))
    apart = verify._apart([[(empty, empty)], [(full + 1, full)]])
    assert apart == [1.0, 1.0]
