"""A small graph for each operator that carries weights, for what a rewrite makes of it.

Every kernel reads six channels of x, (2, 6, 9, 10), behind a Relu. The operator gives y, and
its node is called "it".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx_native import FULL_RANK, Net

import dsconvert as ds

FOREIGN = {"": 17, "com.microsoft": 1, "qonnx.custom_op.general": 1}
Builder = Callable[[Net], None]
GRAPHS: dict[str, Builder] = {}
"""By the operator's name, with the form that it has."""


def kernel_graph(name: str) -> onnx.ModelProto:
    """Return the graph of one operator."""
    net = Net()
    net.node("Relu", "x", "r")
    GRAPHS[name](net)
    newest = {"": 22} if name.startswith("DeformConv") else FOREIGN
    shape = {"Conv, 1-D": (2, 6, 9), "Conv, 3-D": (2, 6, 9, 10, 8)}.get(name, (2, 6, 9, 10))
    model = net.model(inputs={"x": shape}, opset=newest, ir=9)
    if not model.graph.output[0].type.tensor_type.HasField("shape"):  # of a foreign operator
        declared = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 8, "h", "w"])
        model.graph.output[0].CopyFrom(declared)
    return model


def rewritten(path: Path, *, dequantize: bool = False) -> tuple[str, onnx.ModelProto | None]:
    """Rewrite a graph's operator at full rank.

    Args:
        path: Its file.
        dequantize: Whether it is read as the float graph that it stands for.

    Returns:
        What becomes of the operator, and the new graph; None where it is refused.
    """
    options = ds.RewriteOptions(pairs=FULL_RANK, structure="pairs")
    try:
        result = ds.rewrite(ds.load(path, dequantize=dequantize), options=options)
    except ds.DsconvertError as error:
        return f"refused: {error.code}", None
    for row in result.report.layers:
        if row.name.endswith("it"):
            return f"kept: {row.reason.text}" if row.reason else "rewritten", result.model
    return "kept: no convolution", result.model


def both_ways(name: str, folder: Path) -> tuple[str, str]:
    """Return what becomes of an operator, and of the same dequantized; empty where it is equal."""
    path = folder / "graph.onnx"
    onnx.save(kernel_graph(name), path)
    told, again = (rewritten(path, dequantize=way)[0] for way in (False, True))
    return told, again if again != told else ""


def _graph(name: str) -> Callable[[Builder], Builder]:
    def known(build: Builder) -> Builder:
        GRAPHS[name] = build
        return build

    return known


def _plain(name: str, kind: str, *weights: tuple[int, ...], **attributes: object) -> None:
    """An operator that reads x and constants of these shapes."""

    def build(net: Net) -> None:
        names = [net.constant(f"w{place}", shape) for place, shape in enumerate(weights)]
        net.node(kind, ["r", *names], "y", name="it", **attributes)

    GRAPHS[name] = build


_plain("Conv", "Conv", (8, 6, 3, 3), (8,))
_plain("Conv, 1×1", "Conv", (8, 6, 1, 1))
_plain("Conv, depthwise", "Conv", (6, 1, 3, 3), group=6)
_plain("Conv, groups", "Conv", (8, 3, 3, 3), group=2)
_plain("Conv, 1-D", "Conv", (8, 6, 3))
_plain("Conv, 3-D", "Conv", (8, 6, 3, 3, 3))
_plain("Conv, strides and dilations", "Conv", (8, 6, 3, 5), strides=[1, 2], dilations=[2, 1])


def _behind(name: str, make: Callable[[Net], None]) -> None:
    """A Conv whose kernel, (8, 6, 3, 3), the graph computes from what it stores."""

    def build(net: Net) -> None:
        make(net)
        net.node("Conv", "r w", "y", name="it")

    GRAPHS[f"Conv, weights behind {name}"] = build


def _by(kind: str, stored: np.ndarray | tuple[int, ...], *more: np.ndarray, **attributes: object):
    """What makes w of something stored, by one operator."""

    def make(net: Net) -> None:
        names = [net.constant(f"stored{place}", one) for place, one in enumerate([stored, *more])]
        net.node(kind, names, "w", **attributes)

    return make


def _weight_norm(net: Net) -> None:
    net.constant("v", (8, 6, 3, 3))
    net.constant("g", (8, 1, 1, 1))
    net.node("ReduceL2", "v", "length", axes=[1, 2, 3], keepdims=1)
    net.node("Div", "v length", "direction")
    net.node("Mul", "direction g", "w")


def _split(net: Net) -> None:
    net.constant("both", (8, 12, 3, 3))
    net.constant("parts", np.int64([6, 6]))
    net.node("Split", "both parts", ["w", "rest"], axis=1)


_behind("Identity", _by("Identity", (8, 6, 3, 3)))
_behind("Transpose", _by("Transpose", (3, 3, 6, 8), perm=[3, 2, 0, 1]))
_behind("Reshape", _by("Reshape", (8, 54), np.int64([8, 6, 3, 3])))
_behind("Cast", _by("Cast", np.ones((8, 6, 3, 3), np.float16), to=TensorProto.FLOAT))
_behind("Split", _split)
_behind("weight norm", _weight_norm)


@_graph("Conv, weights behind DequantizeLinear")
def _qdq(net: Net) -> None:
    net.constant("stored", net.rng.integers(-99, 99, (8, 6, 3, 3)).astype(np.int8))
    net.constant("scale", np.float32(0.01))
    net.constant("zero", np.int8(0))
    net.node("DequantizeLinear", "stored scale zero", "w")
    net.node("Conv", "r w", "y", name="it")


