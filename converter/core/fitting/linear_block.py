"""Linear pairs, with nothing between the two kernels, as in SeparableConv2D.

Where the order is left open a layer takes the lower error among the orders that cost no more.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from ..stages import Site
from ..types import ORDERS, Choice, ConvSpec, Factorization, Float, Order, error_between
from .block_style import BlockStyle, Fitted, SiteData, check_pairs
from .cost import (
    affordable_orders,
    conv_macs,
    conv_params,
    pair_macs,
    pair_params,
    pairs_within,
)
from .factorize import from_weights, random_pairs
from .fit import FitOptions, fit, pointwise_first_work
from .moments import Statistics
from .pairs import Pairs

AFFORDABLE_WORK = 2e9
"""Multiplications a sweep of the pointwise-first fit may take before "auto" leaves it out."""


def best_fit(stats: Statistics, site: Site, choice: Choice, options: FitOptions) -> Pairs:
    """Fit the site's pairs to the data, in the order that its choice names or leaves open."""
    weight = None if site.norm is None else site.norm.gain**2
    orders = _orders(site.spec, choice)
    note: tuple[str, ...] = ()
    if len(orders) > 1 and pointwise_first_work(site.kernel.shape, choice.pairs) > AFFORDABLE_WORK:
        orders = ("depthwise-first",)
        note = ("pointwise-first was not tried: its fit would take too long at this width",)

    def attempt(order: Order) -> Pairs:
        return fit(stats, site.kernel, order, choice.pairs, output_weight=weight, options=options)

    best = min(map(attempt, orders), key=lambda factors: factors.data_error or 0.0)
    return replace(best, notes=best.notes + note)


def fit_parts(
    stats: Sequence[Statistics],
    blocks: Sequence[slice],
    site: Site,
    choice: Choice,
    options: FitOptions,
) -> Pairs:
    """Fit a layer too wide for one covariance, each block of channels to its own share.

    Args:
        stats: Moments of each block's patches and of its share of the output.
        blocks: The input channels of each.
        site: The layer.
        choice: What to make of it; the order can only be depthwise first, since pointwise first
            mixes all channels at once.
        options: See `FitOptions`.

    Raises:
        InputError: If pointwise first was asked for.
    """
    if choice.order == "pointwise-first":
        raise InputError(
            f"{site.name}: a pointwise-first fit of {site.spec.in_channels} channels does not fit "
            "into the memory allowed.",
            "Give more with --memory, or leave --order at auto.",
            code="memory-too-small",
        )
    weight = None if site.norm is None else site.norm.gain**2
    parts = [
        fit(
            part,
            site.kernel[:, :, block],
            "depthwise-first",
            choice.pairs,
            output_weight=weight,
            options=options,
        )
        for part, block in zip(stats, blocks, strict=True)
    ]
    spread = [float(part.var_y.sum()) for part in stats]
    missed = sum(v * (p.data_error or 0.0) ** 2 for v, p in zip(spread, parts, strict=True))
    whole = Pairs(
        order="depthwise-first",
        depthwise=np.concatenate([part.depthwise for part in parts], axis=3),
        pointwise=np.concatenate([part.pointwise for part in parts], axis=1),
        bias=sum((part.bias for part in parts if part.bias is not None), np.zeros(1)),
        weight_error=0.0,
        data_error=float(np.sqrt(missed / max(sum(spread), 1e-300))),
        notes=(f"fitted in {len(parts)} blocks of channels: too wide for one covariance",),
    )
    return replace(whole, weight_error=error_between(site.kernel, whole.kernel()))


def best_of_weights(kernel: Array, bias: Array | None, spec: ConvSpec, choice: Choice) -> Pairs:
    """Return the pairs nearest to the kernel, in the order that the choice names or leaves open."""
    return _least(
        lambda order: from_weights(kernel, bias, order, choice.pairs), _orders(spec, choice)
    )


def _least(attempt: Callable[[Order], Pairs], orders: tuple[Order, ...]) -> Pairs:
    return min(map(attempt, orders), key=lambda factors: factors.weight_error)


def _orders(spec: ConvSpec, choice: Choice) -> tuple[Order, ...]:
    return affordable_orders(spec, choice.pairs) if choice.order == "auto" else (choice.order,)


def fit_pairs(data: SiteData, choice: Choice, options: FitOptions) -> Pairs:
    """Fit pairs to data, written down as the choice says.

    Raises:
        InputError: If pointwise first is asked for and the moments come in parts.
    """
    if len(data.stats) == 1:
        pairs = best_fit(data.stats[0], data.site, choice, options)
    else:
        pairs = fit_parts(data.stats, data.blocks, data.site, choice, options)
    return replace(pairs, lowering=choice.lowering)


