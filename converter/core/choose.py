"""Which order a layer's pairs take: the lower error among those that cost no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .cost import affordable_orders
from .factorize import from_weights
from .fit import FitOptions, fit, pointwise_first_work
from .moments import Statistics
from .predictor import Array
from .staged import Site
from .types import Choice, ConvSpec, Factorization, Order

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
    return affordable_orders(spec, choice.pairs) if choice.order == "auto" else (choice.order,)
