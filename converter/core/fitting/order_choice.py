"""Which order a layer's pairs take: the lower error among those that cost no more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from ..stages import Site
from ..types import Choice, ConvSpec, Factorization, Order, error_between
from .cost import affordable_orders
from .factorize import from_weights
from .fit import FitOptions, fit, pointwise_first_work
from .moments import Statistics

AFFORDABLE_WORK = 2e9
"""Multiplications a sweep of the pointwise-first fit may take before "auto" leaves it out."""


def best_fit(stats: Statistics, site: Site, choice: Choice, options: FitOptions) -> Factorization:
    """Fit the site's pairs to the data, in the order that its choice names or leaves open."""
    weight = None if site.norm is None else site.norm.gain**2
    orders = _orders(site.spec, choice)
    note: tuple[str, ...] = ()
    if len(orders) > 1 and pointwise_first_work(site.kernel.shape, choice.pairs) > AFFORDABLE_WORK:
        orders = ("depthwise-first",)
        note = ("pointwise-first was not tried: its fit would take too long at this width",)

    def attempt(order: Order) -> Factorization:
        return fit(stats, site.kernel, order, choice.pairs, output_weight=weight, options=options)

    best = min(map(attempt, orders), key=lambda factors: factors.data_error or 0.0)
    return replace(best, notes=best.notes + note)


def block_fit(
    stats: Sequence[Statistics],
    blocks: Sequence[slice],
    site: Site,
    choice: Choice,
    options: FitOptions,
) -> Factorization:
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
    whole = Factorization(
        order="depthwise-first",
        depthwise=np.concatenate([part.depthwise for part in parts], axis=3),
        pointwise=np.concatenate([part.pointwise for part in parts], axis=1),
        bias=sum((part.bias for part in parts if part.bias is not None), np.zeros(1)),
        weight_error=0.0,
        data_error=float(np.sqrt(missed / max(sum(spread), 1e-300))),
        notes=(f"fitted in {len(parts)} blocks of channels: too wide for one covariance",),
    )
    return replace(whole, weight_error=error_between(site.kernel, whole.kernel()))


def best_of_weights(
    kernel: Array, bias: Array | None, spec: ConvSpec, choice: Choice
) -> Factorization:
    """The pairs nearest to the kernel, in the order that the choice names or leaves open."""
    return _least(
        lambda order: from_weights(kernel, bias, order, choice.pairs), _orders(spec, choice)
    )


def _least(attempt: Callable[[Order], Factorization], orders: tuple[Order, ...]) -> Factorization:
    return min(map(attempt, orders), key=lambda factors: factors.weight_error)


def _orders(spec: ConvSpec, choice: Choice) -> tuple[Order, ...]:
    if choice.block == "mobilenet":  # a ReLU after the pointwise would be another network
        return ("depthwise-first",)
    return affordable_orders(spec, choice.pairs) if choice.order == "auto" else (choice.order,)
