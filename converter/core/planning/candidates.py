"""What the layers of a network may become."""

from __future__ import annotations

import msgspec

from ..types import Choice, ConvSpec, Effect, Figure, Reason


class Candidate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One thing that a layer may become.

    Attributes:
        choice: The pairs, their order and lowering.
        effect: What it alone does.
        macs: Over all calls; None where the size is free.
        params: Weights and bias.
        cost: On the target; None where nothing was measured.
    """

    choice: Choice
    effect: Effect
    macs: int | None
    params: int
    cost: Figure | None = None


class LayerCandidates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One convolution and its candidates; none where it is left alone, with the reason.

    Attributes:
        name: Its name.
        spec: Its geometry.
        reason: Why it has no candidates.
        macs: Of the convolution over all calls.
        params: Of the convolution, and of what its pairs take in with it.
        cost: Of the convolution on the target.
        candidates: What it may become.
    """

    name: str
    spec: ConvSpec | None
    reason: Reason | None = None
    macs: int | None = None
    params: int = 0
    cost: Figure | None = None
    candidates: tuple[Candidate, ...] = ()
