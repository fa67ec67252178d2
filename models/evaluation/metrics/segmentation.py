"""Intersection over union of segmented pixels."""

from __future__ import annotations

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from .metric import Answers, NoValue, Settings
from .settings import number
from .statistics import Ratios

_IGNORED = 255
"""As in Pascal VOC and Cityscapes."""


def miou(answers: Answers, settings: Settings) -> Ratios:
    """Count pixels in the intersection and the union of each class.

    IoU of a class is TP / (TP + FP + FN) over all pixels of all images; the mean over the classes
    that occur in labels or outputs is the metric (Everingham et al., 2015). Scores of classes
    (n, H, W, C) or (n, C, H, W) name the highest. One channel is a mask: 1 where a probability is
    above 0.5, or a logit, which values outside of 0 … 1 are, above 0.

    Raises:
        InputError: If labels are not classes (n, H, W) of an output's size.
    """
    labels = _classes(answers.truth)
    named, classes = _named(answers, labels.shape)
    ignored = int(number(settings, "ignore", _IGNORED))
    counted = labels != ignored
    if not counted.any():
        raise NoValue("no pixel has a label that counts")
    wrong = labels[counted]
    if wrong.min() < 0 or wrong.max() >= classes or np.any(wrong != np.floor(wrong)):
        raise InputError(
            f"the labels of {answers.source} go from {wrong.min():g} to {wrong.max():g}, and the "
            f"model has the classes 0 to {classes - 1}.",
            "Say which label does not count: --metric miou/ignore=255",
            code="labels-out-of-range",
        )
    parts, wholes = np.zeros((2, len(labels), classes))
    for sample, (truth, given, valid) in enumerate(zip(labels, named, counted, strict=True)):
        r, y = truth[valid].astype(np.int64), given[valid]
        both = np.bincount(r[r == y], minlength=classes)
        parts[sample] = both
        wholes[sample] = (
            np.bincount(r, minlength=classes) + np.bincount(y, minlength=classes) - both
        )
    return Ratios(parts, wholes)


def _classes(labels: Array) -> Array:
    """Labels as (n, H, W)."""
    if labels.ndim == 4:
        axis = next((axis for axis in (3, 1) if labels.shape[axis] == 1), None)
        if axis is not None:
            return labels.squeeze(axis)
        labels = labels.argmax(axis=-1)  # one-hot
    return labels


def _named(answers: Answers, shape: tuple[int, ...]) -> tuple[Array, int]:
    """Return the classes that an output of the labels' size names, (n, H, W), and their number."""
    for output in answers.outputs:
        if output.shape == shape:
            return _mask(output), 2
        if output.ndim != 4:
            continue
        for axis in (3, 1):
            if tuple(np.delete(output.shape, axis)) == shape:
                classes = output.shape[axis]
                if classes == 1:
                    return _mask(output.squeeze(axis)), 2
                return output.argmax(axis=axis), classes
    shapes = ", ".join(str(("n", *output.shape[1:])) for output in answers.outputs)
    raise InputError(
        f"the labels of {answers.source} have the shape {('n', *shape[1:])}, the model's outputs "
        f"{shapes}.",
        "mIoU takes one class per pixel of an output: (n, H, W).",
        code="labels-do-not-fit",
    )


def _mask(values: Array) -> Array:
    """Return 1 where a probability, or a logit, says so."""
    probability = values.min(initial=0) >= 0 and values.max(initial=0) <= 1
    return (values > (0.5 if probability else 0.0)).astype(np.int64)
