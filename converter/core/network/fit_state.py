"""The nouns of the walk through a network: strategies, fit runs and settings."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from dsconvert.base.predictor import Array

from ..fitting.fit import FitOptions
from ..fitting.moments import Moments
from ..stages import Weights
from ..types import Factorization


@dataclass(frozen=True)
class FitStrategy:
    """Which liberties a fit run takes.

    Attributes:
        sequential: Fit to the rewritten prefix's activations instead of the original's.
        shortcuts: Refit 1×1 convolutions, and let a layer that is added to something make up for
            what that has lost.
        match_variance: Re-estimate the BatchNorm after a rewritten layer so that each channel
            keeps its variance.
    """

    sequential: bool = False
    shortcuts: bool = False
    match_variance: bool = False

    def __str__(self) -> str:
        parts = [
            name for name in ("sequential", "shortcuts", "match_variance") if getattr(self, name)
        ]
        return " + ".join(parts) or "clean inputs"


@dataclass
class FitRun:
    """One strategy on its way through the network.

    Attributes:
        strategy: What it may do.
        live: The values between two stages, (n, ...), by value number.
        weights: What the sites passed so far got, by name.
        factors: The pairs of the convolutions among them.
        moments: Moments being gathered, by name, one per block of channels.
        refitted: Names of layers that kept their form and got new weights.
        output_error: What it does to the outputs of the held-out images.
    """

    strategy: FitStrategy
    live: dict[int, Array] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)
    factors: dict[str, Factorization] = field(default_factory=dict)
    moments: dict[str, list[Moments]] = field(default_factory=dict)
    refitted: list[str] = field(default_factory=list)
    output_error: float = np.inf


@dataclass(frozen=True)
class FitSettings:
    """How much data the fit may look at.

    Attributes:
        patches: Patches per layer at most; None chooses by the layer's size.
        memory: Bytes for activations and moments in memory.
        seed: Seeds the choice of patches.
        fit: Options of each layer's fit.
        refit_head: Whether the last dense layers may be refitted.
    """

    patches: int | None = None
    memory: int = 2 << 30
    seed: int = 0
    fit: FitOptions = field(default_factory=FitOptions)
    refit_head: bool = True
