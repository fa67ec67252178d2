"""The block style "three-factor": a 1×1 to R channels, a depthwise, and a 1×1 from them.

This is MobileNetV2's block (Sandler et al., arXiv:1801.04381) without norms and activations, thus
it stands for a kernel: see `three_factor`. R is free, so that its cost lies between those of T and
T + 1 pairs as well. At stride 1 the error is below that of pairs of as many MACs. At stride 2 the
first 1×1, which runs at the input's resolution, takes too large a share of them.
"""

from __future__ import annotations

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from ..types import Choice, ConvSpec, Factorization
from .block_style import BlockStyle, Fitted, SiteData, check_pairs
from .cost import (
    block_macs,
    block_params,
    channels_of_pairs,
    channels_within,
    conv_macs,
    conv_params,
)
from .fit import FitOptions
from .linear_block import flat
from .three_factor import NAME, ThreeFactors, random_factors
from .three_factor_fit import fit_three_factors, full_channels, three_factors_from_weights

_SHARES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
"""Candidates have the MACs of so many pairs."""


class ThreeFactorBlock:
    """See `block_style.BlockStyle`."""

    name = NAME
    title = "three-factor block"
    untrained = ""

    def check(self, choice: Choice) -> None:
        """Refuse less than one channel, or what only pairs have.

        Raises:
            InputError: If it is one of these.
        """
        if (choice.order, choice.lowering) != ("auto", "sum"):
            raise InputError(
                f"a {self.title} is no sum of pairs: got order {choice.order}, lowering "
                f"{choice.lowering}.",
                "Leave both out, or choose another block style.",
                code="option-not-applicable",
            )
        if choice.channels is msgspec.UNSET:
            check_pairs(choice)
        elif choice.channels < 1:
            raise InputError(
                f"channels must be at least 1, got {choice.channels}.",
                "Try: --channels 32",
                code="not-a-number-of-channels",
            )
        elif choice.pairs != 1:
            raise InputError(
                f"a {self.title} is one block: got {choice.channels} channels and "
                f"{choice.pairs} pairs.",
                "Give one of the two: as many channels, or as many as cost what these pairs cost.",
                code="option-not-applicable",
            )

    def settled(self, choice: Choice, spec: ConvSpec | None) -> Choice:
        """Drop what only pairs have; without a width, take the one that costs what they cost."""
        channels = choice.channels
        if channels is msgspec.UNSET:
            if spec is None:
                return Choice(block=self.name, pairs=choice.pairs)
            channels = channels_of_pairs(spec, choice.pairs)
        return Choice(block=self.name, channels=channels)

    def written(self, choice: Choice) -> Choice:
        """Return the choice: its width is all that it says.

        Raises:
            InputError: If the width is open.
        """
        self.check(choice)
        if choice.channels is msgspec.UNSET:
            raise InputError(
                f"only a {self.title} of a definite width has a cost, got none.",
                code="order-undecided",
            )
        return choice

    def candidates(self, spec: ConvSpec, most: int) -> list[Choice]:
        """List the widths of about the MACs of 0.5 to ``most`` pairs that save something."""
        macs, params = conv_macs(spec) or 0, conv_params(spec)
        full = full_channels((*spec.kernel_size, spec.in_channels, spec.out_channels))
        widths = {channels_of_pairs(spec, share) for share in _SHARES if share <= most}
        return [
            Choice(block=self.name, channels=channels)
            for channels in sorted(widths, reverse=True)
            if channels < full
            and (
                (block_macs(spec, channels) or 0) < macs
                or block_params(spec, channels, bias=spec.use_bias) < params
            )
        ]

    def within(self, spec: ConvSpec, macs: float) -> Choice:
        """Return a multiple of eight channels where one fits, else as many as do, at least one."""
        channels = channels_within(spec, macs) or channels_within(spec, macs, 1) or 1
        full = full_channels((*spec.kernel_size, spec.in_channels, spec.out_channels))
        return Choice(block=self.name, channels=min(channels, full))

    def lowerings(self, choice: Choice) -> tuple[Choice, ...]:
        """Return the one way."""
        return (choice,)

    def text(self, choice: Choice) -> str:
        """R: "three-factor R = 40"."""
        return f"{self.name} R = {self._channels(choice)}"

    def macs(self, spec: ConvSpec, choice: Choice) -> int | None:
        """See `cost.block_macs`."""
        return block_macs(spec, self._channels(choice))

    def params(self, spec: ConvSpec, choice: Choice, *, bias: bool) -> int:
        """See `cost.block_params`."""
        return block_params(spec, self._channels(choice), bias=bias)

    def fit(
        self,
        data: SiteData,
        choice: Choice,
        options: FitOptions,
        start: Factorization | None = None,
    ) -> Fitted:
        """Fit a block to data, beginning with a wider one if there is one.

        See `three_factor_fit.fit_three_factors`.
        """
        channels = self._channels(choice)
        wider = start if isinstance(start, ThreeFactors) and start.channels >= channels else None
        factors = fit_three_factors(
            data.stats,
            data.site.kernel,
            channels,
            output_weight=data.output_weight,
            options=options,
            seed=options.seed,
            start=wider,
        )
        read = data.stats[0] if len(data.stats) == 1 else None
        return Fitted(factors, flat(factors.kernel()), read)

    def fits_in_parts(self, choice: Choice) -> bool:
        """All blocks of channels share the depthwise kernel, but no products of their inputs."""
        return True

    def from_weights(
        self, kernel: Array, bias: Array | None, spec: ConvSpec, choice: Choice
    ) -> Factorization:
        """Find the block nearest to a kernel; see `three_factor_fit`."""
        return three_factors_from_weights(kernel, bias, self._channels(choice))

    def random(
        self, kernel: Array, bias: Array | None, choice: Choice, rng: np.random.Generator
    ) -> Factorization:
        """Draw a fresh block; see `three_factor.random_factors`."""
        return random_factors(kernel, bias, self._channels(choice), rng)

    def _channels(self, choice: Choice) -> int:
        written = self.written(choice).channels
        assert written is not msgspec.UNSET, "just checked"
        return written


STYLE: BlockStyle = ThreeFactorBlock()
