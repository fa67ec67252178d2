"""TensorFlow functions that Keras has no single operation for, spelled out in ones that it has.

What is spelled out are calls of tf.keras 2 as its files record them; `tfops` reads the calls that
stand in their place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .graph import is_tensor
from .tf_calls import CONSTANT, recorded
from .tree import Config, edit, name_of, with_config

Ref = list[Any]
"""A tensor as old files write it: [layer, call, output]."""
_SPATIAL, _ALL = [-3, -2], [-3, -2, -1]
"""Axes of images, one of them or many."""


class Spelled:
    """The calls that stand for one; the last has its name, whatever reads it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._layers: list[Config] = []

    def __call__(self, function: str, *operands: Any, **keywords: Any) -> Ref:
        """Add a call, on tensors and, as keywords, on numbers and further tensors."""
        refs = [one[:3] if is_tensor(one) else [CONSTANT, -1, one] for one in operands]
        nodes = [[*ref, {} if place else keywords] for place, ref in enumerate(refs)]
        return self._add("TFOpLambda", function, nodes)

    def part(self, ref: Ref, start: int, stop: int | None) -> Ref:
        """Add a slice of the channels of images."""
        whole = {"start": None, "stop": None, "step": None}
        spec = [whole] * 3 + [{"start": start, "stop": stop, "step": None}]
        nodes = [[*ref[:3], {"slice_spec": spec}]]
        return self._add("SlicingOpLambda", "__operators__.getitem", nodes)

    def layers(self) -> list[Config]:
        """Return the calls."""
        *before, last = self._layers
        return [*before, {**with_config(last, name=self._name), "name": self._name}]

    def _add(self, kind: str, function: str, nodes: list[Any]) -> Ref:
        name = f"{self._name}_{len(self._layers) + 1}"
        config = {"name": name, "trainable": True, "dtype": "float32", "function": function}
        self._layers.append(
            {"class_name": kind, "name": name, "config": config, "inbound_nodes": [nodes]}
        )
        return [name, 0, 0]


Spelling = Callable[[Spelled, Any, Config], bool]
"""Spells out a call by its first operand and its keywords; False where it has no equal."""


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


def _of_tensors(*names: str) -> Callable[[Spelling], Spelling]:
    """Let a spelling apply where the first operand and some keywords are tensors."""

    def applied(spelling: Spelling) -> Spelling:
        def checked(do: Spelled, x: Any, keywords: Config) -> bool:
            tensors = [x, *(keywords.get(name) for name in names)]
            return all(map(is_tensor, tensors)) and spelling(do, x, keywords)

        return checked

    return applied


@_of_tensors()
def _squared_difference(do: Spelled, x: Ref, keywords: Config) -> bool:
    do("math.square", do("math.subtract", x, y=keywords["y"]))
    return True


@_of_tensors()
def _crelu(do: Spelled, x: Ref, keywords: Config) -> bool:
    both = do("nn.relu", x), do("nn.relu", do("math.negative", x))
    do("concat", *both, axis=keywords.get("axis", -1))
    return True


@_of_tensors()
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


@_of_tensors()
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


@_of_tensors("y")
def _multiply_no_nan(do: Spelled, x: Ref, keywords: Config) -> bool:
    _no_nan(do, "math.multiply", x, keywords["y"], keywords["y"])
    return True


@_of_tensors("y")
def _xlogy(do: Spelled, x: Ref, keywords: Config) -> bool:
    _no_nan(do, "math.multiply", do("math.log", keywords["y"]), x, x)
    return True


@_of_tensors("y")
def _xlog1py(do: Spelled, x: Ref, keywords: Config) -> bool:
    _no_nan(do, "math.multiply", do("math.log1p", keywords["y"]), x, x)
    return True


@_of_tensors("y")
def _xdivy(do: Spelled, x: Ref, keywords: Config) -> bool:
    _no_nan(do, "math.truediv", x, keywords["y"], x)
    return True


def _no_nan(do: Spelled, function: str, x: Ref, y: Ref, zero: Ref) -> None:
    """Add what a function gives, and 0 where a tensor is 0."""
    none = do("math.equal", zero, y=0.0)
    do("where", none, x=0.0, y=do(function, x, y=y))


@_of_tensors()
def _reciprocal_no_nan(do: Spelled, x: Ref, keywords: Config) -> bool:
    none = do("math.equal", x, y=0.0)
    do("where", none, x=0.0, y=do("math.reciprocal", x))
    return True


