"""Networks of every kind that is cut into stages: branches, fixed batches, computed shapes."""

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx_native import Net, images

COUNT = 12
INT64 = TensorProto.INT64


NETWORKS = {}


def network(build):
    """Register a builder of a model, of its inputs, and of the sites' roles by name."""
    NETWORKS[build.__name__] = build
    return build


def same(net, source, target, channels=(6, 6), **more):
    """A 3×3 Conv that keeps the size."""
    return net.conv(source, target, channels, pads=[1] * 4, **more)


def head(net, source, classes=5, channels=6):
    """Global pooling and a Gemm: y."""
    net.node("GlobalAveragePool", source, "pooled")
    net.node("Flatten", "pooled", "features")
    net.constant("head.w", net.normal(classes, channels))
    net.constant("head.b", (classes,))
    net.node("Gemm", "features head.w head.b", "y", transB=1, name="head")


def batch(count=COUNT, *shape, seed=0):
    return [images(count, *(shape or (6, 9, 10)), seed=seed)]


@network
def residual():
    net = Net()
    same(net, "x", "stem")
    net.norm("stem", "stem.norm", 6)
    net.node("Relu", "stem.norm", "r0")
    net.conv("r0", "a", (6, 7), pads=[1] * 4, strides=[2, 2], bias=False)
    net.norm("a", "a.norm", 7)
    net.node("Relu", "a.norm", "r1")
    same(net, "r1", "b", (7, 7))
    net.node("Mul", ["b", net.constant("gain", (7, 1, 1))], "b.mul")
    net.node("Add", ["b.mul", net.constant("offset", (7, 1, 1))], "b.norm")
    net.conv("r0", "shortcut", (6, 7), (1, 1), strides=[2, 2])
    net.node("Add", "shortcut b.norm", "sum")
    net.node("Relu", "sum", "r2")
    head(net, "r2", channels=7)
    net.node("Softmax", "y", "scores")
    roles = {"stem": "conv", "a": "conv", "b": "conv", "shortcut": "shortcut", "head": "head"}
    return net.model("scores"), batch(), roles


@network
def fixed_batch_of_one():
    model, inputs, roles = residual()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    return model, inputs, roles


@network
def fixed_batch_of_four():
    model, inputs, roles = residual()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    return model, inputs, roles


@network
def free_size():
    net = Net()
    same(net, "x", "a")
    net.node("Relu", "a", "r")
    same(net, "r", "b")
    net.node("Add", "b r", "y")
    return net.model(inputs={"x": ("n", 6, "h", "w")}), batch(), {"a": "conv", "b": "conv"}


def shape_of(net, source, place):
    """One size of a value, as a tensor of one number."""
    net.node("Shape", source, f"{source}.shape")
    net.constant(f"{source}.place", np.int64([place]))
    return net.node("Gather", f"{source}.shape {source}.place", f"{source}.size")


@network
def reshape_by_computed_batch():
    net = Net()
    same(net, "x", "a")
    shape_of(net, "a", 0)
    net.constant("rest", np.int64([6 * 9 * 10]))
    net.node("Concat", "a.size rest", "target", axis=0)
    net.node("Reshape", "a target", "flat")
    net.constant("image", np.int64([0, 6, 10, 9]))
    net.node("Reshape", "flat image", "turned")
    same(net, "turned", "b")
    net.node("Relu", "b", "y")
    return net.model("y"), batch(), {"a": "conv", "b": "conv"}


@network
def resize_to_the_size_of_another():
    net = Net()
    same(net, "x", "a")
    net.node("MaxPool", "a", "small", kernel_shape=[2, 2], strides=[2, 2])
    same(net, "small", "b")
    net.node("Shape", "a", "a.shape")
    net.node("Resize", ["b", "", "", "a.shape"], "large", mode="nearest")
    net.node("Concat", "large a", "both", axis=1)
    same(net, "both", "y", (12, 5))
    model = net.model(inputs={"x": ("n", 6, "h", "w")})
    return model, batch(), {"a": "conv", "b": "conv", "y": "conv"}


