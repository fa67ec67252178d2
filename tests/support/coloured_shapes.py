"""Pictures of coloured shapes, which the small networks are fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

SIZE = 16


@dataclass(frozen=True)
class Pictures:
    """Coloured shapes on coloured backgrounds.

    Attributes:
        images: (n, 3, 16, 16), 0 … 1.
        kinds: (n,) 0 … 8: disc, wide or tall bar in red, green or blue.
        masks: (n, 16, 16) 0 for background, else 1 + the shape.
        centres: (n, 2) y and x in pixels.
        radii: (n,) in pixels.
    """

    images: np.ndarray
    kinds: np.ndarray
    masks: np.ndarray
    centres: np.ndarray
    radii: np.ndarray


def pictures(count: int, seed: int) -> Pictures:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    wave = rng.uniform(-0.25, 0.25, (count, 3, 2, 1, 1))
    phase = rng.uniform(0, 6, (count, 3, 1, 1))
    light = np.array([0.5, 0.4, 0.3])[:, None, None]
    images = light + 0.06 * np.sin(wave[:, :, 0] * y + wave[:, :, 1] * x + phase)
    kinds = rng.integers(0, 9, count)
    radii = rng.uniform(2.5, 4.5, count)
    centres = rng.uniform(4, SIZE - 4, (count, 2))
    dy, dx = (np.abs(a - c[:, None, None]) for a, c in zip((y, x), centres.T, strict=True))
    r = radii[:, None, None]
    shapes = [
        dy**2 + dx**2 < r**2,
        (dy < r * 0.4) & (dx < r),
        (dx < r * 0.4) & (dy < r),
    ]
    inside = np.choose(kinds[:, None, None] % 3, shapes)
    colours = np.eye(3)[kinds // 3] * 0.7 + 0.15
    images = np.where(inside[:, None], colours[:, :, None, None], images)
    images = np.clip(images + rng.normal(0, 0.02, images.shape), 0, 1).astype(np.float32)
    masks = np.where(inside, 1 + kinds[:, None, None] % 3, 0)
    return Pictures(images, kinds, masks, centres, radii)
