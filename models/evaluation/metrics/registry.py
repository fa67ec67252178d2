"""The metrics by name.

To add one: a record here, and a function in a file of its own that makes its `Statistic`. None of
them imports a framework, and a metric's file is imported when it is used.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from dsconvert.base.errors import InputError

from .metric import Answers, Measure, Metric, Settings, Statistic

_PEAK = {"peak": "peak=255: the largest value of an image; by default 1 or 255, as the targets"}
BOX_SETTINGS = {
    "cxcywh": "boxes are centre x, centre y, width, height",
    "xywh": "boxes are left, top, width, height",
    "yxyx": "boxes are top, left, bottom, right",
    "first": "the channels are on axis 1: (n, channels, boxes)",
    "background": "the first class is the background",
    "objectness": "the first score says whether there is an object at all",
    "sigmoid": "scores are logits of a sigmoid",
    "nms": "nms=0.6: from which overlap on the box of the lower score is dropped",
    "score": "score=0.01: boxes of a lower score are dropped",
}
"""How the outputs of a detector are read; by default boxes are left, top, right, bottom."""


def _late(place: str) -> Measure:
    """Return a function that imports "module:function" of this folder when it is called."""
    module, _, name = place.partition(":")

    def measure(answers: Answers, settings: Settings) -> Statistic:
        found: Any = getattr(import_module(f".{module}", __package__), name)
        statistic: Statistic = found(answers, settings)
        return statistic

    return measure


_ALL = (
    Metric(
        name="top1",
        title="top-1",
        unit="share",
        needs=("labels",),
        measure=_late("classes:top1"),
        about="samples whose class gets the highest score",
    ),
    Metric(
        name="top5",
        title="top-5",
        unit="share",
        needs=("labels",),
        measure=_late("classes:top5"),
        about="samples whose class is among the five highest scores",
    ),
    Metric(
        name="miou",
        title="mIoU",
        unit="share",
        needs=("labels",),
        measure=_late("segmentation:miou"),
        about="intersection over union of segmented pixels, the mean over classes",
        known={"ignore": "ignore=255: the label of pixels that do not count"},
    ),
    Metric(
        name="psnr",
        title="PSNR",
        unit="dB",
        needs=("labels",),
        measure=_late("images:psnr"),
        about="peak signal-to-noise ratio to target images, the mean over images",
        known=_PEAK,
    ),
    Metric(
        name="ssim",
        title="SSIM",
        unit="share",
        needs=("labels",),
        measure=_late("images:ssim"),
        about="structural similarity to target images, the mean over images",
        known=_PEAK,
    ),
    Metric(
        name="mae",
        title="MAE",
        unit="",
        needs=("labels",),
        measure=_late("images:mae"),
        about="mean absolute difference from targets, in their unit",
        larger_is_better=False,
    ),
    Metric(
        name="map",
        title="mAP",
        unit="share",
        needs=("labels",),
        measure=_late("coco:mean_ap"),
        about="COCO's average precision of boxes, overlaps 0.50 to 0.95",
        known=BOX_SETTINGS,
    ),
    Metric(
        name="map50",
        title="mAP50",
        unit="share",
        needs=("labels",),
        measure=_late("coco:mean_ap50"),
        about="the same for an overlap of 0.50",
        known=BOX_SETTINGS,
    ),
    Metric(
        name="boxes",
        title="box agreement",
        unit="share",
        needs=("reference",),
        measure=_late("box_agreement:box_agreement"),
        about="boxes that a model and its reference both find; no labels",
        known={**BOX_SETTINGS, "score": "score=0.25: boxes of a lower score are dropped"},
    ),
)
METRICS = {metric.name: metric for metric in _ALL}
"""By name."""


def find_metric(text: str) -> Metric:
    """Return the metric of a name with its settings, or of a function of the user's.

    Args:
        text: "miou", "map/cxcywh", "psnr/peak=255"; or "module:function".

    Raises:
        InputError: If there is no such metric, or the function cannot be imported.

    Example:
        >>> find_metric("psnr/peak=255").settings
        {'peak': '255'}
    """
    if re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", text):
        from .user_function import user_metric

        return user_metric(text)
    name, *words = text.split("/")
    if name not in METRICS:
        raise InputError(
            f"unknown metric {text!r}; allowed: {', '.join(METRICS)}, or module:function.",
            "Settings follow a slash: map/cxcywh",
            code="unknown-metric",
        )
    return METRICS[name].with_settings(words)
