"""Every operator that knows axes between two convolutions, whose layout is not ONNX's.

onnx's own cases (test_onnx_backend.py) feed an operator directly, in ONNX's axis order. Here the
input comes from a convolution and the output goes into one, and ONNX Runtime is the reference.
"""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_graphs import (
    Op,
    assert_same,
    assert_same_in_tflite,
    between_convolutions,
    image,
    with_free_sizes,
)
from onnx_nets import graph, node


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*shape: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape).astype(np.float32)


# Not Tan: next to a pole float32 decides.
UNARY = ["Abs", "Neg", "Exp", "Floor", "Ceil", "Round", "Sign", "Erf", "Sin", "Cos", "Atan"]
UNARY += ["Sinh", "Cosh", "Reciprocal", "Asinh"]

# In front of each operator stands (2, 4, 6, 8).
GROUPS: dict[str, list[Op]] = {
    "binary": [
        Op("Add", ("x", "y")),
        Op("Add", ("x", floats(4, 1, 1))),
        Op("Sub", (floats(1, 4, 1, 1), "x")),
        Op("Mul", ("x", floats(8))),
        Op("Mul", (floats(6, 1), "x")),
        Op("Div", ("x", floats(6, 8))),
        Op("Div", (floats(2, 1, 1, 1), "x")),
        Op("Add", ("x", floats(2, 4, 6, 8))),
        Op("Mul", ("x", np.float32(3))),
        Op("Mul", ("x", floats(1))),
        Op("Add", ("x", floats(1, 2, 4, 6, 8))),
        Op("Pow", ("x", np.float32(2))),
        Op("Pow", ("x", np.array(3, np.int64))),
        Op("Mod", ("x", floats(4, 1, 1)), {"fmod": 1}),
        Op("Greater", ("x", "y")),
        Op("Less", ("x", floats(4, 1, 1))),
        Op("GreaterOrEqual", ("x", floats(4, 1, 1))),
        Op("LessOrEqual", ("x", floats(4, 1, 8))),
    ],
    "n-ary": [
        Op("Sum", ("x", "y", "z")),
        Op("Mean", ("x", "y", floats(4, 1, 1))),
        Op("Max", ("x", "y", floats(6, 8))),
        Op("Min", ("x", floats(4, 1, 1))),
        Op("Max", ("x",)),
        Op("Concat", ("x", "y"), {"axis": 1}),
        Op("Concat", ("x", "y", "z"), {"axis": -1}),
        Op("Concat", ("x", "y"), {"axis": 0}),
        Op("Concat", ("x", "x"), {"axis": 2}),
        Op("Concat", ("x", floats(2, 3, 6, 8)), {"axis": 1}),
    ],
    "unary": [Op(name) for name in UNARY],
    "where": [
        Op("Where", (floats(4, 1, 1) > 1, "x", "y")),
        Op("Where", (floats(6, 8) > 1, "x", np.float32(0))),
        Op("Where", (floats(2, 4, 6, 8) > 1, floats(4, 1, 1), "x")),
    ],
    "split": [
        Op("Split", ("x", ints(1, 3)), {"axis": 1}, outputs=2),
        Op("Split", ("x",), {"axis": -1, "num_outputs": 4}, outputs=4),
        Op("Split", ("x",), {"axis": -1, "num_outputs": 3}, outputs=3),  # 3, 3 and 2
        Op("Split", ("x", ints(1, 1)), {}, outputs=2),
    ],
    "slice": [
        Op("Slice", ("x", ints(1), ints(3), ints(1))),
        Op("Slice", ("x", ints(-3, 0), ints(1000, 5), ints(3, 2), ints(1, 2))),
        Op("Slice", ("x", ints(-1, 5), ints(-100, 1), ints(-3, -2), ints(-1, -2))),
        Op("Slice", ("x", ints(0, 1, 0, 2), ints(2, 4, -1, 9))),
        Op("Slice", ("x", ints(0), ints(2**63 - 1), ints(3), ints(2))),
        Op("Slice", ("x", ints(-1), ints(-(2**63)), ints(3), ints(-1))),
    ],
    "pad": [
        Op("Pad", ("x", ints(0, 0, 1, 2, 0, 0, 3, 0))),
        Op("Pad", ("x", ints(0, 1, 0, 0, 0, 2, 0, 0), np.float32(7))),
        Op("Pad", ("x", ints(0, 0, -1, 2, 0, 0, 1, -3), np.float32(-1))),
        Op("Pad", ("x", ints(0, 0, 2, 3, 0, 0, 1, 4)), {"mode": "reflect"}),
        Op("Pad", ("x", ints(0, 2, 0, 0, 0, 1, 0, 0)), {"mode": "reflect"}),
        Op("Pad", ("x", ints(0, 1, 2, 3, 0, 0, 7, 4)), {"mode": "edge"}),
        Op("Pad", ("x", ints(1, 2, 1, 2), None, ints(3, -3)), {"mode": "edge"}),
        Op("Pad", ("x", ints(1, 2, 1, 2), np.float32(0), ints(2, 3))),
    ],
    "reduce": [
        Op("ReduceMean", ("x", ints(2, 3))),
        Op("ReduceMean", ("x", ints(2, 3)), {"keepdims": 0}),
        Op("ReduceSum", ("x", ints(1))),
        Op("ReduceSum", ("x", ints(-1)), {"keepdims": 0}),
        Op("ReduceSum", ("x",)),
        Op("ReduceSum", ("x",), {"noop_with_empty_axes": 1}),
        Op("ReduceMax", ("x", ints(1)), {"keepdims": 0}),
        Op("ReduceMin", ("x", ints(1, 2))),
        Op("ReduceL1", ("x", ints(2)), {"keepdims": 0}),
        Op("ReduceL2", ("x", ints(1))),
        Op("ReduceSumSquare", ("x", ints(0, 1)), {"keepdims": 0}),
        Op("ReduceLogSumExp", ("x", ints(1))),
        Op("ReduceProd", ("x", ints(1, 3)), {"keepdims": 0}),
        Op("ArgMax", ("x",), {"axis": 1}),
        Op("ArgMax", ("x",), {"axis": 2, "keepdims": 0}),
        Op("ArgMin", ("x",), {"axis": -1, "keepdims": 0}),
        Op("ArgMax", ("x",), {}),
    ],
    "shapes": [
        Op("Expand", ("x", ints(3, 1, 1, 1, 1))),
        Op("Expand", ("x", ints(1, 8))),
        Op("Tile", ("x", ints(1, 2, 1, 3))),
        Op("Tile", ("x", ints(2, 1, 2, 1))),
        Op("Gather", ("x", ints(3, 0, -1)), {"axis": 1}),
        Op("Gather", ("x", np.array(-2, np.int64)), {"axis": 1}),
        Op("Gather", ("x", np.array(1, np.int64)), {"axis": 2}),
        Op("Gather", ("x", np.array([[0, 1], [2, 3]], np.int64)), {"axis": -1}),
        Op("Gather", ("x", ints(1)), {}),
        Op("DepthToSpace", ("x",), {"blocksize": 2}),
        Op("DepthToSpace", ("x",), {"blocksize": 2, "mode": "CRD"}),
        Op("SpaceToDepth", ("x",), {"blocksize": 2}),
        Op("TopK", ("x", ints(3)), {"axis": 1}, outputs=2),
        Op("TopK", ("x", ints(2)), {"axis": 3, "largest": 0}, outputs=2),
        Op("CumSum", ("x", np.array(1, np.int64))),
        Op("CumSum", ("x", np.array(-1, np.int64)), {"reverse": 1, "exclusive": 1}),
        Op("Trilu", ("x",)),
        Op("Trilu", ("x", np.array(-1, np.int64)), {"upper": 0}),
        Op("Einsum", ("x", "y"), {"equation": "nchw,ndhw->ncd"}),
        Op("Einsum", ("x",), {"equation": "nchw->nwhc"}),
        Op("GatherElements", ("x", np.zeros((2, 2, 6, 8), np.int64) + 3), {"axis": 1}),
        Op("GatherND", ("x", np.array([[0, 3], [1, 1]], np.int64))),
    ],
    "resize": [
        Op("Resize", ("x", None, np.array(scales, np.float32)), attributes)
        for scales, attributes in [
            ([1, 1, 2, 2], {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}),
            ([1, 1, 2, 3], {"mode": "nearest", "nearest_mode": "floor"}),
            ([1, 1, 3, 2], {"mode": "nearest"}),
            ([1, 1, 0.5, 1.5], {"mode": "nearest", "nearest_mode": "ceil"}),
            ([1, 1, 2, 2], {"mode": "linear"}),
            ([1, 1, 2, 2], {"mode": "linear", "coordinate_transformation_mode": "align_corners"}),
            ([1, 1, 2, 1], {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}),
            ([1, 1, 1.6, 0.7], {"mode": "linear"}),
            ([1, 1, 2, 2], {"mode": "cubic"}),
            ([1, 1, 1.5, 1.25], {"mode": "cubic", "cubic_coeff_a": -0.5}),
        ]
    ]
    + [
        Op("Resize", ("x", None, None, ints(2, 4, 9, 5)), {"mode": mode, **extra})
        for mode in ("nearest", "linear", "cubic")
        for extra in (
            {},
            {"coordinate_transformation_mode": "align_corners"},
            {"coordinate_transformation_mode": "pytorch_half_pixel"},
        )
    ],
    "logic": [
        Op("Cast", ("x",), {"to": 7}),
        Op("Cast", ("x",), {"to": 9}),
        Op("Cast", ("x",), {"to": 1}),
        Op("Equal", ("x", "x")),
        Op("IsNaN", ("x",)),
    ],
    "of opset 7": [
        Op("Split", ("x",), {"axis": 1, "split": [1, 3]}, outputs=2, opset=7),
        Op("Slice", ("x",), {"axes": [1, 3], "starts": [1, -4], "ends": [3, 100]}, opset=7),
        Op("Slice", ("x",), {"starts": [0, 2], "ends": [1, 4]}, opset=7),
        Op("Pad", ("x",), {"pads": [0, 0, 1, 1, 0, 0, 2, 2], "value": 3.0}, opset=7),
        Op("Pad", ("x",), {"pads": [0, 0, 1, 1, 0, 0, 2, 2], "mode": "reflect"}, opset=7),
        Op("ReduceMean", ("x",), {"axes": [1], "keepdims": 0}, opset=7),
        Op("ReduceSum", ("x",), {"axes": [3]}, opset=7),
        Op("Upsample", ("x",), {"scales": [1.0, 1.0, 2.0, 3.0], "mode": "nearest"}, opset=7),
        Op("Upsample", ("x",), {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "linear"}, opset=7),
    ],
    "of opset 1": [  # dropped since; files of that time have them
        Op("Crop", ("x",), {"border": [1, 2, 3, 0]}, opset=7),
        Op("Crop", ("x",), {"border": [1, 2, 0, 0], "scale": [3, 4]}, opset=7),
        Op("ImageScaler", ("x",), {"scale": 0.5, "bias": [1.0, -2.0, 3.0, 4.0]}, opset=7),
        Op("Affine", ("x",), {"alpha": 0.5, "beta": 3.0}, opset=7),
    ],
    "of opset 9": [
        Op("Upsample", ("x", np.array([1, 1, 2, 2], np.float32)), {"mode": "nearest"}, opset=9),
        Op("TopK", ("x",), {"axis": 1, "k": 2}, outputs=2, opset=9),
    ],
    "of opset 10": [
        Op("Resize", ("x", np.array([1, 1, 2, 2], np.float32)), {"mode": "nearest"}, opset=10),
        Op("Resize", ("x", np.array([1, 1, 2, 2], np.float32)), {"mode": "linear"}, opset=10),
        Op("Slice", ("x", ints(1), ints(3), ints(1)), opset=10),
        Op("TopK", ("x", ints(2)), {"axis": 1}, outputs=2, opset=10),
    ],
    "of opset 11": [
        Op("Split", ("x",), {"axis": 3, "split": [5, 3]}, outputs=2, opset=11),
        Op("Split", ("x",), {"axis": 1}, outputs=2, opset=11),
        Op("Clip", ("x", np.float32(-1), np.float32(1)), opset=11),
        Op("Resize", ("x", floats(0), np.array([1, 1, 2, 2], np.float32)), opset=11),
        Op("CumSum", ("x", np.array(2, np.int32)), opset=11),
    ],
}


