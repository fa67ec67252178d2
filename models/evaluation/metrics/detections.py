"""The boxes that a detector's outputs are, one image after another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsconvert.base.errors import InputError
from dsconvert.base.output_fidelity.channel_axis import channel_axis
from dsconvert.base.predictor import Array

from .metric import Answers, NoValue, Settings
from .settings import number

_NMS = 0.6
_LOOKED_AT = 1000
"""Boxes of the highest scores of an image that are looked at."""
_KEPT = 100
"""Boxes of an image that count, as COCO has it."""
_SHARES = 2.0
"""Coordinates up to this are shares of the image's size, not pixels."""
_FORMATS = ("cxcywh", "xywh", "yxyx")

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Boxes:
    """The boxes of one image, those of the highest score first.

    Attributes:
        corners: Left, top, right, bottom in pixels, (k, 4).
        scores: (k,).
        classes: (k,).
    """

    corners: Float
    scores: Float
    classes: NDArray[np.int64]


def detections(
    answers: Answers, outputs: Sequence[Array], settings: Settings, score: float
) -> list[Boxes]:
    """Read a detector's outputs.

    They are boxes (n, k, 4) and scores of classes (n, k, C); both in one output (n, k, 4 + C); or
    boxes, scores and classes, (n, k, 4), (n, k) and (n, k). Two axes of positions, (n, H, W, ...),
    are as good as one, and channels may be on axis 1. Boxes of a class that overlap one of a
    higher score are dropped (greedy non-maximum suppression).

    Args:
        answers: Of which the inputs say how large images are.
        outputs: The outputs to read.
        settings: See `registry.BOX_SETTINGS`.
        score: Boxes of a lower score are dropped, where the settings do not say.

    Returns:
        The boxes of each image.

    Raises:
        InputError: If the outputs are none of these.
        NoValue: If most boxes have no area.
    """
    size = image_size(answers)
    corners, scores, classes = _read(outputs, settings)
    corners = _corners(corners, settings)
    corners = in_pixels(corners, size)
    least, overlap = number(settings, "score", score), number(settings, "nms", _NMS)
    found = [
        _best(*one, least=least, overlap=overlap)
        for one in zip(corners, scores, classes, strict=True)
    ]
    _check_areas(found)
    return found


def _check_areas(found: Sequence[Boxes]) -> None:
    """Find out boxes that are of another form than was said.

    Raises:
        NoValue: If most boxes have no area.
    """
    sizes = np.concatenate([boxes.corners[:, 2:] - boxes.corners[:, :2] for boxes in found])
    if len(sizes) and (sizes <= 0).any(axis=1).mean() > 0.5:
        raise NoValue(
            "most boxes have no area as they are read; where they are centre and size, write "
            "cxcywh behind the name, as in map/cxcywh"
        )


def image_size(answers: Answers) -> tuple[int, int]:
    """Height and width of the images of the first input of four axes.

    Raises:
        InputError: If there is none.
    """
    for array in answers.inputs:
        if array.ndim == 4:
            first = array.shape[1] in (1, 3, 4) and array.shape[3] not in (1, 3, 4)
            return (array.shape[2], array.shape[3]) if first else (array.shape[1], array.shape[2])
    raise InputError("the model takes no images: boxes have no size.", code="no-boxes")


def in_pixels(corners: Float, size: tuple[int, int]) -> Float:
    """Turn boxes (..., 4) that are shares of an image's height and width into pixels."""
    if np.abs(corners[np.isfinite(corners)]).max(initial=0.0) > _SHARES:
        return corners
    height, width = size
    return corners * np.array([width, height, width, height], np.float64)


