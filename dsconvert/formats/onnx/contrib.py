"""Operators that ONNX Runtime knows and ONNX does not, spelled out in ONNX's own.

They are those of its own domain that its optimiser writes, and ONNX's experimental ones of before
opset 7, which ONNX dropped. The quantizer does not know the types of their results, onnx cannot
convert them to another opset, and the import does not know them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from dsconvert.base.predictor import Array

from .graph import OnnxGraph
from .half import HALF
from .node_writer import NodeWriter, rewritten
from .shapes import shape_of
from .tensors import DOMAINS
from .types import runtime_types

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_DOMAIN = "com.microsoft"
BLOCKED = "com.microsoft.nchwc"
"""The domain of operators on channels in blocks, as wide as one processor's registers."""
FROM_BEFORE = (
    "give the file from before ONNX Runtime optimised it, or one that it optimised at "
    "ORT_ENABLE_EXTENDED"
)
"""What to do about a file with such operators."""
_CAST_LIKE = 15
"""The opset from which a number can be given the type of another value."""
_AXES_GIVEN = 18
"""That from which on the axes of a mean are an input."""
_BOUNDS_GIVEN = 11
"""That from which on the bounds of a Clip are inputs."""
_LAYER_NORM = 17
"""That from which on there is a LayerNormalization."""
_GROUP_NORM = 21
"""That from which on GroupNormalization is what it is; ONNX's checker refuses that of before."""
_NEVER = 1000
_END = np.iinfo(np.int64).max
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Relu": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
"""Of FusedConv, with the names of its ``activation_params``."""


class _Speller(NodeWriter):
    """Writes nodes in place of one, the last of which gives its result.

    Args:
        node: The one.
        taken: The names in the graph.
        opset: Of the graph.
        half: Whether the graph computes in float16; numbers get the type of what they are combined
            with then.
        ranks: Finds the number of axes of each value that has a known one.
    """

    def __init__(
        self,
        node: NodeProto,
        taken: set[str],
        *,
        opset: int,
        half: bool,
        ranks: Callable[[], Mapping[str, int]],
    ) -> None:
        super().__init__(node, taken)
        self.opset, self._half, self._ranks = opset, half, ranks

    def input(self, place: int) -> str:
        """Return the name of an input; empty for one that is left out."""
        return self.node.input[place] if len(self.node.input) > place else ""

    def rank(self, name: str) -> int | None:
        """Return how many axes a value has; None where it is not known."""
        return self._ranks().get(name)

    def mean(self, x: str) -> str:
        """Add a mean over the last axis, which stays."""
        if self.opset < _AXES_GIVEN:
            return self.make("ReduceMean", x, axes=[-1], keepdims=1)
        return self.make("ReduceMean", x, self.constant([-1], np.int64), keepdims=1)

    def number(self, value: float | Array) -> str:
        """Return the name of a constant of the values' type."""
        if not self._half:
            return self.constant(value, np.float32)
        if self.opset < _CAST_LIKE:
            return self.constant(value, np.float16)
        return self.make("CastLike", self.constant(value, np.float32), self.node.input[0])


def _gelu(to: _Speller, x: str) -> str:
    erf = to.make("Erf", to.make("Mul", x, to.number(math.sqrt(0.5))))
    return to.make("Mul", to.make("Mul", x, to.number(0.5)), to.make("Add", erf, to.number(1.0)))


def _fast_gelu(to: _Speller, x: str) -> str:
    cube = to.make("Mul", to.make("Mul", x, x), x)
    inner = to.make("Add", x, to.make("Mul", cube, to.number(0.044715)))
    tanh = to.make("Tanh", to.make("Mul", inner, to.number(math.sqrt(2 / math.pi))))
    return to.make("Mul", to.make("Mul", x, to.number(0.5)), to.make("Add", tanh, to.number(1.0)))


def _quick_gelu(to: _Speller) -> str:
    x = to.node.input[0]
    scaled = to.make("Mul", x, to.number(to.given.get("alpha", 1.702)))
    return to.make("Mul", x, to.make("Sigmoid", scaled))


def _biased(to: _Speller) -> str:
    inputs = [name for name in to.node.input if name]
    return to.make("Add", *inputs) if len(inputs) == 2 else inputs[0]


def _fused_conv(to: _Speller) -> str | None:
    kind, values = to.given.get("activation", ""), to.given.get("activation_params", ())
    if kind not in _ACTIVATIONS or len(values) != len(_ACTIVATIONS[kind]):
        return None
    own = {k: v for k, v in to.given.items() if not k.startswith("activation")}
    conv = to.make("Conv", *to.node.input[:3], **own)
    to.nodes[-1].name = to.node.name or conv
    if to.input(3):
        conv = to.make("Add", conv, to.input(3))
    if kind == "Clip" and to.opset >= _BOUNDS_GIVEN:
        return to.make(kind, conv, *map(to.number, values))
    return to.make(kind, conv, **dict(zip(_ACTIVATIONS[kind], values, strict=True)))


