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

from . import tf_settings
from .graph import is_tensor
from .tree import Config


@dataclass(frozen=True)
class Function:
    """A TensorFlow function as an operation of Keras.

    Attributes:
        module: Of `keras.src.ops`.
        operation: The class.
        takes: TensorFlow's keywords and the operation's settings, or ``y`` for the second tensor.
        tensors: How many tensors it is called on; 0 for a list of them.
        ignored: Keywords that change nothing in what is computed here.
        defaults: The operation's settings where TensorFlow's defaults are other ones.
        settle: Changes the settings, or raises `tf_settings.Untranslatable`.
        called: Of the settings, those that the operation takes where it is called.
    """

    module: str
    operation: str
    takes: dict[str, str] = field(default_factory=dict)
    tensors: int = 1
    defaults: Config = field(default_factory=dict)
    settle: Callable[[Config], Config] | None = None
    ignored: tuple[str, ...] = ()
    called: tuple[str, ...] = ()


def _numpy(operation: str, **takes: str) -> Function:
    return Function("numpy", operation, takes)


def _two(operation: str) -> Function:
    return Function("numpy", operation, {"y": "y"}, tensors=2)


def _reduction(operation: str, module: str = "numpy") -> Function:
    return Function(module, operation, {"axis": "axis", "keepdims": "keepdims"})


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
    "asinh": _numpy("Arcsinh"),
    "acosh": _numpy("Arccosh"),
    "atanh": _numpy("Arctanh"),
    "rint": _numpy("Round"),
    "is_finite": _numpy("Isfinite"),
    "is_inf": _numpy("Isinf"),
    "is_nan": _numpy("Isnan"),
    "erf": Function("math", "Erf"),
    "erfinv": Function("math", "Erfinv"),
    "reciprocal": _numpy("Reciprocal"),
    "softplus": Function("nn", "Softplus"),
    "softsign": Function("nn", "Softsign"),
    "selu": Function("nn", "Selu"),
    "log_sigmoid": Function("nn", "LogSigmoid"),
    "log_softmax": Function("nn", "LogSoftmax", {"axis": "axis"}),
    "gelu": Function("nn", "Gelu", {"approximate": "approximate"}, settle=tf_settings.gelu),
    "clip_by_value": _numpy("Clip", clip_value_min="x_min", clip_value_max="x_max"),
    "pow": _two("Power"),
    "maximum": _two("Maximum"),
    "minimum": _two("Minimum"),
    "truediv": _two("TrueDivide"),
    "atan2": Function("numpy", "Arctan2", {"x": "y"}, tensors=2),
    "floor_div": _two("FloorDivide"),
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
    "argmax": Function(
        "numpy", "Argmax", {"axis": "axis"}, defaults={"axis": 0}, ignored=("output_type",)
    ),
    "argmin": Function(
        "numpy", "Argmin", {"axis": "axis"}, defaults={"axis": 0}, ignored=("output_type",)
    ),
    "logical_and": _two("LogicalAnd"),
    "logical_or": _two("LogicalOr"),
    "logical_xor": _two("LogicalXor"),
    "reduce_any": _reduction("Any"),
    "reduce_all": _reduction("All"),
    "reduce_euclidean_norm": Function(
        "linalg", "Norm", {"axis": "axis", "keepdims": "keepdims"}, settle=tf_settings.norm
    ),
    "norm": Function(
        "linalg", "Norm", {"ord": "ord", "axis": "axis", "keepdims": "keepdims"},
        settle=tf_settings.norm,
    ),
    "where": Function("numpy", "Where", {"x": "y", "y": "y"}, tensors=3),
    "gather": Function(
        "numpy", "Take", {"indices": "y", "axis": "axis"}, tensors=2, defaults={"axis": 0}
    ),
    "cast": Function("core", "Cast", {"dtype": "dtype"}),
    "zeros_like": _numpy("ZerosLike"),
    "ones_like": _numpy("OnesLike"),
    "one_hot": Function("nn", "OneHot", {"depth": "num_classes", "axis": "axis"}),
    "broadcast_to": _numpy("BroadcastTo", shape="shape"),
    "sort": Function("numpy", "Sort", {"axis": "axis"}),
    "argsort": Function("numpy", "Argsort", {"axis": "axis"}, ignored=("stable",)),
    "linalg.matrix_transpose": Function("numpy", "Swapaxes", defaults={"axis1": -1, "axis2": -2}),
    "experimental.numpy.tril": _numpy("Tril", k="k"),
    "experimental.numpy.triu": _numpy("Triu", k="k"),
    "linalg.diag_part": Function("numpy", "Diagonal", defaults={"axis1": -2, "axis2": -1}),
    "linalg.trace": Function("numpy", "Trace", defaults={"axis1": -2, "axis2": -1}),
    "linalg.cross": Function("numpy", "Cross", {"b": "y"}, tensors=2),
    "linalg.det": Function("linalg", "Det"),
    "linalg.inv": Function("linalg", "Inv"),
    "linalg.cholesky": Function("linalg", "Cholesky"),
    "cumprod": Function("numpy", "Cumprod", {"axis": "axis"}, defaults={"axis": 0}),
    "top_k": Function("math", "TopK", {"k": "k", "sorted": "sorted"}, defaults={"k": 1}),
    "tensordot": Function("numpy", "Tensordot", {"b": "y", "axes": "axes"}, tensors=2),
    "conv2d": Function(
        "nn", "Conv",
        {
            "filter": "y", "filters": "y", "strides": "strides", "padding": "padding",
            "dilations": "dilation_rate", "data_format": "data_format",
        },
        tensors=2, settle=tf_settings.conv, ignored=("use_cudnn_on_gpu",),
    ),
    "conv1d": Function(
        "nn", "Conv",
        {
            "filters": "y", "stride": "strides", "padding": "padding",
            "dilations": "dilation_rate", "data_format": "data_format",
        },
        tensors=2, settle=tf_settings.conv1d, ignored=("use_cudnn_on_gpu",),
    ),
    "conv3d": Function(
        "nn", "Conv",
        {
            "filter": "y", "filters": "y", "strides": "strides", "padding": "padding",
            "dilations": "dilation_rate", "data_format": "data_format",
        },
        tensors=2, settle=tf_settings.conv3d,
    ),
    "depthwise_conv2d": Function(
        "nn", "DepthwiseConv",
        {
            "filter": "y", "strides": "strides", "padding": "padding",
            "dilations": "dilation_rate", "rate": "dilation_rate", "data_format": "data_format",
        },
        tensors=2, settle=tf_settings.depthwise,
    ),
    "image.flip_left_right": Function("numpy", "Flip", defaults={"axis": -2}),
    "image.flip_up_down": Function("numpy", "Flip", defaults={"axis": -3}),
    "image.transpose": Function("numpy", "Transpose", defaults={"axes": [0, 2, 1, 3]}),
    "image.rot90": Function("numpy", "Rot90", {"k": "k"}, defaults={"axes": [1, 2]}),
    "image.grayscale_to_rgb": Function("numpy", "Repeat", defaults={"repeats": 3, "axis": -1}),
    "image.rgb_to_hsv": Function("image", "RGBToHSV"),
    "image.hsv_to_rgb": Function("image", "HSVToRGB"),
    "image.extract_patches": Function(
        "image", "ExtractPatches",
        {
            "sizes": "size", "strides": "strides", "rates": "dilation_rate", "padding": "padding",
        },
        settle=tf_settings.patches,
    ),
    "image.rgb_to_grayscale": Function("image", "RGBToGrayscale"),
    "image.pad_to_bounding_box": Function(
        "image", "PadImages",
        {
            "offset_height": "top_padding", "offset_width": "left_padding",
            "target_height": "target_height", "target_width": "target_width",
        },
    ),
    "cumsum": Function("numpy", "Cumsum", {"axis": "axis"}, defaults={"axis": 0}),
    "reshape": Function("numpy", "Reshape", {"shape": "newshape"}, settle=tf_settings.reshape),
    "expand_dims": _numpy("ExpandDims", axis="axis"),
    "squeeze": _numpy("Squeeze", axis="axis"),
    "transpose": _numpy("Transpose", perm="axes"),
    "tile": _numpy("Tile", multiples="repeats"),
    "repeat": _numpy("Repeat", repeats="repeats", axis="axis"),
    "reverse": _numpy("Flip", axis="axis"),
    "roll": _numpy("Roll", shift="shift", axis="axis"),
    "stack": Function("numpy", "Stack", {"axis": "axis"}, tensors=0),
    "split": Function(
        "numpy", "Split", {"num_or_size_splits": "indices_or_sections", "axis": "axis"},
        settle=tf_settings.split,
    ),
    "unstack": Function("core", "Unstack", {"num": "num", "axis": "axis"}, defaults={"axis": 0}),
    "pad": Function(
        "numpy", "Pad",
        {"paddings": "pad_width", "mode": "mode", "constant_values": "constant_values"},
        settle=tf_settings.pad, called=("constant_values",),
    ),
    "linalg.matmul": Function("numpy", "Matmul", {"b": "y"}, tensors=2),
    "matmul": Function("numpy", "Matmul", {"b": "y"}, tensors=2),
    "depth_to_space": Function(
        "nn", "DepthToSpace", {"block_size": "block_size", "data_format": "data_format"},
        settle=tf_settings.channels_last,
    ),
    "space_to_depth": Function(
        "nn", "SpaceToDepth", {"block_size": "block_size", "data_format": "data_format"},
        settle=tf_settings.channels_last,
    ),
    "image.resize": Function(
        "image", "Resize",
        {
            "size": "size", "method": "interpolation", "antialias": "antialias",
            "preserve_aspect_ratio": "preserve_aspect_ratio",
        },
        settle=tf_settings.resize,
    ),
    "stop_gradient": Function("core", "StopGradient"),
}  # fmt: skip
"""By TensorFlow's name without ``compat.v1.``, ``math.`` and ``nn.``."""
_OFF_AT_ZERO = ("batch_dims",)
"""Keywords of numbers whose 0, the default, changes nothing."""


