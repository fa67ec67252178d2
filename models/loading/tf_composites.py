"""TensorFlow functions that Keras has no single operation for, spelled out in ones that it has.

What is spelled out are calls of tf.keras 2 as its files record them; `tfops` reads the calls that
stand in their place.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .graph import is_tensor
from .tf_calls import recorded
from .tf_image_composites import IMAGE_SPELLINGS
from .tf_spelled import Ref, Spelled, Spelling, of_tensors
from .tree import Config, edit, name_of, with_config


def spelled_out(model: Config) -> tuple[Config, str | None]:
    """Spell out the functions of the table, wherever a model calls them."""
    told: list[str] = []

    def change(item: Config) -> Config | None:
        layers = item["config"].get("layers")
        if not isinstance(layers, list):
            return None
        made = [_layers_for(layer) for layer in layers]
        pairs = list(zip(layers, made, strict=True))
        if all(one == [layer] for layer, one in pairs):
            return None
        told.extend(
            f"{layer['config']['function']} ({name_of(layer)})"
            for layer, one in pairs
            if one != [layer]
        )
        return with_config(item, layers=[layer for one in made for layer in one])

    model, _ = edit(model, change)
    return model, f"spelled out {', '.join(told)}" if told else None


def _layers_for(layer: Any) -> list[Any]:
    """Return what stands in the place of one layer: itself, or several."""
    if not isinstance(layer, dict) or layer.get("class_name") != "TFOpLambda":
        return [layer]
    function, values, keywords = recorded(layer) or ("", [], {})
    spelling, chain = _SPELLINGS.get(function), Spelled(name_of(layer))
    if spelling is None or len(values) != 1 or not spelling(chain, values[0], keywords):
        return [layer]
    return chain.layers()


@of_tensors()
def _squared_difference(do: Spelled, x: Ref, keywords: Config) -> bool:
    do("math.square", do("math.subtract", x, y=keywords["y"]))
    return True


@of_tensors()
def _crelu(do: Spelled, x: Ref, keywords: Config) -> bool:
    both = do("nn.relu", x), do("nn.relu", do("math.negative", x))
    do("concat", *both, axis=keywords.get("axis", -1))
    return True


@of_tensors()
def _response(do: Spelled, x: Ref, keywords: Config) -> bool:
    """Divide by the energy of the neighbouring channels (AlexNet)."""
    radius = keywords.get("depth_radius", 5)
    pads = [[0, 0]] * 3 + [[radius, radius]]
    wide = do("pad", do("math.square", x), paddings=pads)
    last = 2 * radius
    parts = [do.part(wide, i, i - last if i < last else None) for i in range(last + 1)]
    energy = do("math.add_n", *parts)
    scaled = do("math.multiply", energy, y=float(keywords.get("alpha", 1.0)))
    root = do("math.add", scaled, y=float(keywords.get("bias", 1.0)))
    power = do("math.pow", root, y=float(keywords.get("beta", 0.5)))
    do("math.truediv", x, y=power)
    return True


def _matmul(do: Spelled, x: Any, keywords: Config) -> bool:
    sides = {"a": x, "b": keywords.get("b")}
    for side in sides:
        if keywords.get(f"transpose_{side}") or keywords.get(f"adjoint_{side}"):
            value = sides[side]
            sides[side] = (
                do("linalg.matrix_transpose", value)
                if is_tensor(value)
                else np.swapaxes(np.asarray(value), -1, -2).tolist()
            )
    if sides == {"a": x, "b": keywords.get("b")} or not is_tensor(sides["a"]):
        return False
    do("linalg.matmul", sides["a"], b=sides["b"])
    return True


@of_tensors()
def _cumsum(do: Spelled, x: Ref, keywords: Config) -> bool:
    axis, backwards = keywords.get("axis", 0), bool(keywords.get("reverse"))
    if not backwards and not keywords.get("exclusive"):
        return False
    given = do("reverse", x, axis=[axis]) if backwards else x
    total = do("math.cumsum", given, axis=axis)
    if keywords.get("exclusive"):
        total = do("math.subtract", total, y=given)
    if backwards:
        do("reverse", total, axis=[axis])
    return True


@of_tensors("y")
def _multiply_no_nan(do: Spelled, x: Ref, keywords: Config) -> bool:
    _no_nan(do, "math.multiply", x, keywords["y"], keywords["y"])
    return True


@of_tensors("y")
def _xlogy(do: Spelled, x: Ref, keywords: Config) -> bool:
    _no_nan(do, "math.multiply", do("math.log", keywords["y"]), x, x)
    return True


@of_tensors("y")
def _xlog1py(do: Spelled, x: Ref, keywords: Config) -> bool:
    _no_nan(do, "math.multiply", do("math.log1p", keywords["y"]), x, x)
    return True


@of_tensors("y")
def _xdivy(do: Spelled, x: Ref, keywords: Config) -> bool:
    _no_nan(do, "math.truediv", x, keywords["y"], x)
    return True


def _no_nan(do: Spelled, function: str, x: Ref, y: Ref, zero: Ref) -> None:
    """Add what a function gives, and 0 where a tensor is 0."""
    none = do("math.equal", zero, y=0.0)
    do("where", none, x=0.0, y=do(function, x, y=y))


@of_tensors()
def _reciprocal_no_nan(do: Spelled, x: Ref, keywords: Config) -> bool:
    none = do("math.equal", x, y=0.0)
    do("where", none, x=0.0, y=do("math.reciprocal", x))
    return True


@of_tensors()
def _clip_by_norm(do: Spelled, x: Ref, keywords: Config) -> bool:
    axes, limit = keywords.get("axes"), keywords.get("clip_norm")
    if axes is None or not isinstance(limit, int | float):
        return False
    energy = do("math.reduce_sum", do("math.square", x), axis=axes, keepdims=True)
    norm = do("math.maximum", do("math.sqrt", energy), y=float(limit))
    do("math.truediv", do("math.multiply", x, y=float(limit)), y=norm)
    return True


@of_tensors()
def _erfc(do: Spelled, x: Ref, keywords: Config) -> bool:
    do("math.add", do("math.negative", do("math.erf", x)), y=1.0)
    return True


@of_tensors()
def _count_nonzero(do: Spelled, x: Ref, keywords: Config) -> bool:
    differ = do("cast", do("math.not_equal", x, y=0.0), dtype="int32")
    axes = {k: keywords[k] for k in ("axis", "keepdims") if k in keywords}
    do("math.reduce_sum", differ, **axes)
    return True


def _scaled(do: Spelled, factor: Any, keywords: Config) -> bool:
    if not is_tensor(keywords.get("x")):
        return False
    do("math.multiply", keywords["x"], y=factor)
    return True


def _looked_up(do: Spelled, table: Any, keywords: Config) -> bool:
    if keywords.get("max_norm") is not None or not is_tensor(keywords.get("ids")):
        return False
    do("gather", table, indices=keywords["ids"], axis=0)
    return True


@of_tensors()
def _separable(do: Spelled, x: Ref, keywords: Config) -> bool:
    shared = {k: keywords[k] for k in ("padding", "data_format") if k in keywords}
    steps = {k: keywords[k] for k in ("strides", "rate", "dilations") if k in keywords}
    deep = do("nn.depthwise_conv2d", x, filter=keywords["depthwise_filter"], **steps, **shared)
    do("nn.conv2d", deep, filters=keywords["pointwise_filter"], strides=1, **shared)
    return True


@of_tensors()
def _pooled(do: Spelled, x: Ref, keywords: Config) -> bool:
    window, kind = keywords.get("window_shape"), str(keywords.get("pooling_type")).lower()
    rank = len(window) if isinstance(window, list) else 0
    if rank not in (1, 2) or kind not in ("avg", "max") or set(_dilation(keywords)) != {1}:
        return False
    strides = keywords.get("strides") or [1] * rank
    padding = keywords.get("padding", "VALID")
    do(f"nn.{kind}_pool{rank}d", x, ksize=window, strides=strides, padding=padding)
    return True


def _dilation(keywords: Config) -> list[int]:
    found = keywords.get("dilation_rate") or keywords.get("dilations") or [1]
    return found if isinstance(found, list) else [found]


@of_tensors()
def _norm(do: Spelled, x: Ref, keywords: Config) -> bool:
    order, axis = keywords.get("ord", "euclidean"), keywords.get("axis")
    sizes = {k: keywords[k] for k in ("axis", "keepdims") if k in keywords}
    if order in ("euclidean", 2) and axis is None:
        do("math.sqrt", do("math.reduce_sum", do("math.square", x), **sizes))
    elif order == 1 and isinstance(axis, int):
        do("math.reduce_sum", do("math.abs", x), **sizes)
    elif order == math.inf and isinstance(axis, int):
        do("math.reduce_max", do("math.abs", x), **sizes)
    else:
        return False
    return True


@of_tensors()
def _unit(do: Spelled, x: Ref, keywords: Config) -> bool:
    axis, least = keywords.get("axis", keywords.get("dim")), keywords.get("epsilon", 1e-12)
    if (axis is not None and least == 1e-12 and "axis" in keywords) or is_tensor(least):
        return False  # a layer of its own
    over = {} if axis is None else {"axis": axis}
    energy = do("math.reduce_sum", do("math.square", x), keepdims=True, **over)
    do("math.multiply", x, y=do("math.rsqrt", do("math.maximum", energy, y=float(least))))
    return True


@of_tensors()
def _energy(do: Spelled, x: Ref, keywords: Config) -> bool:
    do("math.multiply", do("math.reduce_sum", do("math.square", x)), y=0.5)
    return True


@of_tensors()
def _swish(do: Spelled, x: Ref, keywords: Config) -> bool:
    beta = keywords.get("beta", 1.0)
    if beta == 1.0 or not isinstance(beta, int | float):
        return False
    do("math.multiply", x, y=do("math.sigmoid", do("math.multiply", x, y=float(beta))))
    return True


@of_tensors()
def _band(do: Spelled, x: Ref, keywords: Config) -> bool:
    lower, upper = keywords.get("num_lower"), keywords.get("num_upper")
    if not isinstance(lower, int) or not isinstance(upper, int):
        return False
    kept = x if upper < 0 else do("experimental.numpy.tril", x, k=upper)
    if lower >= 0:
        do("experimental.numpy.triu", kept, k=-lower)
    return lower >= 0 or upper >= 0


def _downwards(function: str) -> Spelling:
    """Return how to sort from the largest on."""

    @of_tensors()
    def spelled(do: Spelled, x: Ref, keywords: Config) -> bool:
        if keywords.get("direction") != "DESCENDING":
            return False
        kept = {k: keywords[k] for k in ("axis", "stable") if k in keywords}
        found = do(function, do("math.negative", x), **kept)
        if function == "sort":
            do("math.negative", found)
        return True

    return spelled


@of_tensors()
def _one_hot(do: Spelled, x: Ref, keywords: Config) -> bool:
    on, off = keywords.get("on_value", 1.0), keywords.get("off_value", 0.0)
    if (on, off) == (1.0, 0.0) or not all(isinstance(one, int | float) for one in (on, off)):
        return False
    kept = {k: keywords[k] for k in ("depth", "axis") if k in keywords}
    hot = do("one_hot", x, **kept)
    do("math.add", do("math.multiply", hot, y=float(on - off)), y=float(off))
    return True


@of_tensors()
def _convolution(do: Spelled, x: Ref, keywords: Config) -> bool:
    kernel: Any = keywords.get("filters", keywords.get("filter"))
    rank = 0 if is_tensor(kernel) else np.ndim(kernel) - 2
    if rank not in (1, 2, 3):
        return False
    steps = keywords.get("strides") or 1
    shared = {k: keywords[k] for k in ("data_format",) if k in keywords}
    do(
        f"nn.conv{rank}d", x, filters=kernel, padding=keywords.get("padding", "VALID"),
        dilations=_dilation(keywords), **{"stride" if rank == 1 else "strides": steps}, **shared,
    )  # fmt: skip
    return True


@of_tensors()
def _padded_convolution(do: Spelled, x: Ref, keywords: Config) -> bool:
    pads = keywords.get("padding")
    if isinstance(pads, str) or keywords.get("data_format", "NHWC") != "NHWC":
        return False
    wide = do("pad", x, paddings=pads)
    do("nn.conv2d", wide, **{**keywords, "padding": "VALID"})
    return True


@of_tensors()
def _fake_quantized(do: Spelled, x: Ref, keywords: Config) -> bool:
    """Round to the steps of a range that holds 0, as TensorFlow moves it."""
    low, high = keywords.get("min", -6.0), keywords.get("max", 6.0)
    if not all(isinstance(end, int | float) for end in (low, high)) or not low < high:
        return False
    least = 1 if keywords.get("narrow_range") else 0
    most = 2 ** int(keywords.get("num_bits", 8)) - 1
    step = float(np.float32(high - low) / np.float32(most - least))
    zero = min(max(math.floor(least - low / step + 0.5), least), most)
    start, end = (least - zero) * step, (most - zero) * step
    inside = do("clip_by_value", x, clip_value_min=start, clip_value_max=end)
    moved = do("math.multiply", do("math.subtract", inside, y=start), y=1.0 / step)
    steps = do("math.floor", do("math.add", moved, y=0.5))
    do("math.add", do("math.multiply", steps, y=step), y=start)
    return True


_SPELLINGS: dict[str, Spelling] = {
    **IMAGE_SPELLINGS,
    "squared_difference": _squared_difference,
    "crelu": _crelu,
    "local_response_normalization": _response,
    "lrn": _response,
    "linalg.matmul": _matmul,
    "matmul": _matmul,
    "cumsum": _cumsum,
    "multiply_no_nan": _multiply_no_nan,
    "xlogy": _xlogy,
    "xlog1py": _xlog1py,
    "xdivy": _xdivy,
    "reciprocal_no_nan": _reciprocal_no_nan,
    "clip_by_norm": _clip_by_norm,
    "erfc": _erfc,
    "count_nonzero": _count_nonzero,
    "scalar_mul": _scaled,
    "embedding_lookup": _looked_up,
    "separable_conv2d": _separable,
    "pool": _pooled,
    "norm": _norm,
    "l2_normalize": _unit,
    "l2_loss": _energy,
    "silu": _swish,
    "linalg.band_part": _band,
    "sort": _downwards("sort"),
    "argsort": _downwards("argsort"),
    "one_hot": _one_hot,
    "convolution": _convolution,
    "conv2d": _padded_convolution,
    "quantization.fake_quant_with_min_max_args": _fake_quantized,
    "quantization.fake_quant_with_min_max_vars": _fake_quantized,
}
"""By TensorFlow's name without ``compat.v1.``, ``math.`` and ``nn.``."""
