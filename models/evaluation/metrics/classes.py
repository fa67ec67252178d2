"""Top-1 and top-5 accuracy."""

from __future__ import annotations

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import within_top
from dsconvert.base.predictor import Array

from ...data.checks import check_classes
from .metric import Answers, NoValue, Settings
from .statistics import Mean


def top1(answers: Answers, settings: Settings) -> Mean:
    """Find the share of samples whose class gets the highest score."""
    del settings
    return _top(answers, 1)


def top5(answers: Answers, settings: Settings) -> Mean:
    """Find the share of samples whose class is among the five highest scores."""
    del settings
    return _top(answers, 5)


def _top(answers: Answers, k: int) -> Mean:
    labels, scores = answers.truth, class_scores(answers)
    classes = scores.shape[1]
    check_classes(labels, answers.source, classes)
    if k >= classes:
        raise NoValue(f"the model has {classes} classes")
    return Mean(within_top(scores, labels, k).astype(np.float64))


def class_scores(answers: Answers) -> Array:
    """Return the first output that is scores of classes, (n, classes).

    Raises:
        InputError: If there is none.
    """
    for output in answers.outputs:
        if output.ndim == 2 and output.shape[1] >= 2:
            return output
    shapes = ", ".join(str(("n", *output.shape[1:])) for output in answers.outputs)
    raise InputError(
        f"the model's outputs have the shapes {shapes}: none is class scores, (n, classes).",
        "Choose another --metric.",
        code="no-accuracy",
    )