def operation(
    name: str, operands: list[Any], keywords: Config
) -> tuple[Config, list[Any], Config] | None:
    """Translate one call.

    Args:
        name: The function, without ``math.`` and ``nn.``.
        operands: References to tensors, numbers, and lists of numbers for constant tensors.
        keywords: Its keyword arguments, without those that are None.

    Returns:
        The operation's class, module and configuration, what it is called on, and its keywords;
        None where Keras has no equal.
    """
    function = FUNCTIONS.get(name)
    if function is None:
        return None
    settings, called = dict(function.defaults), list(operands)
    order = [*function.takes]  # of operands, in whatever order a call has named them
    for key in sorted(keywords, key=lambda key: order.index(key) if key in order else -1):
        place, value = function.takes.get(key), keywords[key]
        if key in function.ignored or (key in _OFF_AT_ZERO and value == 0):
            continue
        if place is None and value is not False:  # what is off is off by default
            return None
        if place == "y" and function.tensors > 1:
            called.append(value)
        elif is_tensor(value):
            return None
        elif place is not None:
            settings[place] = value
    if not _callable_on(called, function.tensors):
        return None
    try:
        settings = function.settle(settings) if function.settle else settings
    except tf_settings.Untranslatable:
        return None
    if name == "add" and isinstance(called[1], list) and not is_tensor(called[1]):
        called.reverse()  # Keras' add takes an array of one long axis behind for a bias of channels
    given = {key: settings.pop(key) for key in function.called if key in settings}
    item = {
        "module": f"keras.src.ops.{function.module}",
        "class_name": function.operation,
        "registered_name": function.operation,
        "config": settings,
    }
    return item, called, given


def _callable_on(operands: list[Any], tensors: int) -> bool:
    numbers = [is_constant(x) for x in operands]
    references = [is_tensor(x) for x in operands]
    if tensors > 1:
        return len(operands) == tensors and any(references) and all(map(or_, numbers, references))
    return all(references) and (tensors == 0 or len(operands) == tensors)


def is_constant(value: Any) -> bool:
    """Tell whether a value is a number, or a list of lists of numbers."""
    if isinstance(value, list):
        return bool(value) and all(map(is_constant, value))
    return isinstance(value, int | float) and not isinstance(value, bool)
