"""Places that are written, read or found, computed ones too: the outputs are ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import assert_same
from onnx_nets import floats, graph, node

import dsconvert as ds
from dsconvert.base.errors import GateFailed
from dsconvert.deploy.exporting import tflite
from dsconvert.deploy.exporting.keras_source import read_source
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


def computed(nodes, shape, y="y", kernel=4, opset=18, **constants):
    """A convolution, and places that are computed from what it gives."""
    first = node("Conv", "x k", "a", pads=[1, 1, 1, 1])
    return graph([first, *nodes], shape, y, opset=opset, k=floats(kernel, 3, 3, 3), **constants)


class TestComputedPlaces:
    """Indices that the model computes; the batch stays free where the operator lets it."""

    IMAGES = floats(2, 3, 6, 6, seed=5)

    @pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
    def test_elements_are_written(self, reduction):
        """The two largest of each pixel's channels take other values."""
        nodes = [
            node("TopK", "a two", "best where", axis=1),
            node("Sigmoid", "best", "values"),
            node("ScatterElements", "a where values", "y", axis=1, reduction=reduction),
        ]
        made = assert_same(computed(nodes, ["n", 3, 6, 6], two=np.array([2])), [self.IMAGES])
        assert made.model.inputs[0].shape[0] is None

    def test_the_last_of_several_values_stays(self):
        nodes = [
            node("Cast", "a", "whole", to=7),
            node("Clip", "whole zero three", "where"),
            node("Sigmoid", "a", "values"),
            node("ScatterElements", "a where values", "y", axis=-1),
        ]
        proto = computed(nodes, ["n", 3, 6, 6], zero=np.array(-3), three=np.array(3))
        assert_same(proto, [20 * self.IMAGES])

    def test_a_hard_choice(self):
        """``zeros.scatter(1, argmax, 1)``, as straight-through samplers and gates write it."""
        nodes = [
            node("ArgMax", "a", "where", axis=1),
            node("Shape", "a", "size"),
            node("ConstantOfShape", "size", "zeros"),
            node("Shape", "where", "places"),
            node("Expand", "one places", "ones"),
            node("ScatterElements", "zeros where ones", "y", axis=1),
        ]
        proto = computed(nodes, ["n", 3, 6, 6], one=np.array(1, np.float32))
        made = assert_same(proto, [self.IMAGES])
        assert made.model.inputs[0].shape[0] is None

    @pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
    def test_slices_are_written(self, reduction, tmp_path):
        """Rows to the places of the largest values, two of them to the same channel."""
        nodes = [
            node("ReduceMean", "a last", "m", keepdims=0),  # (1, 4, 6)
            node("ArgMax", "m", "rows", axis=2, keepdims=1),  # (1, 4, 1)
            node("Concat", "where rows", "places", axis=2),
            node("Sigmoid", "m", "values"),  # (1, 4, 6): a row of each channel
            node("ScatterND", "a places values", "y", reduction=reduction),
        ]
        where = np.array([[0, 0], [0, 1], [0, 1], [0, -1]]).reshape(1, 4, 2)
        proto = computed(nodes, [1, 3, 6, 6], last=np.array([3]), where=where)
        made = assert_same(proto, [IMAGE])
        ds.export(made.model, tmp_path / "m.tflite")  # in TFLite's own operators

    def test_slices_are_read(self):
        """A pixel of each channel, all at places that the data name."""
        nodes = [
            node("ReduceMax", "a three", "rows", keepdims=0),
            node("ArgMax", "rows", "where", axis=2, keepdims=1),  # (n, 4, 1)
            node("GatherND", "a where", "y", batch_dims=2),
        ]
        proto = computed(nodes, ["n", 3, 6, 6], three=np.array([3]))
        made = assert_same(proto, [self.IMAGES])
        assert made.model.inputs[0].shape[0] is None

    def test_slices_of_a_constant_are_read(self):
        nodes = [
            node("ArgMax", "a", "i", axis=1, keepdims=0),
            node("ArgMax", "a", "j", axis=1, keepdims=0, select_last_index=1),
            node("Unsqueeze", "i last", "i1"),
            node("Unsqueeze", "j last", "j1"),
            node("Concat", "i1 j1", "where", axis=-1),
            node("GatherND", "table where", "y"),
        ]
        table = floats(4, 4, 3, seed=8)
        assert_same(computed(nodes, ["n", 3, 6, 6], last=np.array([-1]), table=table), [IMAGE])

    @pytest.mark.parametrize("batch", [0, 1])
    def test_sequences_are_turned_round_by_computed_lengths(self, batch):
        nodes = [
            node("ReduceMean", "a rest", "m", keepdims=0),  # (n, 4)
            node("ArgMax", "m", "i", axis=1, keepdims=0),
            node("Add", "i one", "lengths"),
            node("Transpose", "a", "steps", perm=[0, 2, 1, 3] if batch == 0 else [2, 0, 1, 3]),
            node("ReverseSequence", "steps lengths", "y", batch_axis=batch, time_axis=1 - batch),
        ]
        proto = computed(nodes, ["n", 3, 6, 6], rest=np.array([2, 3]), one=np.array(1))
        made = assert_same(proto, [self.IMAGES])
        assert made.model.inputs[0].shape[0] is None

    def test_whole_sequences_are_turned_round(self):
        """As tf2onnx writes tf.reverse: the lengths are a size of the input."""
        nodes = [
            node("Shape", "a", "sizes"),
            node("Gather", "sizes axis", "length"),
            node("Gather", "sizes zero", "count"),
            node("Expand", "length count", "lengths"),
            node("Transpose", "a", "steps", perm=[0, 2, 1, 3]),
            node("ReverseSequence", "steps lengths", "y", batch_axis=0, time_axis=1),
        ]
        proto = computed(nodes, ["n", 3, "h", 6], axis=np.array([2]), zero=np.array([0]))
        made = assert_same(proto, [self.IMAGES])
        assert made.model.inputs[0].shape[1] is None