@pytest.mark.parametrize("group", GROUPS)
def test_operators_between_convolutions(group: str) -> None:
    ops = GROUPS[group]
    model = between_convolutions(ops)
    assert_same(model, [image(model)])


FREE = [
    Op("Add", ("x", floats(4, 1, 1))),
    Op("Mul", ("x", "y")),
    Op("Concat", ("x", "y"), {"axis": 1}),
    Op("Split", ("x", ints(1, 3)), {"axis": 1}, outputs=2),
    Op("Slice", ("x", ints(1), ints(3), ints(1))),
    Op("Slice", ("x", ints(1, 2), ints(-1, 2**62), ints(2, 3))),
    Op("Slice", ("x", ints(-1), ints(-(2**62)), ints(2), ints(-1))),
    Op("Pad", ("x", ints(0, 0, 1, 2, 0, 0, 3, 0))),
    Op("Pad", ("x", ints(0, 0, 1, 2, 0, 0, 3, 1)), {"mode": "reflect"}),
    Op("Pad", ("x", ints(0, 0, 2, 1, 0, 0, 0, 3)), {"mode": "edge"}),
    Op("Pad", ("x", ints(0, 0, -1, 0, 0, 0, -1, 2))),
    Op("ReduceMean", ("x", ints(2, 3))),
    Op("ReduceMax", ("x", ints(1))),
    Op("ReduceSum", ("x", ints(-1)), {"keepdims": 0}),
    Op("ArgMax", ("x",), {"axis": 1}),
    Op("Tile", ("x", ints(1, 1, 2, 3))),
    Op("Gather", ("x", ints(3, -1)), {"axis": 1}),
    Op("DepthToSpace", ("x",), {"blocksize": 2, "mode": "CRD"}),
    Op("SpaceToDepth", ("x",), {"blocksize": 2}),
    Op("Resize", ("x", None, np.array([1, 1, 2, 3], np.float32)), {"mode": "nearest"}),
    Op("Resize", ("x", None, np.array([1, 1, 2, 2], np.float32)), {"mode": "linear"}),
    Op("CumSum", ("x", np.array(2, np.int64))),
]


