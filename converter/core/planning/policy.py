"""Deciding what to do with each convolution. A plan is data: nothing is touched here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import Protocol

import msgspec

from dsconvert.base.errors import InputError
from dsconvert.base.units import first_few

from ..fitting.styles import DEFAULT, block_style
from ..types import Choice, ConvSpec, LayerPlan, OrderChoice, Plan, Reason


class ConvolutionFacts(Protocol):
    """A convolution as a backend found it."""

    @property
    def name(self) -> str:
        """Its name in the model."""

    @property
    def spec(self) -> ConvSpec | None:
        """Its geometry, if it is a two-dimensional convolution."""

    @property
    def reason(self) -> Reason | None:
        """Tell why it cannot be rewritten, if so."""

    @property
    def stem(self) -> bool:
        """Tell whether it reads a picture."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A uniform wish for all convolutions.

    Attributes:
        pairs: T, at least 1.
        order: Which operation comes first; "auto" takes the lower error at equal cost.
        block: The block style; see `Choice`.
        channels: R of a block whose width is free; unset, it is as wide as ``pairs`` pairs cost.
        include: Glob patterns of names to rewrite; empty means all.
        exclude: Glob patterns of names to leave alone.
    """

    pairs: int = 1
    order: OrderChoice = "auto"
    block: str = DEFAULT
    channels: int | msgspec.UnsetType = msgspec.UNSET
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    @property
    def choice(self) -> Choice:
        """Return what every convolution is to become."""
        return Choice(pairs=self.pairs, order=self.order, block=self.block, channels=self.channels)


def make_plan(
    candidates: Sequence[ConvolutionFacts], policy: Policy, source_sha256: str = ""
) -> Plan:
    """Apply a policy to every convolution.

    Raises:
        InputError: If the block style is unknown or refuses the choice, as less than one pair, or
            a pattern matches nothing.
    """
    block_style(policy.block).check(policy.choice)
    names = [candidate.name for candidate in candidates]
    for pattern in (*policy.include, *policy.exclude):
        if not _matches_any(names, pattern):
            raise InputError(
                f"no convolution matches {pattern!r}; there are: {', '.join(names) or 'none'}.",
                "Try: dsconvert inspect MODEL",
                code="no-such-layer",
            )
    layers = tuple(_plan_one(candidate, policy) for candidate in candidates)
    return Plan(source_sha256=source_sha256, layers=layers)


def replay_plan(plan: Plan, candidates: Sequence[ConvolutionFacts]) -> Plan:
    """A given plan, checked against the model and completed: every convolution, as it stands there.

    Raises:
        InputError: If it is for other layers, rewrites a convolution that is not there or that
            cannot be rewritten, says two things of one, or a block style refuses the choice, as
            less than one pair.
    """
    known = {candidate.name: candidate for candidate in candidates}
    if known and not any(layer.name in known for layer in plan.layers):
        raise _for_other_layers(plan, known)
    given: dict[str, LayerPlan] = {}
    for layer in plan.layers:
        if given.setdefault(layer.name, layer).choice != layer.choice:
            raise InputError(
                f"the plan has {layer.name!r} twice, with different choices.",
                "Take one of them out of the plan.",
                code="choice-not-possible",
            )
    for name, choice in plan.chosen.items():
        if name not in known:
            raise _for_other_layers(plan, known)
        reason = known[name].reason
        if reason is not None:
            raise InputError(
                f"the plan rewrites {name!r}, which cannot be: {reason.text}.",
                "Take its choice out of the plan.",
                code="layer-not-rewritable",
            )
        try:
            block_style(choice.block).check(choice)
        except InputError as error:
            raise InputError(
                f"the plan's choice for {name!r}: {error.message}",
                "Change the choice, or take it out of the plan to leave the layer alone.",
                code="choice-not-possible",
            ) from error
    layers = tuple(_replay_one(candidate, given.get(candidate.name)) for candidate in candidates)
    return msgspec.structs.replace(plan, layers=layers)


def _for_other_layers(plan: Plan, known: Iterable[str]) -> InputError:
    """Return the refusal of a plan by the layers that it has and the model has not."""
    has = f"the model has: {', '.join(known) or 'none'}."
    if not plan.layers:  # `plan` lists every convolution, those that it leaves alone too
        return InputError(
            f"the plan has no layers, and {has}",
            "Make it again: dsconvert plan MODEL.",
            code="not-a-plan",
        )
    lost = [name for name in plan.chosen if name not in known]
    told = f"rewrites {lost[0]!r}" if lost else f"is for {first_few([x.name for x in plan.layers])}"
    return InputError(
        f"the plan {told}; {has}",
        "Use the plan with the model that it was made for.",
        code="no-such-layer",
    )


def with_block_style(plan: Plan, block: str) -> tuple[Plan, tuple[str, ...]]:
    """Give every choice of a plan one block style.

    Returns:
        The plan, and a sentence about the layers whose order had to change for that.

    Raises:
        InputError: If there is no such style.
    """
    style = block_style(block)
    turned: dict[str, list[str]] = {}

    def change(layer: LayerPlan) -> LayerPlan:
        if layer.choice is None:
            return layer
        before = layer.choice.order
        choice = style.settled(msgspec.structs.replace(layer.choice, block=block), layer.spec)
        if "auto" not in (before, choice.order) and choice.order != before:
            turned.setdefault(f"{before}, but a {style.title} is {choice.order}", []).append(
                layer.name
            )
        return msgspec.structs.replace(layer, choice=choice)

    changed = msgspec.structs.replace(plan, layers=tuple(map(change, plan.layers)))
    notes = tuple(f"planned {what}: {', '.join(names)}" for what, names in turned.items())
    return changed, notes


def _matches_any(names: Iterable[str], pattern: str) -> bool:
    return any(fnmatchcase(name, pattern) for name in names)


def _plan_one(candidate: ConvolutionFacts, policy: Policy) -> LayerPlan:
    reason = candidate.reason or _unwanted(candidate, policy)
    if reason is not None:
        return LayerPlan(name=candidate.name, spec=candidate.spec, reason=reason)
    choice = block_style(policy.block).settled(policy.choice, candidate.spec)
    return LayerPlan(name=candidate.name, spec=candidate.spec, choice=choice)


def _replay_one(candidate: ConvolutionFacts, given: LayerPlan | None) -> LayerPlan:
    if given is not None and given.choice is not None:
        choice = block_style(given.choice.block).settled(given.choice, candidate.spec)
        return msgspec.structs.replace(given, spec=candidate.spec, choice=choice, reason=None)
    reason = candidate.reason or (given and given.reason)
    reason = reason or Reason(code="unplanned", text="the plan leaves it alone")
    return LayerPlan(name=candidate.name, spec=candidate.spec, reason=reason)


def _unwanted(candidate: ConvolutionFacts, policy: Policy) -> Reason | None:
    name, spec = candidate.name, candidate.spec
    for pattern in policy.exclude:
        if fnmatchcase(name, pattern):
            return Reason(code="excluded", text=f"excluded by {pattern!r}")
    if policy.include and not any(fnmatchcase(name, pattern) for pattern in policy.include):
        return Reason(code="not-included", text="not among the included names")
    # A stem is rewritten only when it is meant: named without a wildcard.
    if spec is not None and candidate.stem and name not in policy.include:
        channels = f"{spec.in_channels} input channel{'s' if spec.in_channels > 1 else ''}"
        return Reason(
            code="stem",
            text=f"a stem of {channels}: its pairs are no faster (--include {name} to insist)",
        )
    return None