@network
def resize_to_a_slice_of_a_size():
    """Of a value of unknown rank ONNX Runtime takes Slice(Shape) for an empty list."""
    net = Net()
    same(net, "x", "a")
    net.node("MaxPool", "a", "small", kernel_shape=[2, 2], strides=[2, 2])
    same(net, "small", "b")
    for name, source in (("size", "a"), ("before", "b")):
        net.node("Shape", source, f"{name}.shape")
    for name, ends in (("zero", 0), ("two", 2), ("four", 4)):
        net.constant(name, np.int64([ends]))
    net.node("Slice", "size.shape two four", "size")
    net.node("Slice", "before.shape zero two", "before")
    net.node("Concat", "before size", "sizes", axis=0)
    net.node("Resize", ["b", "", "", "sizes"], "large", mode="nearest")
    net.node("Add", "large a", "y")
    return (
        net.model(inputs={"x": ("n", 6, 10, 10)}),
        [images(COUNT, 6, 10, 10)],
        {
            "a": "conv",
            "b": "conv",
        },
    )


@network
def recurrent():
    """As in text recognition: (n, C, 1, W) to (W, n, C), an LSTM, a dense layer per step."""
    net = Net()
    net.conv("x", "a", (6, 8), (9, 3))
    net.node("Relu", "a", "r")
    net.conv("r", "b", (8, 8), (1, 3), pads=[0, 1, 0, 1])
    net.constant("axes", np.int64([2]))
    net.node("Squeeze", "b axes", "rows")
    net.node("Transpose", "rows", "steps", perm=[2, 0, 1])
    net.constant("W", net.normal(1, 16, 8) * np.float32(0.3))
    net.constant("R", net.normal(1, 16, 4) * np.float32(0.3))
    net.node("LSTM", "steps W R", "states last", hidden_size=4)
    net.node("Squeeze", ["states", net.constant("one", np.int64([1]))], "features")
    net.constant("dense.w", (4, 5))
    net.constant("dense.b", (5,))
    net.node("MatMul", "features dense.w", "dense")
    net.node("Add", "dense dense.b", "y")
    return net.model(), batch(), {"a": "conv", "b": "conv"}


@network
def recurrent_then_a_conv():
    """A value between two sites has no batch in front."""
    net = Net()
    same(net, "x", "a")
    net.node("Transpose", "a", "rows", perm=[2, 0, 1, 3])
    net.node("Transpose", "rows", "again", perm=[1, 2, 0, 3])
    same(net, "again", "b")
    net.node("Transpose", "rows", "back", perm=[1, 2, 0, 3])
    net.node("Add", "b back", "y")
    net.node("Neg", "rows", "z")
    return net.model("y z"), batch(), {"a": "conv", "b": "conv"}


@network
def two_inputs_one_of_them_integer():
    net = Net()
    same(net, "x", "a")
    net.constant("table", (7, 6))
    net.node("Gather", "table word", "embedded")
    net.constant("axes", np.int64([2, 3]))
    net.node("Unsqueeze", "embedded axes", "wide")
    net.node("Add", "a wide", "s")
    same(net, "s", "b")
    head(net, "b")
    net.node("ArgMax", "y", "label", axis=1)
    words = np.random.default_rng(0).integers(0, 7, COUNT)
    inputs = {"x": ("n", 6, 9, 10), "word": (INT64, ("n",))}
    roles = {"a": "conv", "b": "conv"}
    return net.model("y label", inputs=inputs), [*batch(), words], roles | {"head": "head"}


@network
def two_outputs():
    net = Net()
    same(net, "x", "a")
    net.node("Split", "a", "left right", axis=1, num_outputs=2)
    same(net, "left", "b", (3, 4))
    same(net, "right", "c", (3, 4))
    net.node("Sigmoid", "c", "c.out")
    return net.model("b c.out left", opset=18), batch(), {"a": "conv", "b": "conv", "c": "conv"}


