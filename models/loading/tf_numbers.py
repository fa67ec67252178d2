"""Functions of TensorFlow called on numbers, where all that they take is known."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array

from .tree import Config

MOST = 10_000_000
"""Numbers that one call may make."""
_MAKERS = ("range", "zeros", "ones", "fill", "tile", "broadcast_to", "linspace", "eye", "one_hot")
_COMPUTED = frozenset({
    *_MAKERS, "stack", "unstack", "concat", "split", "cast", "reshape", "expand_dims", "squeeze",
    "transpose", "meshgrid", "identity", "reverse", "gather", "convert_to_tensor", "cumsum",
    "add", "subtract", "multiply", "divide", "truediv", "floordiv", "floor_div", "floormod", "mod",
    "pow", "sqrt", "rsqrt", "exp", "log", "sin", "cos", "abs", "negative", "square", "maximum",
    "minimum", "floor", "ceil", "round", "reduce_prod", "reduce_sum", "reduce_max", "reduce_min",
    "equal", "less", "greater", "less_equal", "greater_equal", "where", "constant",
    "logical_and", "logical_or", "logical_not",
})  # fmt: skip
"""Functions that are computed where all that they take is known."""


def by_tensorflow(name: str, path: str, first: Any, keywords: Config) -> list[Array] | None:
    """Call a function of TensorFlow on numbers."""
    if name not in _COMPUTED or not _affordable(name, first, keywords):
        return None
    import tensorflow as tf

    function: Any = tf
    try:
        for part in path.removeprefix("__operators__.").split("."):
            function = getattr(function, part)
        if name == "meshgrid":
            return None  # its first operand alone is recorded
        given = {k: v for k, v in keywords.items() if v is not None}
        with tf.device("CPU"):
            result = function(first, **given)
    except Exception:  # whatever it refuses stays as it is, and is refused by its name
        return None
    return [np.asarray(one) for one in (result if isinstance(result, list) else [result])]


def _affordable(name: str, first: Any, keywords: Config) -> bool:
    """Tell whether what a function makes of numbers cannot be too large."""
    given = [list(_numbers(first)), *(list(_numbers(value)) for value in keywords.values())]
    size = 1 if name in ("stack", "concat") else prod(max(len(one), 1) for one in given)
    if name in _MAKERS:
        few = [value for one in given if len(one) < 16 for value in one]
        size *= prod(max(1, abs(int(value))) for value in few if np.isfinite(value))
    return size <= MOST


def _numbers(value: Any) -> Iterator[Any]:
    """Yield the numbers of lists and arrays."""
    if isinstance(value, list):
        for one in value:
            yield from _numbers(one)
    elif not isinstance(value, str) and value is not None:
        yield from np.asarray(value).reshape(-1)


def index_of(spec: Any) -> Any:
    """Return an index of NumPy."""

    def one(key: Any) -> Any:
        if not isinstance(key, dict):
            return key if key is None else int(key)
        if key.get("class_name") == "__ellipsis__":
            return Ellipsis
        ends = (key.get(name) for name in ("start", "stop", "step"))
        return slice(*(None if end is None else int(end) for end in ends))

    return tuple(map(one, spec)) if isinstance(spec, list) else one(spec)