@_of_tensors()
def _clip_by_norm(do: Spelled, x: Ref, keywords: Config) -> bool:
    axes, limit = keywords.get("axes"), keywords.get("clip_norm")
    if axes is None or not isinstance(limit, int | float):
        return False
    energy = do("math.reduce_sum", do("math.square", x), axis=axes, keepdims=True)
    norm = do("math.maximum", do("math.sqrt", energy), y=float(limit))
    do("math.truediv", do("math.multiply", x, y=float(limit)), y=norm)
    return True


@_of_tensors()
def _standardized(do: Spelled, x: Ref, keywords: Config) -> bool:
    mean = do("math.reduce_mean", x, axis=_ALL, keepdims=True)
    deviation = do("math.reduce_std", x, axis=_ALL, keepdims=True)
    count = do("math.reduce_sum", do("ones_like", x), axis=_ALL, keepdims=True)
    least = do("math.maximum", deviation, y=do("math.rsqrt", count))
    do("math.truediv", do("math.subtract", x, y=mean), y=least)
    return True


@_of_tensors()
def _contrast(do: Spelled, x: Ref, keywords: Config) -> bool:
    factor = keywords.get("contrast_factor")
    if not isinstance(factor, int | float):
        return False
    mean = do("math.reduce_mean", x, axis=_SPATIAL, keepdims=True)
    apart = do("math.multiply", do("math.subtract", x, y=mean), y=float(factor))
    do("math.add", apart, y=mean)
    return True


@_of_tensors()
def _gamma(do: Spelled, x: Ref, keywords: Config) -> bool:
    power = do("math.pow", x, y=float(keywords.get("gamma", 1)))
    do("math.multiply", power, y=float(keywords.get("gain", 1)))
    return True


@_of_tensors()
def _erfc(do: Spelled, x: Ref, keywords: Config) -> bool:
    do("math.add", do("math.negative", do("math.erf", x)), y=1.0)
    return True


@_of_tensors()
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


@_of_tensors()
def _separable(do: Spelled, x: Ref, keywords: Config) -> bool:
    shared = {k: keywords[k] for k in ("padding", "data_format") if k in keywords}
    steps = {k: keywords[k] for k in ("strides", "rate", "dilations") if k in keywords}
    deep = do("nn.depthwise_conv2d", x, filter=keywords["depthwise_filter"], **steps, **shared)
    do("nn.conv2d", deep, filters=keywords["pointwise_filter"], strides=1, **shared)
    return True


@_of_tensors()
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


@_of_tensors()
def _norm(do: Spelled, x: Ref, keywords: Config) -> bool:
    if keywords.get("ord") != 1 or not isinstance(keywords.get("axis"), int):
        return False
    sizes = {k: keywords[k] for k in ("axis", "keepdims") if k in keywords}
    do("math.reduce_sum", do("math.abs", x), **sizes)
    return True


@_of_tensors()
def _saturation(do: Spelled, x: Ref, keywords: Config) -> bool:
    factor = keywords.get("saturation_factor")
    if not isinstance(factor, int | float):
        return False
    hue, full, value = _hsv(do, x)
    more = do("math.multiply", full, y=float(factor))
    more = do("clip_by_value", more, clip_value_min=0.0, clip_value_max=1.0)
    do("image.hsv_to_rgb", do("concat", hue, more, value, axis=-1))
    return True


@_of_tensors()
def _hue(do: Spelled, x: Ref, keywords: Config) -> bool:
    delta = keywords.get("delta")
    if not isinstance(delta, int | float):
        return False
    hue, full, value = _hsv(do, x)
    turned = do("math.floormod", do("math.add", hue, y=float(delta)), y=1.0)
    do("image.hsv_to_rgb", do("concat", turned, full, value, axis=-1))
    return True


def _hsv(do: Spelled, x: Ref) -> list[Ref]:
    """Add the hue, saturation and value of images."""
    hsv = do("image.rgb_to_hsv", x)
    return [do.part(hsv, i, i + 1) for i in range(3)]


_SPELLINGS: dict[str, Spelling] = {
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
    "image.per_image_standardization": _standardized,
    "image.adjust_contrast": _contrast,
    "image.adjust_gamma": _gamma,
    "erfc": _erfc,
    "count_nonzero": _count_nonzero,
    "scalar_mul": _scaled,
    "embedding_lookup": _looked_up,
    "separable_conv2d": _separable,
    "pool": _pooled,
    "norm": _norm,
    "image.adjust_saturation": _saturation,
    "image.adjust_hue": _hue,
}
"""By TensorFlow's name without ``compat.v1.``, ``math.`` and ``nn.``."""
