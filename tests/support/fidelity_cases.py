"""Outputs that are compared: detectors of mixed scales, values in steps."""

from __future__ import annotations

import numpy as np

from dsconvert.base.output_fidelity import Tolerance, find, measure

INT8 = Tolerance(min_sqnr_db=10, floor=3 / 255, excused=0.9, half_step=1 / 512)


def codes(reference, other, tolerance=INT8, severity="failure", **options) -> set[str]:
    found = find(measure("y", reference, other, **options), tolerance)
    return {one.code for one in found if one.severity == severity}


def detector(samples=40, seed=0) -> np.ndarray:
    """Boxes in pixels and sparse scores, (n, 64, 84)."""
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(0, 640, (samples, 64, 4))
    scores = 1 / (1 + np.exp(-rng.normal(-3, 2, (samples, 64, 80))))
    return np.concatenate([boxes, scores], axis=2)


def in_steps(values, scale=None) -> np.ndarray:
    """What 8 bits leave of values, one scale for all."""
    scale = scale or np.ptp(np.append(values, 0)) / 255
    return np.round(values / scale) * scale


SHAPES = [(40,), (40, 1), (40, 10), (40, 64), (24, 64, 20), (8, 16, 16, 3), (6, 3, 16, 16), (1, 9)]


def softmax(z):
    powers = np.exp(z - z.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)