def _alone(to: _Speller) -> bool:
    """Tell whether nobody asks for the statistics that a norm gives beside its result."""
    return not any(to.node.output[1:3])


def _normalized(to: _Speller, x: str, scale: str, shift: str, *, centred: bool) -> str:
    """Divide by the root of the mean square over the last axis, of what the mean is taken off."""
    own = {"axis": -1, "epsilon": to.given.get("epsilon", 1e-5)}
    if centred and to.opset >= _LAYER_NORM:
        return to.make("LayerNormalization", x, scale, *([shift] if shift else ()), **own)
    if centred:
        x = to.make("Sub", x, to.mean(x))
    square = to.mean(to.make("Mul", x, x))
    root = to.make("Sqrt", to.make("Add", square, to.number(own["epsilon"])))
    scaled = to.make("Mul", to.make("Div", x, root), scale)
    return to.make("Add", scaled, shift) if shift else scaled


def _layer_norm(to: _Speller, *, centred: bool = True) -> str | None:
    if to.given.get("axis", -1) != -1 or not _alone(to):
        return None
    x, scale, shift = to.input(0), to.input(1), to.input(2) if centred else ""
    return _normalized(to, x, scale, shift, centred=centred)


def _group_norm(to: _Speller) -> str:
    """Write opset 18's norm, whose scale and shift are one number for each group."""
    x, groups = to.input(0), int(to.given["num_groups"])
    shape = to.make("Shape", x)
    apart = to.make("Reshape", x, to.constant([0, groups, -1], np.int64))
    own = {"epsilon": to.given.get("epsilon", 1e-5)}
    normal = to.make("InstanceNormalization", apart, to.input(1), to.input(2), **own)
    return to.make("Reshape", normal, shape)


def _skipped(to: _Speller, *, centred: bool = True) -> str | None:
    """Write the norm of a sum, which may be a result, too."""
    if not _alone(to):
        return None
    shift, bias = (to.input(3), to.input(4)) if centred else ("", to.input(3))
    x = to.make("Add", to.input(0), to.input(1))
    if bias:
        x = to.make("Add", x, bias)
    if len(to.node.output) > 3 and to.node.output[3]:
        x = to.nodes[-1].output[0] = to.node.output[3]
    return _normalized(to, x, to.input(2), shift, centred=centred)


def _fused_gemm(to: _Speller) -> str | None:
    kind = to.given.get("activation", "")
    if kind not in _ACTIVATIONS:
        return None
    own = {k: v for k, v in to.given.items() if not k.startswith("activation")}
    values = {k: to.given.get(f"activation_{k}") for k in _ACTIVATIONS[kind]}
    gemm = to.make("Gemm", *to.node.input, **own)
    return to.make(kind, gemm, **{k: v for k, v in values.items() if v is not None})


def _fused_matmul(to: _Speller) -> str | None:
    """Write a product of matrices that may be turned: the last two axes of values of three or four.

    Where the batch is turned too, and where a rank is not known, the operator stays.
    """
    if to.given.get("transBatchA") or to.given.get("transBatchB"):
        return None
    sides = []
    for name, turned in zip(to.node.input, ("transA", "transB"), strict=True):
        rank = to.rank(name) if to.given.get(turned) else 0
        if rank is None or rank == 1:
            return None
        order = [*range(rank - 2), rank - 1, rank - 2]
        sides.append(to.make("Transpose", name, perm=order) if rank else name)
    product = to.make("MatMul", *sides)
    return to.make("Mul", product, to.number(to.given.get("alpha", 1.0)))


def _image_scaler(to: _Speller) -> str:
    """Write scale·x + bias, a bias for each channel of (n, C, H, W)."""
    bias = np.reshape(np.asarray(to.given["bias"], np.float32), (-1, 1, 1))
    scaled = to.make("Mul", to.node.input[0], to.number(to.given.get("scale", 1.0)))
    return to.make("Add", scaled, to.number(bias))


def _affine(to: _Speller) -> str:
    scaled = to.make("Mul", to.node.input[0], to.number(to.given.get("alpha", 1.0)))
    return to.make("Add", scaled, to.number(to.given.get("beta", 0.0)))


def _scale(to: _Speller) -> str:
    return to.make("Mul", to.node.input[0], to.number(to.given.get("scale", 1.0)))


def _crop(to: _Speller) -> str:
    """Cut off a border (left, top, right, bottom), or take a part of a given size."""
    left, top, right, bottom = to.given["border"]
    starts, ends = [top, left], [-bottom or _END, -right or _END]
    if to.given.get("scale"):
        ends = [start + size for start, size in zip(starts, to.given["scale"], strict=True)]
    return to.make("Slice", to.node.input[0], starts=starts, ends=ends, axes=[2, 3])