class LinearBlock:
    """The block style "linear": see `block_style.BlockStyle`."""

    name = "linear"
    title = "pair"
    untrained = ""

    def check(self, choice: Choice) -> None:
        """Refuse less than one pair, and a width.

        Raises:
            InputError: If it is one of these.
        """
        check_pairs(choice)
        if choice.channels is not msgspec.UNSET:
            raise InputError(
                f"a {self.title} has no width of its own, got {choice.channels} channels.",
                "Leave the channels out, or choose another block style.",
                code="option-not-applicable",
            )

    def settled(self, choice: Choice, spec: ConvSpec | None) -> Choice:
        """Drop the width."""
        return msgspec.structs.replace(choice, channels=msgspec.UNSET)

    def written(self, choice: Choice) -> Choice:
        """Take a multiplier of one, or one that is pointwise first, for what it is: plain pairs.

        Raises:
            InputError: If the order is open.
        """
        self.check(choice)
        if choice.order == "auto":
            raise InputError(
                "only pairs of a definite order have a cost, got order auto.",
                code="order-undecided",
            )
        summed = choice.pairs == 1 or choice.order == "pointwise-first"  # nothing to multiply
        return msgspec.structs.replace(choice, lowering="sum") if summed else choice

    def candidates(self, spec: ConvSpec, most: int) -> list[Choice]:
        """List the numbers of pairs, in both orders, that save and can be fitted in good time."""
        shape = (*spec.kernel_size, spec.in_channels, spec.out_channels)
        macs, params = conv_macs(spec) or 0, conv_params(spec)
        found = []
        for order in ORDERS:
            for pairs in range(1, min(most, spec.full_rank(order)) + 1):
                saves = (pair_macs(spec, order, pairs) or 0) < macs
                saves |= pair_params(spec, order, pairs, bias=spec.use_bias) < params
                slow = order == ORDERS[1] and pointwise_first_work(shape, pairs) > AFFORDABLE_WORK
                if saves and not slow:
                    found.append(Choice(pairs=pairs, order=order, block=self.name))
        return found

    def within(self, spec: ConvSpec, macs: float) -> Choice:
        """Return as many pairs as fit, at least one, and no more than reproduce any kernel."""
        pairs = min(max(pairs_within(spec, macs), 1), spec.full_rank("depthwise-first"))
        return self.settled(Choice(pairs=pairs, block=self.name), spec)

    def lowerings(self, choice: Choice) -> tuple[Choice, ...]:
        """Return a sum of pairs and, depthwise first, also one pair with a depth multiplier."""
        plain = msgspec.structs.replace(choice, lowering="sum")
        if choice.pairs == 1 or choice.order != "depthwise-first":
            return (plain,)
        return plain, msgspec.structs.replace(choice, lowering="multiplier")

    def text(self, choice: Choice) -> str:
        """T and the order: "2 × depthwise-first"."""
        return f"{choice.pairs} × {choice.order}"

    def macs(self, spec: ConvSpec, choice: Choice) -> int | None:
        """See `cost.pair_macs`."""
        return pair_macs(spec, _definite(choice), choice.pairs)

    def params(self, spec: ConvSpec, choice: Choice, *, bias: bool) -> int:
        """See `cost.pair_params`."""
        return pair_params(spec, _definite(choice), choice.pairs, bias=bias)

    def fit(
        self,
        data: SiteData,
        choice: Choice,
        options: FitOptions,
        start: Factorization | None = None,
    ) -> Fitted:
        """Fit pairs to data, in the order of the choice or in the better one."""
        pairs = fit_pairs(data, choice, options)
        read = data.stats[0] if len(data.stats) == 1 else None
        return Fitted(pairs, flat(pairs.kernel()), read)

    def fits_in_parts(self, choice: Choice) -> bool:
        """Only pointwise first mixes all channels at once."""
        return choice.order != "pointwise-first"

    def from_weights(
        self, kernel: Array, bias: Array | None, spec: ConvSpec, choice: Choice
    ) -> Factorization:
        """Take the leading singular vectors; see `factorize.from_weights`."""
        return replace(best_of_weights(kernel, bias, spec, choice), lowering=choice.lowering)

    def random(
        self, kernel: Array, bias: Array | None, choice: Choice, rng: np.random.Generator
    ) -> Factorization:
        """Draw fresh pairs; see `factorize.random_pairs`."""
        pairs = random_pairs(kernel, bias, _definite(choice), choice.pairs, rng)
        return replace(pairs, lowering=choice.lowering)


STYLE: BlockStyle = LinearBlock()


def flat(kernel: Float) -> Float:
    """Return a kernel (kh, kw, C, N) as it multiplies patches: (D, N), channel by channel."""
    return kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[-1])


def _definite(choice: Choice) -> Order:
    """Return the order; depthwise first, which is always possible, where it is open."""
    return ORDERS[0] if choice.order == "auto" else choice.order