@pytest.mark.parametrize("values", ["computed", "one number"])
@pytest.mark.parametrize(("start", "stop", "axis"), [(0, 2, 1), (1, 3, 3), (2, 4, 1)])
def test_a_block_of_a_tensor_of_free_sizes(start, stop, axis, values):
    """``y[:, :2] = …`` of a free batch and height: the places are computed from the sizes."""
    nodes = [node("Conv", "x k", "a", pads=[1, 1, 1, 1]), node("Shape", "a", "sizes")]
    for i, name in enumerate("nchw"):  # each axis' numbers, along that axis
        limits = ("start", "stop") if i == axis else ("nought", f"{name}_size")
        nodes += [
            node("Gather", f"sizes at{i}", f"{name}_size"),
            node("Range", f"{limits[0]} {limits[1]} step", f"{name}_range"),
            node("Unsqueeze", f"{name}_range others{i}", f"{name}_grid"),
        ]
    nodes += [
        node("Add", "n_grid c_grid", "nc"), node("Add", "h_grid w_grid", "hw"),
        node("Add", "nc hw", "all"), node("Shape", "all", "whole"),
        *(node("Expand", f"{name}_grid whole", f"{name}_all") for name in "nchw"),
        *(node("Unsqueeze", f"{name}_all last", f"{name}_place") for name in "nchw"),
        node("Concat", "n_place c_place h_place w_place", "where", axis=-1),
        node("Slice", "a from to along", "part"),
        node("Sigmoid", "part", "values") if values == "computed"
        else node("Expand", "half whole", "values"),
        node("ScatterND", "a where values", "y"),
    ]  # fmt: skip
    constants = {
        **{f"at{i}": np.array(i) for i in range(4)},
        **{f"others{i}": np.array([j for j in range(4) if j != i]) for i in range(4)},
        **{"start": np.array(start), "stop": np.array(stop), "step": np.array(1)},
        **{"nought": np.array(0), "last": np.array([-1]), "along": np.array([axis])},
        **{"from": np.array([start]), "to": np.array([stop]), "half": np.float32(0.5)},
    }
    proto = graph(nodes, ["n", 3, "h", 6], "y", k=floats(4, 3, 3, 3), **constants)
    made = assert_same(proto, [floats(2, 3, 6, 6, seed=5)])
    assert made.model.inputs[0].shape[0] is made.model.inputs[0].shape[1] is None


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
    monkeypatch.setattr(detection, "_FAR", -1.0)
    with pytest.raises(GateFailed, match="differs"):
        import_onnx(detector())


def without_threshold():
    proto = detector()
    next(n for n in proto.graph.node if n.op_type == "NonMaxSuppression").input.pop()
    return proto


def test_boxes_of_each_class_are_kept_without_a_threshold():
    image = floats(1, 3, 4, 3, seed=8, scale=2)
    assert_same(without_threshold(), [image])


@pytest.mark.parametrize("make", [detector, without_threshold])
def test_what_is_not_chosen_leaves_int8_scores_their_steps(make, tmp_path):
    """One number of -3e38 among the scores would take all 256."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    model = import_onnx(make()).model
    path, images = tmp_path / "net.tflite", np.moveaxis(floats(8, 3, 4, 3, seed=8), 1, 3)
    tflite.convert(read_source(model, None), path, "int8", [images])
    scales = [
        scale
        for tensor in litert.Interpreter(str(path)).get_tensor_details()
        for scale in tensor["quantization_parameters"]["scales"]
    ]
    assert max(scales) < 100


def test_an_empty_result_alone_proves_nothing():
    empty, full = np.zeros((1, 0)), np.ones((1, 2))
    apart = verify._apart([[(empty, empty)], [(full + 1, full)]])
    assert apart == [1.0, 1.0]


@pytest.mark.parametrize("position", [0, -1, -2])
@pytest.mark.parametrize("axis", [0, 2, 3])
def test_one_position_of_an_axis_of_free_size(axis, position):
    """The last step of a sequence, the first row of an image: Keras knew no size to squeeze."""
    nodes = [
        node("Conv", "x w", "c", pads=[1, 1, 1, 1]),
        node("Gather", "c where", "y", axis=axis),
    ]
    model = graph(nodes, ["n", 3, "h", "w_"], "y", w=floats(4, 3, 3, 3), where=np.int64(position))
    assert_same(model, [floats(2, 3, 5, 7)])
