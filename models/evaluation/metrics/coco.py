"""COCO's average precision of boxes, computed by pycocotools."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array

from .detections import Boxes, detections, image_size, in_pixels
from .metric import Answers, Indices, NoValue, Settings

_LEAST_SCORE = 0.01


def mean_ap(answers: Answers, settings: Settings) -> AveragePrecision:
    """Average precision, the mean over overlaps 0.50 … 0.95 and classes (Lin et al., 2014).

    Labels are boxes (n, m, 5): left, top, right, bottom in pixels or in shares of the image, and
    the class; rows of class −1 fill up. A sixth column of 1 marks crowds.
    """
    return AveragePrecision(answers, settings)


def mean_ap50(answers: Answers, settings: Settings) -> AveragePrecision:
    """Return the same for boxes that overlap by 0.50."""
    return AveragePrecision(answers, settings, single=True)


class AveragePrecision:
    """Matches boxes with labels once; precision is then accumulated over any draw of images.

    Args:
        answers: Outputs and labels.
        settings: See `registry.BOX_SETTINGS`.
        single: Whether only the overlap of 0.50 counts.

    Raises:
        InputError: If the labels are no boxes.
        MissingExtra: If pycocotools is not installed.
    """

    resamples = 100

    def __init__(self, answers: Answers, settings: Settings, *, single: bool = False) -> None:
        module = "pycocotools.coco", "pycocotools.cocoeval"
        coco, evaluation = (require(name, "boxes", "for --metric map") for name in module)
        truth = _labelled(answers)
        found = detections(answers, answers.outputs, settings, _LEAST_SCORE)
        with contextlib.redirect_stdout(io.StringIO()):
            right = _index(coco, truth)
            given = _index(coco, [_records(number, one) for number, one in enumerate(found)])
            self._eval = evaluation.COCOeval(right, given, "bbox")
            parameters = self._eval.params
            parameters.imgIds = list(range(len(truth)))
            parameters.catIds = sorted({one["category_id"] for image in truth for one in image})
            parameters.areaRng, parameters.areaRngLbl = [[0, 1e10]], ["all"]
            parameters.maxDets = [100]
            if single:
                parameters.iouThrs = np.array([0.5])
            self._eval.evaluate()
        self._matched = list(self._eval.evalImgs)
        self._images = len(truth)

    def of(self, index: Indices) -> float:
        """Accumulate precision over these images."""
        starts = range(0, len(self._matched), self._images)
        self._eval.evalImgs = [self._matched[start + i] for start in starts for i in index]
        with contextlib.redirect_stdout(io.StringIO()):
            self._eval.accumulate()
        precision = self._eval.eval["precision"]
        there = precision[precision > -1]
        return float(there.mean()) if there.size else float("nan")


def _labelled(answers: Answers) -> list[list[dict[str, Any]]]:
    """Return the labels as COCO's annotations of each image."""
    labels = answers.truth
    if not is_boxes(labels):
        raise InputError(
            f"the labels of {answers.source} have the shape {('n', *labels.shape[1:])}; boxes are "
            "(n, m, 5): left, top, right, bottom, class.",
            "Rows of class -1 fill up where an image has fewer boxes.",
            code="labels-are-no-boxes",
        )
    rows = np.array(labels, np.float64)
    there = rows[..., 4] >= 0
    if not there.any():
        raise NoValue("no image has a box")
    rows[..., :4] = np.where(there[..., None], rows[..., :4], 0)
    rows[..., :4] = in_pixels(rows[..., :4], image_size(answers))
    images = []
    for number, (image, real) in enumerate(zip(rows, there, strict=True)):
        crowds = image[real, 5] if labels.shape[-1] == 6 else np.zeros(int(real.sum()))
        boxes = Boxes(image[real, :4], np.ones(len(crowds)), image[real, 4].astype(np.int64))
        records = _records(number, boxes)
        images.append(
            [one | {"iscrowd": int(crowd)} for one, crowd in zip(records, crowds, strict=True)]
        )
    return images


def is_boxes(labels: Array) -> bool:
    """Tell whether labels are boxes, (n, m, 5) or (n, m, 6)."""
    return labels.ndim == 3 and labels.shape[-1] in (5, 6)


def _records(image: int, boxes: Boxes) -> list[dict[str, Any]]:
    """Return the boxes of one image as COCO's annotations."""
    sizes = boxes.corners[:, 2:] - boxes.corners[:, :2]
    return [
        {
            "image_id": image,
            "category_id": int(named),
            "bbox": [float(left), float(top), float(width), float(height)],
            "area": float(width * height),
            "score": float(score),
            "iscrowd": 0,
        }
        for (left, top), (width, height), named, score in zip(
            boxes.corners[:, :2], sizes, boxes.classes, boxes.scores, strict=True
        )
    ]


def _index(coco: Any, images: list[list[dict[str, Any]]]) -> Any:
    """Return annotations as pycocotools holds them."""
    annotations = [one for image in images for one in image]
    for number, one in enumerate(annotations, 1):  # 0 means no match there
        one["id"] = number
    made = coco.COCO()
    categories = sorted({one["category_id"] for one in annotations})
    made.dataset = {
        "images": [{"id": number} for number in range(len(images))],
        "annotations": annotations,
        "categories": [{"id": number} for number in categories],
    }
    made.createIndex()
    return made