@_graph("Conv, weights behind Quant (QONNX)")
def _qonnx(net: Net) -> None:
    net.constant("stored", (8, 6, 3, 3))
    for name, value in (("scale", 0.05), ("zero", 0), ("bits", 4)):
        net.constant(name, np.float32(value))
    domain = "qonnx.custom_op.general"
    net.node("Quant", "stored scale zero bits", "w", domain=domain, signed=1, narrow=0)
    net.node("Conv", "r w", "y", name="it")


def _weights_as_input(net: Net) -> None:
    net.constant("to", np.int64([-1, 6, 3, 3]))
    net.constant("few", np.int64([0]))
    net.constant("many", np.int64([432]))
    net.constant("whole", np.int64([-1]))
    net.node("Reshape", "x whole", "flat")
    net.node("Slice", "flat few many", "slice")
    net.node("Reshape", "slice to", "w")
    net.node("Conv", "r w", "y", name="it")


GRAPHS["Conv, weights computed from the data"] = _weights_as_input
_plain("ConvTranspose", "ConvTranspose", (6, 8, 3, 3))


@_graph("DeformConv")
def _deform(net: Net) -> None:
    net.constant("w", (8, 6, 3, 3))
    net.constant("offset", (2, 18, 7, 8))
    net.node("DeformConv", "r w offset", "y", name="it", kernel_shape=[3, 3])


def _quantized(net: Net) -> str:
    """The scale and zero point of everything; x in whole numbers is q."""
    net.constant("scale", np.float32(0.02))
    net.constant("coarse", np.float32(0.4))
    net.constant("zero", np.uint8(128))
    net.node("QuantizeLinear", "r scale zero", "q")
    return "scale zero"


@_graph("QLinearConv")
def _qlinear(net: Net) -> None:
    both = _quantized(net)
    net.constant("w", net.rng.integers(0, 255, (8, 6, 3, 3)).astype(np.uint8))
    net.node("QLinearConv", f"q {both} w {both} coarse zero", "made", name="it")
    net.node("DequantizeLinear", "made coarse zero", "y")


@_graph("ConvInteger")
def _integer(net: Net) -> None:
    net.constant("w", net.rng.integers(0, 255, (8, 6, 3, 3)).astype(np.uint8))
    net.constant("zero", np.uint8(128))
    net.node("DynamicQuantizeLinear", "r", ["q", "s", "z"])
    net.node("ConvInteger", "q w z zero", "made", name="it")
    net.node("Cast", "made", "cast", to=TensorProto.FLOAT)
    net.node("Mul", "cast s", "y")


@_graph("FusedConv (ONNX Runtime)")
def _fused(net: Net) -> None:
    net.constant("w", (8, 6, 3, 3))
    net.node("FusedConv", "r w", "f", name="it", domain="com.microsoft", activation="Relu")
    net.constant("shape", np.int64([2, 8, 7, 8]))
    net.node("Reshape", "f shape", "y")


@_graph("Gemm")
def _gemm(net: Net) -> None:
    net.constant("w", (540, 8))
    net.node("Flatten", "r", "flat")
    net.node("Gemm", "flat w", "y", name="it")


_plain("MatMul", "MatMul", (10, 8))
_plain("PRelu", "PRelu", (6, 1, 1))


@_graph("BatchNormalization, alone")
def _norm(net: Net) -> None:
    net.norm("r", "y", 6)


_plain("InstanceNormalization", "InstanceNormalization", (6,), (6,))
_plain("LayerNormalization", "LayerNormalization", (10,), (10,))
for _kind, _gates in (("LSTM", 4), ("GRU", 3), ("RNN", 1)):

    def _recurrent(net: Net, kind: str = _kind, gates: int = _gates) -> None:
        net.constant("shape", np.int64([9, 2, 60]))
        net.node("Transpose", "r", "steps", perm=[2, 0, 1, 3])
        net.node("Reshape", "steps shape", "rows")
        net.constant("w", (1, gates * 8, 60))
        net.constant("again", (1, gates * 8, 8))
        net.node(kind, "rows w again", "y", name="it", hidden_size=8)

    GRAPHS[_kind] = _recurrent


@_graph("Gather (embedding)")
def _embedding(net: Net) -> None:
    net.constant("table", (12, 8))
    net.constant("top", np.float32(11))
    net.constant("bottom", np.float32(0))
    net.node("Clip", "r bottom top", "few")
    net.node("Cast", "few", "places", to=TensorProto.INT64)
    net.node("Gather", "table places", "y", name="it")


@_graph("Conv, in a branch with a constant condition")
def _branch(net: Net) -> None:
    _of_branch(net, "yes")
    net.constant("yes", np.array(True))


@_graph("Conv, in a branch that the data choose")
def _free_branch(net: Net) -> None:
    net.node("ReduceMax", "x", "top", keepdims=0)
    net.constant("none", np.float32(0))
    net.node("Greater", "top none", "chosen")
    _of_branch(net, "chosen")


def _of_branch(net: Net, condition: str) -> None:
    weights = numpy_helper.from_array(net.normal(6, 6, 3, 3), "w")

    def branch(kind: str) -> onnx.GraphProto:
        inputs, given = (["r", "w"], {"pads": [1] * 4}) if kind == "Conv" else (["r"], {})
        name = f"{kind}.out"
        node = helper.make_node(kind, inputs, [name], "it", **given)
        made = [helper.make_tensor_value_info(name, 1, [2, 6, 9, 10])]
        return helper.make_graph([node], kind, [], made, [weights] if kind == "Conv" else [])

    net.node("If", condition, "y", name="if", then_branch=branch("Conv"), else_branch=branch("Neg"))
