"""TensorFlow functions that Keras 3 has as operations, with the names of their arguments.

Each entry is a class of ``keras.src.ops``, its module, and how TensorFlow's arguments
become its own. An argument that is not listed, or a value that it does not take, leaves the call
untranslated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import or_
from typing import Any

from .graph import is_tensor
from .tree import Config


class Untranslatable(Exception):
    """A call that the operation would not compute the same for."""


@dataclass(frozen=True)
class Function:
    """A TensorFlow function as an operation of Keras.

    Attributes:
        module: Of `keras.src.ops`.
        operation: The class.
        takes: TensorFlow's keywords and the operation's settings, or ``y`` for the second tensor.
        tensors: How many tensors it is called on; 0 for a list of them.
        defaults: The operation's settings where TensorFlow's defaults are other ones.
        settle: Changes the settings, or raises `Untranslatable`.
    """

    module: str
    operation: str
    takes: dict[str, str] = field(default_factory=dict)
    tensors: int = 1
    defaults: Config = field(default_factory=dict)
    settle: Callable[[Config], Config] | None = None


def _numpy(operation: str, **takes: str) -> Function:
    return Function("numpy", operation, takes)


def _two(operation: str) -> Function:
    return Function("numpy", operation, {"y": "y"}, tensors=2)


def _reduction(operation: str, module: str = "numpy") -> Function:
    return Function(module, operation, {"axis": "axis", "keepdims": "keepdims"})


def _resize(settings: Config) -> Config:
    method = settings.pop("interpolation", "bilinear")
    if method not in ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5"):
        raise Untranslatable(f"the method {method}")
    if settings.pop("preserve_aspect_ratio", False):
        raise Untranslatable("preserve_aspect_ratio")
    return {**settings, "interpolation": method, "data_format": "channels_last"}


def _pad(settings: Config) -> Config:
    mode = str(settings.pop("mode", "CONSTANT")).lower()
    value = settings.pop("constant_values", 0) or 0
    if mode == "constant" and value != 0:
        raise Untranslatable("a constant other than 0")
    if mode not in ("constant", "reflect", "symmetric"):
        raise Untranslatable(f"the mode {mode}")
    return {**settings, "mode": mode}


def _channels_last(settings: Config) -> Config:
    if settings.pop("data_format", "NHWC") != "NHWC":
        raise Untranslatable("channels first")
    return {**settings, "data_format": "channels_last"}


def _gelu(settings: Config) -> Config:
    return {"approximate": bool(settings.get("approximate", False))}


def _split(settings: Config) -> Config:
    sections = settings.get("indices_or_sections")
    if isinstance(sections, list):  # sizes there, places to cut here
        places = [sum(sections[: i + 1]) for i in range(len(sections) - 1)]
        settings = {**settings, "indices_or_sections": places}
    return {"axis": 0, **settings}


FUNCTIONS: dict[str, Function] = {
    "abs": _numpy("Absolute"),
    "square": _numpy("Square"),
    "sqrt": _numpy("Sqrt"),
    "rsqrt": Function("math", "Rsqrt"),
    "exp": _numpy("Exp"),
    "expm1": _numpy("Expm1"),
    "log": _numpy("Log"),
    "log1p": _numpy("Log1p"),
    "sin": _numpy("Sin"),
    "cos": _numpy("Cos"),
    "tan": _numpy("Tan"),
    "sinh": _numpy("Sinh"),
    "cosh": _numpy("Cosh"),
    "asin": _numpy("Arcsin"),
    "acos": _numpy("Arccos"),
    "atan": _numpy("Arctan"),
    "floor": _numpy("Floor"),
    "ceil": _numpy("Ceil"),
    "round": _numpy("Round"),
    "sign": _numpy("Sign"),
    "erf": Function("math", "Erf"),
    "reciprocal": _numpy("Reciprocal"),
    "softplus": Function("nn", "Softplus"),
    "softsign": Function("nn", "Softsign"),
    "selu": Function("nn", "Selu"),
    "log_sigmoid": Function("nn", "LogSigmoid"),
    "log_softmax": Function("nn", "LogSoftmax", {"axis": "axis"}),
    "gelu": Function("nn", "Gelu", {"approximate": "approximate"}, settle=_gelu),
    "clip_by_value": _numpy("Clip", clip_value_min="x_min", clip_value_max="x_max"),
    "pow": _two("Power"),
    "maximum": _two("Maximum"),
    "minimum": _two("Minimum"),
    "truediv": _two("TrueDivide"),
    "divide": _two("Divide"),
    "divide_no_nan": _two("DivideNoNan"),
    "floordiv": _two("FloorDivide"),
    "floormod": _two("Mod"),
    "subtract": _two("Subtract"),
    "add": _two("Add"),
    "multiply": _two("Multiply"),
    "equal": _two("Equal"),
    "not_equal": _two("NotEqual"),
    "greater": _two("Greater"),
    "greater_equal": _two("GreaterEqual"),
    "less": _two("Less"),
    "less_equal": _two("LessEqual"),
    "logical_not": _numpy("LogicalNot"),
    "reduce_mean": _reduction("Mean"),
    "reduce_max": _reduction("Max"),
    "reduce_min": _reduction("Min"),
    "reduce_sum": _reduction("Sum"),
    "reduce_prod": _reduction("Prod"),
    "reduce_std": _reduction("Std"),
    "reduce_variance": _reduction("Var"),
    "reduce_logsumexp": _reduction("Logsumexp", "math"),
    "argmax": Function("numpy", "Argmax", {"axis": "axis"}, defaults={"axis": 0}),
    "argmin": Function("numpy", "Argmin", {"axis": "axis"}, defaults={"axis": 0}),
    "cumsum": Function("numpy", "Cumsum", {"axis": "axis"}, defaults={"axis": 0}),
    "expand_dims": _numpy("ExpandDims", axis="axis"),
    "squeeze": _numpy("Squeeze", axis="axis"),
    "transpose": _numpy("Transpose", perm="axes"),
    "compat.v1.transpose": _numpy("Transpose", perm="axes"),
    "tile": _numpy("Tile", multiples="repeats"),
    "repeat": _numpy("Repeat", repeats="repeats", axis="axis"),
    "reverse": _numpy("Flip", axis="axis"),
    "roll": _numpy("Roll", shift="shift", axis="axis"),
    "stack": Function("numpy", "Stack", {"axis": "axis"}, tensors=0),
    "split": Function(
        "numpy", "Split", {"num_or_size_splits": "indices_or_sections", "axis": "axis"},
        settle=_split,
    ),
    "unstack": Function("core", "Unstack", {"num": "num", "axis": "axis"}, defaults={"axis": 0}),
    "pad": Function(
        "numpy", "Pad",
        {"paddings": "pad_width", "mode": "mode", "constant_values": "constant_values"},
        settle=_pad,
    ),
    "linalg.matmul": Function("numpy", "Matmul", {"b": "y"}, tensors=2),
    "matmul": Function("numpy", "Matmul", {"b": "y"}, tensors=2),
    "depth_to_space": Function(
        "nn", "DepthToSpace", {"block_size": "block_size", "data_format": "data_format"},
        settle=_channels_last,
    ),
    "space_to_depth": Function(
        "nn", "SpaceToDepth", {"block_size": "block_size", "data_format": "data_format"},
        settle=_channels_last,
    ),
    "image.resize": Function(
        "image", "Resize",
        {
            "size": "size", "method": "interpolation", "antialias": "antialias",
            "preserve_aspect_ratio": "preserve_aspect_ratio",
        },
        settle=_resize,
    ),
    "stop_gradient": Function("core", "StopGradient"),
}  # fmt: skip
"""By TensorFlow's name without ``math.`` and ``nn.``."""


