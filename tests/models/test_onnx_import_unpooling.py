"""Where the largest values are, and MaxUnpool: the outputs are ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import assert_same
from onnx_nets import floats, graph, node
from refusals import refuses

import dsconvert as ds
from dsconvert.models.onnx_import import import_onnx

IMAGES = floats(3, 3, 8, 12, seed=5)


@pytest.mark.parametrize(
    "window",
    [
        {"strides": [2, 2]},
        {"strides": [2, 3], "pads": [1, 1, 1, 1]},
        {"strides": [2, 1], "dilations": [2, 1], "pads": [0, 1, 1, 0]},
        {"strides": [3, 3], "ceil_mode": 1},
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
        {"strides": [2, 2], "storage_order": 1},
    ],
    ids=str,
)
def test_places_of_the_largest_values(window):
    """They count the samples too, of which there may be any number."""
    nodes = [
        node("Conv", "x k", "a", pads=[1, 1, 1, 1]),
        node("MaxPool", "a", "y places", kernel_shape=[2, 3], **window),
    ]
    proto = graph(nodes, ["n", 3, 8, 12], "y places", k=floats(4, 3, 3, 3))
    proto.graph.output[1].type.tensor_type.elem_type = 7
    made = assert_same(proto, [IMAGES])
    assert made.model.inputs[0].shape[0] is None


def encoder(pool, unpool, size, *, room=False):
    """A network that keeps the places of its pool, and puts other values there.

    Args:
        pool: Attributes of the pool.
        unpool: And of the unpooling.
        size: Of the image.
        room: Whether the size of what was pooled is asked for.
    """
    rank = len(pool["kernel_shape"])
    nodes = [
        node("Conv", "x k", "a", pads=[1] * 2 * rank),
        node("MaxPool", "a", "p places", **pool),
        node("Conv", "p k2", "b", pads=[1] * 2 * rank),
        node("Shape", "a", "room"),
        node("MaxUnpool", "b places room" if room else "b places", "u", **unpool),
        node("Conv", "u k3", "y", pads=[1] * 2 * rank),
    ]
    kernels = {
        "k": floats(4, 3, *[3] * rank),
        "k2": floats(4, 4, *[3] * rank, seed=1),
        "k3": floats(2, 4, *[3] * rank, seed=2),
    }
    return graph(nodes, ["n", 3, *size], "y", **kernels)


@pytest.mark.parametrize(("kernel", "size"), [([2, 2], [8, 12]), ([2, 3], [8, 12]), ([4], [12])])
def test_values_go_back_where_they_were_found(kernel, size, tmp_path):
    windows = {"kernel_shape": kernel, "strides": kernel}
    odd = [n + 1 for n in size]  # the last row and column are in no window
    assert_same(encoder(windows, windows, odd, room=True), [floats(3, 3, *odd, seed=5)])
    made = assert_same(encoder(windows, windows, size), [floats(3, 3, *size, seed=5)])
    assert made.model.inputs[0].shape[0] is None
    ds.export(made.model, tmp_path / "m.tflite")  # in TFLite's own operators


@pytest.mark.parametrize("room", [None, 5])
def test_to_constant_places(room):
    where = np.array([[[[1, 6], [8, 15]]]], np.int64)
    source = "a where" if room is None else "a where room"
    nodes = [
        node("Conv", "x k", "a"),
        node("MaxUnpool", source, "y", kernel_shape=[2, 2], strides=[2, 2]),
    ]
    more = {} if room is None else {"room": np.array([1, 1, room, room])}
    proto = graph(nodes, [1, 3, 4, 4], "y", k=floats(1, 3, 3, 3), where=where, **more)
    assert_same(proto, [floats(1, 3, 4, 4, seed=5)])


def test_places_that_need_not_be_in_their_window_are_refused():
    """Of windows that overlap, two may find the same place."""
    pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    unpool = {"kernel_shape": [2, 2], "strides": [2, 2]}
    with refuses("operator-not-imported"):
        import_onnx(encoder(pool, unpool, [8, 12]))


def test_more_places_than_float32_counts_are_refused(monkeypatch):
    windows = {"kernel_shape": [2, 2], "strides": [2, 2]}
    monkeypatch.setattr("dsconvert.models.onnx_import.ops.unpooling._EXACT", 8 * 12 - 1)
    with refuses("operator-not-imported"):
        import_onnx(encoder(windows, windows, [8, 12]))
