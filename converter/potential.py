"""What rewriting a whole network can save at most, told before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from .inspect import Inspected

WORTHWHILE = 1.2
"""Times fewer MACs from which a rewrite is worth a user's time. Depthwise kernels run fewer MACs a
second than the convolutions they replace: what saves 1.14 times the MACs was measured at 1.01 times
the speed."""


class Potential(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one pair in place of each convolution that has candidates would save.

    Attributes:
        convolutions: How many convolutions the network has.
        replaceable: How many of them are rewritten by default.
        share: Their part of the network's MACs; of its parameters where the image size is free.
        of: What the share is of: "MACs" or "parameters".
        at_most: How many times fewer MACs, or parameters, the network has at T = 1.
        pays: Whether that is worth a rewrite.
        quantized: How many convolutions stay because they are quantized already.
    """

    convolutions: int
    replaceable: int
    share: float
    of: str
    at_most: float
    pays: bool
    quantized: int = 0

    @property
    def text(self) -> str:
        """Return the whole in one line."""
        if not self.convolutions:
            return "This network has no convolution: a rewrite cannot save anything."
        counted = f"{self.replaceable} of {self.convolutions} convolutions"
        if not self.replaceable and self.quantized:
            return f"{counted} can be replaced: {self.quantized} are quantized already."
        if not self.replaceable:
            return f"{counted} can be replaced: a rewrite saves nothing here. int8 files may."
        told = (
            f"{counted} can be replaced, {_percent(self.share)} of the {self.of}: "
            f"at most {self.at_most:.2f}× fewer {self.of}."
        )
        return told if self.pays else f"{told} A rewrite does not pay here; int8 files may."


def potential(
    convolutions: Sequence[Inspected], macs: int | None, params: int, *, worthwhile: float
) -> Potential:
    """Sum up what one pair per convolution saves.

    Args:
        convolutions: All of the network.
        macs: Of the whole network; None where the image size is free.
        params: Of the whole network.
        worthwhile: From how many times fewer on a rewrite pays.
    """
    open_ = [row for row in convolutions if row.options and row.reason is None]
    of = "MACs" if macs else "parameters"
    whole = macs or params
    before = sum((row.macs if macs else row.params) or 0 for row in open_)
    after = sum((row.options[0].macs if macs else row.options[0].params) or 0 for row in open_)
    rest = max(whole - before + after, 1)
    at_most = whole / rest if whole else 1.0
    return Potential(
        convolutions=len(convolutions),
        replaceable=len(open_),
        share=before / whole if whole else 0.0,
        of=of,
        at_most=at_most,
        pays=bool(open_) and at_most >= worthwhile,
        quantized=sum(bool(row.reason and row.reason.code == "quantized") for row in convolutions),
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.0995 else f"{100 * share:.0f} %"