def operation(name: str, operands: list[Any], keywords: Config) -> tuple[Config, list[Any]] | None:
    """Translate one call.

    Args:
        name: The function, without ``math.`` and ``nn.``.
        operands: References to tensors, and numbers.
        keywords: Its keyword arguments, without those that are None.

    Returns:
        The operation's class, module and configuration, and what it is called on; None where
        Keras has no equal.
    """
    function = FUNCTIONS.get(name)
    if function is None:
        return None
    settings, called = dict(function.defaults), list(operands)
    for key, value in keywords.items():
        place = function.takes.get(key)
        if place is None and value is not False:  # what is off is off by default
            return None
        if place == "y" and function.tensors == 2:
            called.append(value)
        elif is_tensor(value):
            return None
        elif place is not None:
            settings[place] = value
    if not _callable_on(called, function.tensors):
        return None
    try:
        settings = function.settle(settings) if function.settle else settings
    except Untranslatable:
        return None
    item = {
        "module": f"keras.src.ops.{function.module}",
        "class_name": function.operation,
        "registered_name": function.operation,
        "config": settings,
    }
    return item, called


def _callable_on(operands: list[Any], tensors: int) -> bool:
    numbers = [isinstance(x, int | float) and not isinstance(x, bool) for x in operands]
    references = [is_tensor(x) for x in operands]
    if tensors == 2:
        return len(operands) == 2 and any(references) and all(map(or_, numbers, references))
    return all(references) and (tensors == 0 or len(operands) == tensors)
