"""Outputs of an ONNX model that select from others: what they select from stands for them."""

import numpy as np
from onnx import TensorProto
from onnx_native import Net
from stage_networks import same

from dsconvert.converter.backends.onnx.comparable import comparable_outputs
from dsconvert.formats.onnx.graph import OnnxGraph


def test_what_is_selected_from_stands_for_what_is_selected():
    """Boxes behind NMS are another number for each image; boxes and scores are not."""
    net = Net()
    same(net, "x", "a")
    net.constant("places", np.int64([1, 6, -1]))
    net.node("Reshape", "a places", "scores")
    net.node("NonZero", "scores", "found")
    net.node("Cast", "found", "y", to=1)
    net.node("Relu", "a", "z")
    assert comparable_outputs(OnnxGraph(net.model("y z"))) == ("z", "scores")
    assert comparable_outputs(OnnxGraph(net.model("z"))) == ("z",)


def test_no_convolution_is_lost_with_the_selection():
    """One beside the selection would be seen in no other value than what depends on both."""
    net = Net()
    same(net, "x", "a")
    net.node("NonZero", net.node("Relu", "a", "r"), "places")
    net.node("Cast", "places", "numbers", to=TensorProto.FLOAT)
    net.node("ReduceSum", "numbers", "total", keepdims=0)
    same(net, "a", "b")
    net.node("Mul", "b total", "y")
    assert comparable_outputs(OnnxGraph(net.model())) == ("y",)