@network
def constant_outputs_and_unused_inputs():
    net = Net()
    same(net, "x", "a")
    same(net, "a", "y")
    net.constant("c", (3,))
    net.node("Neg", "c", "constant")
    net.node("Shape", "a", "shape")
    inputs = {"idle": ("n", 2), "x": ("n", 6, 9, 10), "late": ("n",)}
    data = [images(COUNT, 2), *batch(), images(COUNT)]
    return net.model("constant y shape x", inputs=inputs), data, {"a": "conv", "y": "conv"}


@network
def a_branch_between():
    net = Net()
    same(net, "x", "a")
    net.node("ReduceMean", "a", "mean", keepdims=0)
    net.constant("limit", np.float32(-100))
    net.node("Greater", "mean limit", "yes")
    branches = [
        helper.make_graph(
            [helper.make_node("Mul", ["a", "a.factor" if yes else "mean"], ["out"])],
            "branch",
            [],
            [onnx.ValueInfoProto(name="out")],
        )
        for yes in (True, False)
    ]
    net.constant("a.factor", (6, 1, 1))
    net.node("If", "yes", "i", then_branch=branches[0], else_branch=branches[1])
    net.constant("w", net.normal(6, 6, 3, 3) / np.float32(7))
    net.node("Conv", "i w", "b", name="b", pads=[1] * 4)
    net.node("Relu", "b", "y")
    model = net.model("a")
    model.graph.output[0].name = "y"
    return model, batch(), {"a": "conv", "b": "conv"}


@network
def functions_and_other_domains():
    net = Net()
    same(net, "x", "a")
    net.node("Gelu", "a", "g", domain="com.microsoft")
    net.node("Twice", "g", "t", domain="local")
    net.constant("w", net.normal(6, 6, 3, 3) / np.float32(7))
    net.node("Conv", "t w", "y", name="y", pads=[1] * 4)
    function = helper.make_function(
        "local", "Twice", ["v"], ["w"], [helper.make_node("Add", ["v", "v"], ["w"])],
        [helper.make_opsetid("", 17)],
    )  # fmt: skip
    model = net.model("a", opset={"": 17, "com.microsoft": 1, "local": 1}, functions=[function])
    model.graph.output[0].name = "y"
    return model, batch(), {"a": "conv", "y": "conv"}


@network
def sparse_operand():
    net = Net()
    same(net, "x", "a")
    net.constant("dense", (10, 6))
    values = onnx.numpy_helper.from_array(np.float32([1, 2, 3]), "s")
    places = onnx.numpy_helper.from_array(np.int64([0, 8, 20]), "s.places")
    net.node("Add", "dense s", "sum")
    net.node("MatMul", "a sum", "m")
    same(net, "m", "y")
    model = net.model("a")
    model.graph.output[0].name = "y"
    sparse = helper.make_sparse_tensor(values, places, [10, 6])
    model.graph.sparse_initializer.append(sparse)
    return model, batch(), {"a": "conv", "y": "conv"}


def with_head(kind):
    net = Net()
    same(net, "x", "a")
    net.node("Relu", "a", "r")
    net.node("GlobalAveragePool", "r", "pooled")
    net.node("Flatten", "pooled", "features")
    net.constant("w", (5, 6) if "transposed" in kind else (6, 5))
    net.constant("b", (1, 5) if "row" in kind else (5,))
    if "gemm" in kind:
        net.node("Gemm", "features w b", "y", name="head", transB=int("transposed" in kind))
    else:
        net.node("MatMul", "features w", "product", name="head")
        net.node("Add", "b product" if "swapped" in kind else "product b", "y")
    net.node("LogSoftmax", "y", "scores")
    return net.model("scores"), batch(), {"a": "conv", "head": "head"}


for _kind in ("gemm", "gemm transposed", "gemm transposed row", "matmul", "matmul swapped row"):
    NETWORKS[f"head {_kind}"] = lambda kind=_kind: with_head(kind)
