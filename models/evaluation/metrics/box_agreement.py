"""How many of a reference's boxes a model finds too, without labels."""

from __future__ import annotations

import numpy as np

from .detections import Boxes, detections, overlaps
from .metric import Answers, NoValue, Settings
from .statistics import Ratios

_SURE = 0.25
"""Score from which a box counts as found."""
_OVERLAP = 0.5


def box_agreement(answers: Answers, settings: Settings) -> Ratios:
    """Count boxes of the same class that overlap by 0.5 or more in both models' answers.

    The agreement is 2·pairs / (boxes of one + boxes of the other), over all images: 1 where both
    find the same, the F1 score with the reference's boxes as truth.
    """
    references = answers.references or ()
    expected = detections(answers, references, settings, _SURE)
    given = detections(answers, answers.outputs, settings, _SURE)
    if not any(len(boxes.scores) for boxes in expected):
        raise NoValue("the reference finds no box on these images")
    pairs = [_pairs(*both) for both in zip(expected, given, strict=True)]
    counts = [len(r.scores) + len(y.scores) for r, y in zip(expected, given, strict=True)]
    return Ratios(2 * np.array(pairs, float)[:, None], np.array(counts, float)[:, None])


def _pairs(expected: Boxes, given: Boxes) -> int:
    """Give each box, the surest first, the free one that overlaps most; how many got one."""
    if not len(expected.scores) or not len(given.scores):
        return 0
    shared = overlaps(given.corners, expected.corners)
    shared *= given.classes[:, None] == expected.classes[None]
    count = 0
    for row in shared:
        best = int(row.argmax())
        if row[best] >= _OVERLAP:
            count += 1
            shared[:, best] = 0
    return count
