"""STFT, DFT, Col2Im, DeformConv and Compress: the outputs are ONNX Runtime's."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import assert_same, assert_same_in_tflite
from onnx_nets import floats, graph, node

SIGNAL = floats(2, 64, 1, seed=2)


@pytest.mark.parametrize("onesided", [0, 1])
def test_spectra_of_frames(onesided):
    proto = graph(
        [node("STFT", "x step window length", "y", onesided=onesided)], ["n", 64, 1], "y",
        step=np.array(8), window=np.hanning(16).astype("f4"), length=np.array(16),
    )  # fmt: skip
    assert_same(proto, [SIGNAL])


def test_spectra_in_tflite():
    proto = graph(
        [node("STFT", "x step  length", "s"), node("Mul", "s s", "q"),
         node("ReduceSum", "q last", "y", keepdims=0)],
        ["n", 64, 1], "y", step=np.array(8), length=np.array(16), last=np.array([-1]),
    )  # fmt: skip
    proto.graph.node[0].input[:] = ["x", "step", "", "length"]
    assert_same_in_tflite(proto, [SIGNAL])


@pytest.mark.parametrize("length", [None, 6, 12])
@pytest.mark.parametrize(
    ("parts", "given"), [(1, {"onesided": 1}), (2, {"inverse": 1}), (2, {}), (1, {"axis": 2})]
)
def test_transforms(parts, given, length):
    shape = (10, 10, parts)
    held = {} if length is None else {"length": np.array(length)}
    proto = graph(
        [node("DFT", "x length" if held else "x", "y", **given)], ["n", *shape], "y", **held
    )
    assert_same(proto, [floats(2, *shape, seed=1)])


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"strides": [2, 2], "pads": [1, 1, 1, 1]},
        {"strides": [2, 3], "dilations": [2, 1], "pads": [0, 1, 1, 2]},
    ],
)
def test_an_image_from_its_blocks(given):
    image, block = (9, 10), (2, 3)
    padded = np.add(image, np.reshape(given.get("pads", [0] * 4), (2, 2)).sum(0))
    window = (np.array(block) - 1) * given.get("dilations", [1, 1]) + 1
    count = int(np.prod((padded - window) // given.get("strides", [1, 1]) + 1))
    proto = graph(
        [node("Col2Im", "x image block", "y", **given)], ["n", 12, count], "y", opset=18,
        image=np.array(image), block=np.array(block),
    )  # fmt: skip
    assert_same(proto, [floats(2, 12, count, seed=3)])


@pytest.mark.parametrize(
    ("kernel", "groups", "given"),
    [
        ((5, 4, 3, 3), 1, {"pads": [1, 1, 1, 1]}),
        ((6, 2, 3, 3), 2, {"group": 2, "offset_group": 2, "strides": [2, 1]}),
        ((5, 4, 2, 3), 1, {"dilations": [2, 1], "pads": [2, 0, 1, 1]}),
    ],
)
def test_a_deformable_convolution(kernel, groups, given):
    """The places that it moves to are computed from the image, as networks do."""
    pads, steps = np.reshape(given.get("pads", [0] * 4), (2, 2)), given.get("strides", [1, 1])
    windows = (np.array(kernel[2:]) - 1) * given.get("dilations", [1, 1]) + 1
    rows, columns = (np.array([8, 7]) + pads.sum(0) - windows) // steps + 1
    taps = groups * kernel[2] * kernel[3]
    nodes = [
        node("Conv", "x k", "a", pads=[1, 1, 1, 1]),
        node("Resize", "a", "small", mode="linear"),
        node("Conv", "small o", "moved"), node("Conv", "small m", "open"),
        node("Sigmoid", "open", "mask"),
        node("DeformConv", "a w moved b mask", "y", kernel_shape=list(kernel[2:]), **given),
    ]  # fmt: skip
    nodes[1].input[:] = ["a", "", "", "sizes"]
    proto = graph(
        nodes, [1, 3, 8, 7], "y", opset=19, k=floats(4, 3, 3, 3), w=floats(*kernel, seed=4),
        o=floats(2 * taps, 4, 1, 1, seed=5, scale=2.0), m=floats(taps, 4, 1, 1, seed=6),
        b=floats(kernel[0], seed=7), sizes=np.array([1, 4, rows, columns]),
    )  # fmt: skip
    assert_same(proto, [floats(1, 3, 8, 7, seed=8)])


@pytest.mark.parametrize("axis", [None, 2])
def test_what_a_constant_condition_keeps(axis):
    given = {} if axis is None else {"axis": axis}
    proto = graph(
        [node("Conv", "x k", "a"), node("Compress", "a kept", "y", **given)], [1, 3, 6, 6], "y",
        k=floats(4, 3, 3, 3), kept=np.array([True, False, True, True]),
    )  # fmt: skip
    assert_same(proto, [floats(1, 3, 6, 6, seed=2)])


@pytest.mark.parametrize("aligned", [0, 1])
@pytest.mark.parametrize("size", [(3, 5, 6), (2, 3, 4, 5)])
def test_a_grid_of_computed_matrices(aligned, size):
    rank = len(size) - 1
    nodes = [
        node("MatMul", "x w", "t"), node("Reshape", "t form", "theta"),
        node("AffineGrid", "theta size", "y", align_corners=aligned),
    ]  # fmt: skip
    proto = graph(
        nodes, ["n", 7], "y", opset=20, ir=9, w=floats(7, rank * (rank + 1)),
        form=np.array([-1, rank, rank + 1]), size=np.array([3, *size]),
    )  # fmt: skip
    assert_same(proto, [floats(3, 7, seed=2)])


def test_values_towards_zero():
    proto = graph([node("Shrink", "x", "y", lambd=0.3, bias=0.1)], ["n", 3, 6, 6], "y")
    assert_same_in_tflite(proto, [floats(2, 3, 6, 6)])


def test_what_onnx_spells_out_by_the_types_of_constants():
    """Of a crop, here: it asks what type the constant of the sizes has."""
    nodes = [node("Conv", "x k", "a"), node("CenterCropPad", "a size", "y", axes=[2, 3])]
    proto = graph(nodes, [1, 3, 6, 6], "y", opset=18, k=floats(4, 3, 3, 3), size=np.array([3, 6]))
    assert_same(proto, [floats(1, 3, 6, 6, seed=2)])
