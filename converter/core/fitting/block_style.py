"""What a block style must offer: how a convolution becomes a block, and what that costs.

A block is a chain of stock layers, or a sum of several (`Factorization.branches`). Everything that
differs from one style to the next is behind this Protocol; `styles` lists those there are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from ..stages import Site
from ..types import Choice, ConvSpec, Factorization, Float
from .fit import FitOptions
from .moments import Statistics


def check_pairs(choice: Choice) -> None:
    """Refuse less than one pair.

    Raises:
        InputError: If so.
    """
    if choice.pairs < 1:
        raise InputError(
            f"pairs must be at least 1, got {choice.pairs}.",
            "Try: --pairs 1",
            code="not-a-number-of-pairs",
        )


@dataclass(frozen=True)
class Sample:
    """Patches as their depthwise outputs.

    Attributes:
        inner: z, (P, T·C), pair by pair.
        target: The outputs to aim at, (P, N).
        held_out: Which patches no fit may see, (P,).
    """

    inner: Array
    target: Array
    held_out: NDArray[np.bool_]


@dataclass(frozen=True)
class SiteData:
    """What is known of a convolution's inputs and of the outputs to aim at.

    Attributes:
        site: The convolution.
        stats: Moments of its patches; of each block of channels by itself where all together do
            not fit into the memory.
        blocks: The input channels of each.
        sample: Applies depthwise kernels (T, kh, kw, C) to single patches; None for a shared
            layer, whose earlier patches are gone.
    """

    site: Site
    stats: Sequence[Statistics]
    blocks: Sequence[slice]
    sample: Callable[[Float], Sample] | None

    @property
    def output_weight(self) -> Float | None:
        """Weigh the squared error of each output, (N,), by what the norm makes of it."""
        return None if self.site.norm is None else self.site.norm.gain**2


@dataclass(frozen=True)
class Fitted:
    """A block fitted to data.

    Attributes:
        factors: The block.
        mixer: What its last layers multiply, to tell the variance of ŷ: (D, N).
        read: The moments of what that reads, and of y; None where they are not known.
    """

    factors: Factorization
    mixer: Float
    read: Statistics | None


class BlockStyle(Protocol):
    """One structure that may stand in a convolution's place."""

    @property
    def name(self) -> str:
        """As a `Choice` has it, e.g. "mobilenet"."""

    @property
    def title(self) -> str:
        """One such block in words, e.g. "MobileNet block"."""

    @property
    def untrained(self) -> str:
        """Return what must be fine-tuned: "a ReLU inside …"; empty if the fit is the end of it."""

    # Choosing: all of it from the geometry alone.

    def check(self, choice: Choice) -> None:
        """Refuse a choice of this style that cannot be.

        Raises:
            InputError: If so, with what is allowed.
        """

    def settled(self, choice: Choice, spec: ConvSpec | None) -> Choice:
        """Make a choice, perhaps of another style, one of this style.

        What this style does not have is dropped, and what only it has is chosen.

        Args:
            choice: Its `block` is this style's name already.
            spec: The convolution; None if it is not known yet.
        """

    def written(self, choice: Choice) -> Choice:
        """Find the one choice that stands for all that are written down alike: it is timed.

        Raises:
            InputError: If the choice leaves open what is written down.
        """

    def candidates(self, spec: ConvSpec, most: int) -> list[Choice]:
        """List what a plan may choose from.

        Args:
            spec: The convolution, with the sizes of its inputs.
            most: The largest T.

        Returns:
            Choices that save MACs or parameters and can be fitted in good time; none for a style
            that a plan cannot judge.
        """

    def within(self, spec: ConvSpec, macs: float) -> Choice:
        """Return the largest choice of no more MACs; the smallest of all where none is that small.

        Args:
            spec: The convolution, with known sizes of its inputs.
            macs: Over all its calls.
        """

    def lowerings(self, choice: Choice) -> tuple[Choice, ...]:
        """List the ways to write down the same factors, the plain one first."""

    def text(self, choice: Choice) -> str:
        """Return a choice in a few words, e.g. "2 × depthwise-first"."""

    # Costs.

    def macs(self, spec: ConvSpec, choice: Choice) -> int | None:
        """Multiply-accumulates over all calls, strides counted; None where a size is free."""

    def params(self, spec: ConvSpec, choice: Choice, *, bias: bool) -> int:
        """Weights, norms included, and the one bias of the last operation."""

    # Factors.

    def fit(
        self,
        data: SiteData,
        choice: Choice,
        options: FitOptions,
        start: Factorization | None = None,
    ) -> Fitted:
        """Fit a block to data.

        Args:
            data: What is known of the convolution.
            choice: What it becomes.
            options: See `FitOptions`.
            start: What another choice became on the same data, or this one on data much like
                these, to begin with; it may be ignored.

        Raises:
            InputError: If the moments of all channels together are needed and are not there.
        """

    def fits_in_parts(self, choice: Choice) -> bool:
        """Tell whether the moments of each block of channels by itself are enough for `fit`."""

    def from_weights(
        self, kernel: Array, bias: Array | None, spec: ConvSpec, choice: Choice
    ) -> Factorization:
        """Find the block nearest to a kernel (kh, kw, C, N), without data.

        Raises:
            InputError: If this style needs data.
        """

    def random(
        self, kernel: Array, bias: Array | None, choice: Choice, rng: np.random.Generator
    ) -> Factorization:
        """Draw a fresh block in the place of a kernel, as a framework initialises its layers."""
