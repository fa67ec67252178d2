"""What the parts of `large.py` work with: the amounts, the images, the networks that are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from large_networks import Training
from steps import Array, Labelled, Shelf


@dataclass(frozen=True)
class Amounts:
    """How much is done.

    Attributes:
        trainings: How each network is trained.
        calibration: Images without labels that rewrites are fitted to.
        refine: The refinement on these.
        epochs: Of fine-tuning, on all images, without labels.
        wanted: The share of the original's time that is asked for.
    """

    trainings: dict[str, Training]
    calibration: int = 1000
    refine: str = "500steps"
    epochs: int = 3
    wanted: str = "0.5x"


@dataclass(frozen=True)
class Run:
    """What the parts work with.

    Attributes:
        shelf: Where results and networks are kept.
        data: Images and their classes; these are for the first training alone.
        amounts: How much is done.
        tables: Where tables are kept.
    """

    shelf: Shelf
    data: Labelled
    amounts: Amounts
    tables: Path

    @property
    def calibration(self) -> Array:
        """Images of the training set that rewrites are fitted to, (n, H, W, C)."""
        count = min(self.amounts.calibration, len(self.data.x))
        return self.data.x[np.random.default_rng(0).choice(len(self.data.x), count, replace=False)]

    def load(self, name: str) -> Any:
        """Return a network that was kept."""
        import dsconvert as ds

        return ds.load(self.shelf.model(name)).model

    def plan_file(self, name: str, runtime: str) -> Path:
        """Tell where a network's plan lies."""
        return self.shelf.model(f"{name}-{runtime}-plan").with_suffix(".json")

    def step(self, name: str, work: Callable[[], Any], **config: Any) -> Any:
        """Return a step's result, done now unless it was done so before."""
        return self.shelf.step(name, {"data": self.data.told, **config}, work)