def test_operators_on_images_of_any_size() -> None:
    model = with_free_sizes(between_convolutions(FREE))
    for shape in [(2, 3, 6, 8), (1, 3, 4, 12)]:
        random = np.random.default_rng(3).normal(size=shape).astype(np.float32)
        imported = assert_same(model, [random])
    assert imported.model.inputs[0].shape == (None, None, None, 3)


def test_large_constants_are_weights_of_the_file_not_text_of_its_configuration() -> None:
    large = floats(1, 4, 40, 40)
    ops = [
        Op("Add", ("x", large)),
        Op("Mul", (large, "x")),
        Op("Concat", ("x", floats(2, 4, 40, 40)), {"axis": 1}),
        Op("Resize", ("x", None, None, ints(2, 4, 90, 70)), {"mode": "cubic"}),
    ]
    model = between_convolutions(ops, (2, 3, 40, 40))
    imported = assert_same(model, [image(model)])
    assert len(imported.model.to_json()) < 40_000
    assert_same_in_tflite(model, [image(model)])


def test_sizes_computed_in_the_graph() -> None:
    """A crop to the size of another value, and a resize to it, as U-Nets have them."""
    model = with_free_sizes(between_convolutions([Op("Relu"), Op("Relu", ("y",))], (2, 3, 8, 8)))
    graph = model.graph
    nodes = [
        helper.make_node("MaxPool", ["r0_0"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Shape", ["r1_0"], ["shape"]),
        helper.make_node("Slice", ["shape", "two", "four", "zero"], ["size"]),
        helper.make_node("Shape", ["small"], ["small_shape"]),
        helper.make_node("Slice", ["small_shape", "zero", "two", "zero"], ["small_rest"]),
        helper.make_node("Concat", ["small_rest", "size"], ["target"], axis=0),
        helper.make_node("Resize", ["small", "", "", "target"], ["large"], mode="nearest"),
        helper.make_node("Add", ["large", "r1_0"], ["joined"]),
        helper.make_node("Sub", ["size", "two"], ["ends"]),
        helper.make_node("Slice", ["joined", "twos", "ends", "axes"], ["cropped"]),
    ]
    graph.node.extend(nodes)
    for name, values in {
        "zero": [0],
        "two": [2],
        "four": [4],
        "twos": [2, 2],
        "axes": [2, 3],
    }.items():
        graph.initializer.append(numpy_helper.from_array(ints(*values), name))
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in ["joined", "cropped"])
    for shape in [(2, 3, 8, 8), (1, 3, 16, 12)]:
        assert_same(model, [np.random.default_rng(3).normal(size=shape).astype(np.float32)])


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_operators_as_tflite(group: str) -> None:
    model = between_convolutions(GROUPS[group])
    assert_same_in_tflite(model, [image(model)])


@pytest.mark.parametrize("shape", [(2, 3, 10), (1, 2, 4, 5, 6)], ids=["1-D", "3-D"])
def test_operators_between_convolutions_of_other_ranks(shape: tuple[int, ...]) -> None:
    rank = len(shape)
    last, first = ints(-1), ints(1)
    ops = [
        Op("Add", ("x", floats(4, *[1] * (rank - 2)))),
        Op("Mul", ("x", floats(shape[-1]))),
        Op("Concat", ("x", "y"), {"axis": 1}),
        Op("Slice", ("x", first, ints(4), first)),
        Op("Slice", ("x", ints(-1), ints(-100), last, ints(-2))),
        Op("Split", ("x", ints(1, 3)), {"axis": 1}, outputs=2),
        Op("Pad", ("x", ints(*[0] * (rank - 1), 2, *[0] * (rank - 1), 1))),
        Op("ReduceMean", ("x", last)),
        Op("ReduceMax", ("x", first), {"keepdims": 0}),
        Op("Gather", ("x", ints(2, 1)), {"axis": 1}),
        Op("Tile", ("x", ints(*[1] * (rank - 1), 2))),
        Op("ArgMax", ("x",), {"axis": 1, "keepdims": 0}),
        Op("Resize", ("x", None, np.array([1, 1, *[2] * (rank - 2)], np.float32))),
    ]
    if rank == 3:
        scales = np.array([1, 1, 1.7], np.float32)
        ops.append(Op("Resize", ("x", None, scales), {"mode": "linear"}))
    model = between_convolutions(ops, shape)
    assert_same(model, [image(model)])


@pytest.mark.parametrize("size", [(4, 4), (4, 5), (5, 4)])
def test_vectors_are_added_where_they_stand_though_sizes_agree(size: tuple[int, int]) -> None:
    # keras.ops.add takes a vector for the bias of whatever axis has its size.
    vectors = [floats(4, 1, 1), floats(size[0], 1), floats(size[1]), floats(1, 4, 1, 1)]
    ops = [Op("Add", ("x", vector)) for vector in vectors]
    ops += [Op("Add", (vector, "x")) for vector in vectors]
    ops += [Op("Sum", ("x", vector, "y")) for vector in vectors]
    ops += [Op("Sub", ("x", vector)) for vector in vectors]
    model = between_convolutions(ops, (2, 3, *size))
    assert_same(model, [image(model)])


@pytest.mark.parametrize("to", [2, 3, 4, 5])  # uint8, int8, uint16, int16
def test_what_is_too_large_for_an_integer_wraps_around(to):
    nodes = [
        node("Mul", "x scale", "wide"),
        node("Cast", "wide", "whole", to=to),
        node("Cast", "whole", "y", to=1),
    ]
    proto = graph(nodes, [1, 3, 6, 6], "y", scale=np.float32(512))
    x = np.random.default_rng(0).integers(-300, 300, (1, 3, 6, 6)).astype(np.float32) + 0.25
    assert_same(proto, [x])
    assert_same_in_tflite(proto, [x])
