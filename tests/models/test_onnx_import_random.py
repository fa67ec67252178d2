"""Operators of random attributes compute in Keras what they compute in ONNX."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_graphs import (
    Op,
    assert_same,
    between_convolutions,
    image,
)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def floats(*shape: int, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.5, 2.0, shape).astype(np.float32)


@pytest.mark.parametrize("seed", range(4))
def test_random_slices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = (2, 4, 6, 8)
    ops = []
    while len(ops) < 10:
        axes = rng.permutation(4)[: rng.integers(1, 5)]
        steps = rng.choice([-3, -2, -1, 1, 2, 3], len(axes))
        starts = np.array([rng.integers(-sizes[a] - 1, sizes[a] + 1) for a in axes])
        ends = np.array([rng.integers(-sizes[a] - 2, sizes[a] + 2) for a in axes])
        cut = np.ones(sizes)
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
            cut = np.take(cut, _positions(start, end, step, sizes[axis]), axis)
        if cut.size:
            axes = np.where(rng.random(len(axes)) < 0.5, axes, axes - 4)
            ops.append(Op("Slice", ("x", *(ints(*v) for v in (starts, ends, axes, steps)))))
    model = between_convolutions(ops)
    assert_same(model, [image(model)])


def _positions(start: int, end: int, step: int, size: int) -> range:
    """What a slice reads, as the operator's specification has it."""
    start, end = (v + size if v < 0 else v for v in (start, end))
    low, high = (0, size) if step > 0 else (-1, size - 1)
    return range(int(np.clip(start, max(low, 0), high)), int(np.clip(end, low, high)), int(step))


@pytest.mark.parametrize("mode", ["constant", "reflect", "edge"])
def test_random_pads(mode: str) -> None:
    rng = np.random.default_rng(7)
    ops = []
    for _ in range(8):
        most = np.array([0, 3, 5, 7])  # reflect reaches one less than the size
        pads = rng.integers(0, np.tile(most, 2) + 1) * rng.integers(0, 2, 8)
        if mode == "constant":
            pads -= rng.integers(0, 2, 8)
            pads[[0, 4]] = 0
        ops.append(Op("Pad", ("x", ints(*pads)), {"mode": mode}))
    model = between_convolutions(ops)
    assert_same(model, [image(model)])


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_random_resizes(mode: str) -> None:
    rng = np.random.default_rng(11)
    coordinates = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    ops = []
    for n in range(12):
        attributes = {"mode": mode, "coordinate_transformation_mode": coordinates[n % 4]}
        if mode == "nearest":
            rounding = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
            attributes["nearest_mode"] = str(rng.choice(rounding))
        if n < 6:
            # Off any tie, where the specification leaves open what float32 decides.
            scales = np.array([1, 1, *rng.uniform(0.4, 3.0, 2)], np.float32)
            ops.append(Op("Resize", ("x", None, scales), attributes))
        else:
            sizes = ints(2, 4, *rng.choice([5, 7, 11, 13, 17], 2))
            ops.append(Op("Resize", ("x", None, None, sizes), attributes))
    model = between_convolutions(ops)
    assert_same(model, [image(model)])


@pytest.mark.parametrize("seed", range(3))
def test_random_broadcasts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ops = []
    for _ in range(10):
        rank = rng.integers(0, 5)
        full = (2, 4, 6, 8)[4 - rank :]
        shape = [int(size) if rng.random() < 0.5 else 1 for size in full]
        value = floats(*shape, seed=int(rng.integers(100)))
        sides = ("x", value) if rng.random() < 0.5 else (value, "x")
        ops.append(Op(str(rng.choice(["Add", "Sub", "Mul", "Div", "Max"])), sides))
    model = between_convolutions(ops)
    assert_same(model, [image(model)])


@pytest.mark.parametrize("seed", range(3))
def test_random_splits_and_joins(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ops = []
    for _ in range(4):
        axis = int(rng.integers(1, 4))
        size = (2, 4, 6, 8)[axis]
        cuts = np.sort(rng.choice(np.arange(1, size), rng.integers(1, 3), replace=False))
        parts = np.diff([0, *cuts, size])
        signed = axis - 4 * int(rng.integers(0, 2))
        ops.append(Op("Split", ("x", ints(*parts)), {"axis": signed}, outputs=len(parts)))
    model = between_convolutions(ops)
    assert_same(model, [image(model)])
