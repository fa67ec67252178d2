"""What is pooled to one position and brought back to a free height and width."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import assert_same
from onnx_nets import floats, graph, node
from refusals import refuses

from dsconvert.models.onnx_import import import_onnx

NONE = np.zeros(0, np.float32)
POOL = [node("GlobalAveragePool", "x", "g")]
SIZES = [node("Shape", "g", "front", end=2), node("Shape", "x", "back", start=2),
         node("Concat", "front back", "sizes", axis=0)]  # fmt: skip
COUNTS = [node("Shape", "x", "back", start=2), node("Concat", "ones back", "sizes", axis=0)]
SPREAD = {
    "nearest": [*POOL, *SIZES, node("Resize", "g none none sizes", "s", mode="nearest")],
    "linear": [*POOL, *SIZES, node("Resize", "g none none sizes", "s", mode="linear")],
    "cubic": [*POOL, *SIZES, node("Resize", "g none none sizes", "s", mode="cubic")],
    "Expand": [*POOL, node("Shape", "x", "sizes"), node("Expand", "g sizes", "s")],
    "Tile": [*POOL, *COUNTS, node("Tile", "g sizes", "s")],
    "one axis": [
        node("ReduceMean", "x", "m", axes=[2]),
        node("Shape", "x", "sizes"),
        node("Expand", "m sizes", "s"),
    ],
}


def pyramid(spread):
    """A branch that sees the whole image beside the image, as PSPNet and DeepLab have it."""
    nodes = [*spread, node("Concat", "x s", "both", axis=1), node("Conv", "both w", "y")]
    return graph(
        nodes, ["n", 3, "h", "w_"], "y", w=floats(4, 6, 1, 1), ones=np.array([1, 1]), none=NONE
    )


@pytest.mark.parametrize("spread", SPREAD.values(), ids=SPREAD)
def test_a_pooled_branch_is_brought_back_to_any_size(spread):
    for size in [(5, 7), (8, 4)]:
        imported = assert_same(pyramid(spread), [floats(2, 3, *size)])
    assert imported.model.input_shape == (None, None, None, 3)


def test_a_resize_to_a_free_size_that_no_tensor_has_is_refused():
    nodes = [
        *POOL,
        node("Shape", "g", "front", end=2),
        node("Shape", "x", "back", start=2),
        node("Add", "back back", "twice"),
        node("Concat", "front twice", "sizes", axis=0),
        node("Resize", "g none none sizes", "y", mode="linear"),
    ]
    model = graph(nodes, ["n", 3, "h", "w_"], "y", none=NONE)
    with refuses("operator-not-imported"):
        import_onnx(model)
    fixed = import_onnx(model, inputs=[floats(2, 3, 5, 7)])
    assert fixed.model.output_shape == (None, 10, 14, 3)


def test_the_sizes_that_are_tried_are_within_a_small_machine_s_memory():
    """Attention over all pixels: at 160×192 one of its products took 11 GB."""
    from dsconvert.models.onnx_import.graph import read_graph
    from dsconvert.models.onnx_import.probe import probe

    nodes = [node("Relu", "x", "y")]
    tried = probe(read_graph(graph(nodes, ["n", 3, "h", "w_"], "y")), None, 0).inputs["x"]
    assert max(n * (h * w) ** 2 for n, _, h, w in tried) * 4 < 2 * 2**30