def _scaled_tanh(to: _Speller) -> str:
    inner = to.make("Mul", to.node.input[0], to.number(to.given.get("beta", 1.0)))
    return to.make("Mul", to.make("Tanh", inner), to.number(to.given.get("alpha", 1.0)))


def _parametric_softplus(to: _Speller) -> str:
    inner = to.make("Mul", to.node.input[0], to.number(to.given.get("beta", 1.0)))
    return to.make("Mul", to.make("Softplus", inner), to.number(to.given.get("alpha", 1.0)))


_EXPERIMENTAL: dict[str, Callable[[_Speller], str | None]] = {
    "ImageScaler": _image_scaler,
    "Affine": _affine,
    "Scale": _scale,
    "Crop": _crop,
    "ScaledTanh": _scaled_tanh,
    "ParametricSoftplus": _parametric_softplus,
}
"""Of ONNX's domain up to opset 9, where ONNX Runtime knows them."""
_SPELLED: dict[str, Callable[[_Speller], str | None]] = {
    "Gelu": lambda to: _gelu(to, to.node.input[0]),
    "BiasGelu": lambda to: _gelu(to, _biased(to)),
    "FastGelu": lambda to: _fast_gelu(to, _biased(to)),
    "QuickGelu": _quick_gelu,
    "FusedConv": _fused_conv,
    "FusedGemm": _fused_gemm,
    "FusedMatMul": _fused_matmul,
    "SkipLayerNormalization": _skipped,
    "SkipSimplifiedLayerNormalization": partial(_skipped, centred=False),
}
_UNDEFINED: dict[str, tuple[int, Callable[[_Speller], str | None]]] = {
    "LayerNormalization": (_LAYER_NORM, _layer_norm),
    "GroupNormalization": (_GROUP_NORM, _group_norm),
    "SimplifiedLayerNormalization": (_NEVER, partial(_layer_norm, centred=False)),
}
"""What ONNX Runtime runs under ONNX's own name where ONNX does not define it: from which opset on
it does."""


def _speller_of(node: NodeProto) -> Callable[[_Speller], str | None] | None:
    if node.domain == _DOMAIN:
        return _SPELLED.get(node.op_type)
    return _EXPERIMENTAL.get(node.op_type) if node.domain in DOMAINS else None


def spelled_out(model: ModelProto) -> ModelProto:
    """Replace operators that are not ONNX's own in the main graph by those that they stand for.

    Args:
        model: The model; it is not changed.

    Returns:
        A new model; the given one where nothing is to be replaced.
    """
    return _spelled(model, _speller_of)


def define_operators(model: ModelProto) -> bool:
    """Spell out what ONNX Runtime's optimiser writes and ONNX does not define in that opset.

    Args:
        model: The model, whose main graph is changed.

    Returns:
        Whether there was any.
    """
    opset = OnnxGraph(model).opset

    def undefined(node: NodeProto) -> Callable[[_Speller], str | None] | None:
        since, spell = _UNDEFINED.get(node.op_type, (0, None))
        return spell if opset < since and node.domain in DOMAINS else None

    return _replace(model, undefined)


def part_fused(model: ModelProto) -> bool:
    """Part the convolutions that ONNX Runtime's optimiser fused with what follows them.

    Only a convolution of ONNX's own can be rewritten; ONNX Runtime fuses it again when it runs it.

    Args:
        model: The model, whose main graph is changed.

    Returns:
        Whether there was any.
    """

    def fused(node: NodeProto) -> Callable[[_Speller], str | None] | None:
        is_fused = node.domain == _DOMAIN and node.op_type == "FusedConv"
        return _fused_conv if is_fused else None

    return _replace(model, fused)


def _replace(
    model: ModelProto, speller: Callable[[NodeProto], Callable[[_Speller], str | None] | None]
) -> bool:
    """Spell out nodes of a model in place; whether there were any that it could."""
    spelled = _spelled(model, speller)
    if spelled is model:
        return False
    changed = len(spelled.graph.node) != len(model.graph.node)
    model.graph.CopyFrom(spelled.graph)
    return changed


def _spelled(
    model: ModelProto, speller: Callable[[NodeProto], Callable[[_Speller], str | None] | None]
) -> ModelProto:
    half = any(one.data_type in HALF for one in model.graph.initializer)
    graph = OnnxGraph(model)

    @cache
    def ranks() -> dict[str, int]:
        found = runtime_types(model, None, graph.makers.keys())
        shapes = {one.name: shape_of(one) for one in (*found.values(), *graph.inputs)}
        stored = {name: len(one.dims) for name, one in graph.initializers.items()}
        return stored | {name: len(shape) for name, shape in shapes.items() if shape is not None}

    return rewritten(
        model,
        speller,
        lambda node, taken: _Speller(node, taken, opset=graph.opset, half=half, ranks=ranks),
    )
