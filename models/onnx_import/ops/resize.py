"""Resize and Upsample: by a stock layer where one does it, else as a small matrix for each axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..builder import KerasBuilder, refuse
from ..graph import Node
from ..interpolation import Sampling, matrix, nearest, positions
from ..registry import op
from ..values import Order, Tensor

_HALF_PIXEL = ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric")
_WHOLE = (0.0, 1.0)
"""The part of an axis that is all of it."""


@op("Resize", "Upsample")
def resize(node: Node, build: KerasBuilder) -> Tensor:
    """By factors or to sizes."""
    x = build.tensor(node)
    sampling = _sampling(node)
    if sampling.mode not in ("nearest", "linear", "cubic"):
        raise refuse(node, f"the mode {sampling.mode!r}")
    scales = _scales(node, build, x)
    targets = build.output_shapes(node)
    regions = _regions(node, build, x.rank)
    axes = [
        axis
        for axis in range(x.rank)
        if scales[axis] != 1
        or regions[axis] != _WHOLE  # which may be read at scale 1 too
        or any(old[axis] != new[axis] for old, new in _probes(x, targets))
    ]
    single = [axis for axis in axes if regions[axis] == _WHOLE and x.spreads(axis, targets)]
    spread = build.spread(node, x, single, targets) if single else None
    if spread is not None:  # one value gives the same everywhere, in every mode
        x, axes = spread, [axis for axis in axes if axis not in single]
    if not axes:
        return build.result(node, x.keras, x.order)
    if x.rank in (3, 4, 5) and min(axes) >= 2:
        x = build.channels_last(x)
        tensor = _by_layer(node, build, x, sampling, scales, axes)
        if tensor is not None:
            return build.result(node, tensor, x.order)
    tensor = x.keras
    outside = np.zeros(0)
    for axis in axes:
        size, target = x.shape[axis], targets[0][axis]
        if size is None or any(new[axis] != target for new in targets):
            raise refuse(
                node,
                f"resizing axis {axis}, of free size, in the mode {sampling.mode!r} "
                f"({sampling.coordinates})",
                "Fix the input's height and width, or give images: theirs are taken.",
            )
        where = positions(size, target, scales[axis], sampling, regions[axis])
        tensor = _along(node, build, tensor, x.order, axis, size, where, scales[axis], sampling)
        if sampling.coordinates == "tf_crop_and_resize":
            beyond = (where < 0) | (where > size - 1)
            if beyond.any():
                outside = _mark(outside, beyond, axis, x.rank)
    if outside.size:
        value = np.float32(node.get("extrapolation_value", 0.0))
        tensor = build.apply(node, "where", outside.transpose(x.order), value, tensor)
    return build.result(node, tensor, x.order)


def _sampling(node: Node) -> Sampling:
    """Return what the attributes say; operators before opset 11 have two fixed ways."""
    mode = node.get("mode", "nearest")
    if node.op == "Upsample" or node.opset < 11:
        return Sampling("linear" if "linear" in mode else mode, "asymmetric", "floor")
    return Sampling(
        mode=mode,
        coordinates=node.get("coordinate_transformation_mode", "half_pixel"),
        nearest=node.get("nearest_mode", "round_prefer_floor"),
        cubic=node.get("cubic_coeff_a", -0.75),
        exclude_outside=bool(node.get("exclude_outside", 0)),
        antialias=bool(node.get("antialias", 0)),
    )


def _scales(node: Node, build: KerasBuilder, x: Tensor) -> list[float]:
    """Return the factor for each ONNX axis."""
    axes = [axis % x.rank for axis in node.get("axes", range(x.rank))]
    scales = [1.0] * x.rank
    given = build.setting(node, "scales", 1 if node.op == "Upsample" or node.opset < 11 else 2)
    if given is not None and len(given):
        for axis, scale in zip(axes, given, strict=True):
            scales[axis] = float(scale)
        return scales
    # Sizes were given; where they follow the input's, their ratio is the same for every probe.
    targets = build.output_shapes(node)
    for axis in axes:
        ratios = [new[axis] / old[axis] for old, new in _probes(x, targets)]
        scales[axis] = ratios[0]
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        wanted = build.constant(node, 3)
        ratios = [size / x.shapes[0][axis] for axis, size in zip(axes, wanted, strict=True)]
        common = min(ratios) if policy == "not_larger" else max(ratios)
        for axis in axes:
            scales[axis] = common
    return scales


def _probes(x: Tensor, targets: Any) -> list[tuple[Any, Any]]:
    return list(zip(x.shapes, targets, strict=True))


def _regions(node: Node, build: KerasBuilder, rank: int) -> list[tuple[float, float]]:
    """Return the part of each axis that is read, in 0 … 1."""
    regions = [_WHOLE] * rank
    if node.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        axes = [axis % rank for axis in node.get("axes", range(rank))]
        roi = build.constant(node, 1)
        for i, axis in enumerate(axes):
            regions[axis] = float(roi[i]), float(roi[len(axes) + i])
    return regions


def _by_layer(
    node: Node,
    build: KerasBuilder,
    x: Tensor,
    sampling: Sampling,
    scales: list[float],
    axes: list[int],
) -> Any:
    """Return the whole resize by one layer, or None."""
    targets = build.output_shapes(node)
    exact = all(
        abs(new[axis] - old[axis] * scales[axis]) < 1e-3
        for axis in axes
        for old, new in _probes(x, targets)
    )
    factors = tuple(round(scales[axis]) for axis in range(2, x.rank))
    whole = exact and all(abs(scales[axis] - round(scales[axis])) < 1e-6 for axis in axes)
    if sampling.mode == "nearest" and whole and _repeats(x, sampling, scales, axes):
        kind = f"UpSampling{x.rank - 2}D"
        size = factors[0] if x.rank == 3 else factors
        options = {} if x.rank == 3 else {"data_format": "channels_last"}
        return build.layer(node, kind, size=size, **options)(x.keras)
    half_pixel = sampling.coordinates in _HALF_PIXEL and not (
        sampling.coordinates == "pytorch_half_pixel"
        and any(t[a] == 1 for t in targets for a in axes)
    )
    shrinks = sampling.antialias and any(scales[axis] < 1 for axis in axes)
    if sampling.mode != "linear" or x.rank != 4 or not exact or not half_pixel or shrinks:
        return None
    if sampling.exclude_outside:
        return None
    if whole and min(factors) >= 1:
        if None in x.shape[2:]:
            return _smoothed(node, build, x.keras, factors)
        options = {"interpolation": "bilinear", "data_format": "channels_last"}
        return build.layer(node, "UpSampling2D", size=factors, **options)(x.keras)
    height, width = (_only({shape[axis] for shape in targets}) for axis in (2, 3))
    if height is None or width is None:
        return None
    layer = build.layer(
        node,
        "Resizing",
        height=height,
        width=width,
        interpolation="bilinear",
        data_format="channels_last",
    )
    return layer(x.keras)


def _smoothed(node: Node, build: KerasBuilder, tensor: Any, factors: Sequence[int]) -> Any:
    """Resize bilinearly by whole factors where height and width are free.

    Keras' bilinear layer needs to know them. Repeating each pixel k times and averaging over a
    window as wide as one pixel was, half a new pixel at either end for an even k, gives the same:
    the share of the window that lies on each of two pixels falls linearly.
    """
    repeat = build.layer(node, "UpSampling2D", size=tuple(factors), data_format="channels_last")
    tensor = repeat(tensor)
    margin = [(0, 0), *((factor // 2, factor // 2) for factor in factors), (0, 0)]
    tensor = build.apply(node, "pad", tensor, margin, mode="symmetric")
    ends = tuple(2 - factor % 2 for factor in factors)  # an even window is shifted by half
    for number, window in enumerate((tuple(factors), ends)):
        if max(window) > 1:
            options = {"pool_size": window, "strides": 1, "data_format": "channels_last"}
            pool = build.layer(node, "AveragePooling2D", suffix=f"_mean{number}", **options)
            tensor = pool(tensor)
    return tensor


def _only(sizes: set[int]) -> int | None:
    return next(iter(sizes)) if len(sizes) == 1 else None


def _repeats(x: Tensor, sampling: Sampling, scales: list[float], axes: list[int]) -> bool:
    """Tell whether "nearest" repeats each element, whatever the size."""
    for axis in axes:
        factor = round(scales[axis])
        for size in {2, 3, 7, *(shape[axis] for shape in x.shapes)}:
            where = positions(size, size * factor, float(factor), sampling)
            chosen = nearest(where, size, sampling.nearest)
            if not np.array_equal(chosen, np.arange(size * factor) // factor):
                return False
    return True


def _along(
    node: Node,
    build: KerasBuilder,
    tensor: Any,
    order: Order,
    axis: int,
    size: int,
    where: Any,
    scale: float,
    sampling: Sampling,
) -> Any:
    """Resample one ONNX axis."""
    stored, rank = order.index(axis), len(order)
    if sampling.mode == "nearest":
        chosen = nearest(where, size, sampling.nearest).astype(np.int32)
        if np.array_equal(chosen, np.arange(size)):
            return tensor
        return build.apply(node, "take", tensor, chosen, axis=stored)
    weights = matrix(where, size, scale, sampling)
    if np.array_equal(weights, np.eye(size)):
        return tensor
    letters = "abcdefgh"[:rank]
    if stored == 0:
        moved = (*range(1, rank), 0)
        tensor = build.apply(node, "transpose", tensor, moved)
        tensor = build.apply(node, "matmul", tensor, weights)
        return build.apply(node, "transpose", tensor, (rank - 1, *range(rank - 1)))
    # The matrix is a weight of a layer, which keeps it out of the model's configuration.
    equation = f"{letters},{letters[stored]}z->{letters.replace(letters[stored], 'z')}"
    shape = [*tensor.shape[1:]]
    shape[stored - 1] = len(where)
    layer = build.layer(
        node,
        "EinsumDense",
        suffix=f"_axis{axis}",
        equation=equation,
        output_shape=tuple(shape),
        trainable=False,
    )
    result = layer(tensor)
    layer.kernel.assign(weights)
    return result


def _mark(outside: Any, beyond: Any, axis: int, rank: int) -> Any:
    """Add positions along an axis to a mask that broadcasts over the rest."""
    shape = [1] * rank
    shape[axis] = len(beyond)
    mask = beyond.reshape(shape)
    return mask if not outside.size else outside | mask
