"""A network cut at the layers that will be fitted: what a backend must offer the fit.

A *site* is one call of a layer that may get new weights. A *stage* begins with a site (the first
stage begins with the model's inputs) and runs to the next one. Between two stages only the live
values are kept, for all images, so that each layer is computed once however deep the network is.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, Protocol

from dsconvert.base.predictor import Array

from .types import ConvSpec, Factorization, Float

Role = Literal["conv", "shortcut", "head"]


@dataclass(frozen=True)
class Norm:
    """A BatchNorm that directly follows a site and belongs to it alone.

    Attributes:
        gain: γ / sqrt(σ² + ε), (N,): what it multiplies the site's output by.
        mean: Its moving mean, (N,).
        variance: σ² + ε, (N,).
    """

    gain: Float
    mean: Float
    variance: Float


@dataclass(frozen=True)
class Site:
    """One call of a layer whose weights may be replaced.

    Attributes:
        name: The layer's name.
        role: "conv" is rewritten; "shortcut" is a 1×1 convolution and "head" a last dense layer,
            which may be refitted to the drifted inputs.
        spec: Its geometry. A dense layer is a 1×1 convolution on a 1×1 image.
        kernel: W, (kh, kw, C, N).
        bias: (N,), or None.
        reads: Value number of its input: (n, H, W, C), (n, C, H, W), or (n, F) for a head.
        channels_first: Whether its images are (n, C, H, W).
        norm: The BatchNorm that follows, or None.
        beside: Value number of what its output (after the norm) is added to, when that is known
            before this site is computed; else None.
        call: Which of the layer's calls this is, from 0.
        calls: How many calls the layer has: a shared layer is fitted at its last one.
    """

    name: str
    role: Role
    spec: ConvSpec
    kernel: Array
    bias: Array | None
    reads: int
    norm: Norm | None
    beside: int | None = None
    channels_first: bool = False
    call: int = 0
    calls: int = 1


@dataclass(frozen=True)
class Weights:
    """What a site gets instead of its trained weights.

    Attributes:
        kernel: (kh, kw, C, N): for a rewritten convolution, the kernel its block stands for.
        bias: (N,) or None.
        norm: The following BatchNorm's new statistics, or None to leave them.
        block: A block for which no kernel can stand: it is what is computed, and ``kernel`` is
            not. None where the kernel says it all.
    """

    kernel: Float
    bias: Float | None
    norm: Norm | None = None
    block: Factorization | None = None


class Stages(Protocol):
    """A network as stages; the values that pass between them have value numbers."""

    @property
    def sites(self) -> tuple[Site | None, ...]:
        """The site each stage begins with; None for the first."""

    @property
    def inputs(self) -> tuple[int, ...]:
        """Value numbers of the model's inputs."""

    @property
    def outputs(self) -> tuple[int, ...]:
        """Value numbers of the model's outputs."""

    @property
    def batch_size(self) -> int | None:
        """The only batch size the model takes, or None for any."""

    def live_after(self, stage: int) -> tuple[int, ...]:
        """Values that later stages read or that are outputs, once this stage has run."""

    def using(self, stage: int, weights: Weights | None) -> AbstractContextManager[None]:
        """Within this context the stage's site has the given weights."""

    def run(
        self, stage: int, values: Mapping[int, Array], last: int | None = None
    ) -> dict[int, Array]:
        """Run one stage on one batch, or all up to another one.

        Args:
            stage: The first stage to run.
            values: Its live values.
            last: The last stage to run; by default the first one. Where it is another one, no
                stage has other weights than its own.

        Returns:
            What was made of the values that the next stage reads.
        """


def one_by_one(
    stages: Stages, first: int, values: Mapping[int, Array], last: int
) -> dict[int, Array]:
    """Run some stages on one batch, each by itself: see `Stages.run`."""
    live = dict(values)
    for stage in range(first, last + 1):
        live |= stages.run(stage, live)
        live = {value: live[value] for value in stages.live_after(stage)}
    return {value: array for value, array in live.items() if value not in values}