def overlaps(one: Float, other: Float) -> Float:
    """Intersection over union of boxes (a, 4) and (b, 4): (a, b)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    both = np.maximum(high - low, 0).prod(axis=-1)
    areas = [np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=-1) for boxes in (one, other)]
    union = areas[0][:, None] + areas[1][None] - both
    result: Float = both / np.maximum(union, 1e-12)
    return result


def _read(outputs: Sequence[Array], settings: Settings) -> tuple[Float, Float, Float]:
    """Return boxes (n, k, 4), scores (n, k, C) and the class of each score, (n, k, C)."""
    flat = [_rows(output, settings) for output in outputs if output.ndim >= 3]
    single = [np.asarray(output, np.float64) for output in outputs if output.ndim == 2]
    boxes = next((array for array in flat if array.shape[-1] == 4), None)
    if boxes is None and len(flat) == 1 and flat[0].shape[-1] > 4:
        return flat[0][..., :4], *_scores(flat[0][..., 4:], settings)
    if boxes is not None:
        rows = boxes.shape[1]
        others = [array for array in flat if array is not boxes and array.shape[1] == rows]
        if len(others) == 1:
            return boxes, *_scores(others[0], settings)
        pairs = [array for array in single if array.shape[1] == rows]
        classes = next((array for array in pairs if np.array_equal(array, array.round())), None)
        scores = next((array for array in pairs if array is not classes), None)
        if not others and classes is not None and scores is not None:
            return boxes, scores[..., None], classes[..., None]
    shapes = ", ".join(str(("n", *output.shape[1:])) for output in outputs)
    raise InputError(
        f"the model's outputs have the shapes {shapes}; allowed are boxes (n, k, 4) beside scores "
        "(n, k, classes), or both in one output.",
        "Decode them in a function of your own: --metric module:function",
        code="no-boxes",
    )


def _rows(output: Array, settings: Settings) -> Float:
    """Return an output as (n, positions, channels)."""
    last = output.ndim - 1
    axis = last if output.shape[-1] == 4 else channel_axis(output)
    if "first" in settings:
        axis = 1
    moved = np.moveaxis(np.asarray(output, np.float64), axis, -1)
    return moved.reshape(len(output), -1, output.shape[axis])


def _scores(scores: Float, settings: Settings) -> tuple[Float, Float]:
    """Return the scores of classes, and which class each is of."""
    if "sigmoid" in settings:
        scores = 1 / (1 + np.exp(-np.clip(scores, -80, 80)))
    elif np.nanmax(scores, initial=0.0) > 1.01 or np.nanmin(scores, initial=0.0) < -0.01:
        raise InputError(
            f"the detector's scores go from {np.nanmin(scores):.3g} to {np.nanmax(scores):.3g}: no "
            "probabilities.",
            "Where they are logits: --metric map/sigmoid",
            code="no-boxes",
        )
    if "objectness" in settings:
        scores = scores[..., :1] * scores[..., 1:]
    if "background" in settings:
        scores = scores[..., 1:]
    if not scores.shape[-1]:
        raise InputError("the detector has no scores of classes.", code="no-boxes")
    return scores, np.broadcast_to(np.arange(scores.shape[-1], dtype=np.float64), scores.shape)


def _corners(boxes: Float, settings: Settings) -> Float:
    """Return boxes (..., 4) as left, top, right, bottom."""
    given = [name for name in _FORMATS if name in settings]
    if len(given) > 1:
        raise InputError(
            f"boxes are {' or '.join(given)}, not both.", code="unknown-metric-setting"
        )
    if not given:
        return boxes
    if given == ["yxyx"]:
        return boxes[..., [1, 0, 3, 2]]
    start, size = boxes[..., :2], boxes[..., 2:]
    if given == ["cxcywh"]:
        start = start - size / 2
    return np.concatenate([start, start + size], axis=-1)


def _best(corners: Float, scores: Float, classes: Float, *, least: float, overlap: float) -> Boxes:
    """Return the boxes of an image that count, from k boxes with C scores each."""
    place, column = np.nonzero(scores >= least)
    values = scores[place, column]
    order = np.argsort(-values, kind="stable")[:_LOOKED_AT]
    place, column, values = place[order], column[order], values[order]
    boxes, named = corners[place], classes[place, column].astype(np.int64)
    good = np.isfinite(boxes).all(axis=1)
    boxes, values, named = boxes[good], values[good], named[good]
    close = (overlaps(boxes, boxes) > overlap) & (named[:, None] == named[None])
    kept: list[int] = []
    dropped = np.zeros(len(boxes), bool)
    for rank in range(len(boxes)):
        if not dropped[rank]:
            kept.append(rank)
            dropped |= close[rank]
        if len(kept) == _KEPT:
            break
    return Boxes(boxes[kept], values[kept], named[kept])
