"""The block style "auto": the more accurate of a sum of pairs and a three-factor block.

Both are fitted to the same moments, and the one with the lower data error is kept. A choice of this
style holds both: `pairs` is T and `channels` is R. The budget that they come from is one and the
same, thus no rule about strides or widths is needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

from ..types import Choice, ConvSpec, Factorization
from . import linear_block, three_factor_block
from .block_style import BlockStyle, Fitted, SiteData
from .fit import FitOptions

_T = TypeVar("_T")
_PAIRS = linear_block.STYLE
_BLOCK = three_factor_block.STYLE


class AutoBlock:
    """See `block_style.BlockStyle`."""

    name = "auto"
    title = "pair or three-factor block"
    untrained = ""

    def check(self, choice: Choice) -> None:
        """Refuse what pairs or blocks refuse.

        Raises:
            InputError: If it is one of these.
        """
        _PAIRS.check(_pairs(choice))
        _BLOCK.check(Choice(block=_BLOCK.name, channels=choice.channels))

    def settled(self, choice: Choice, spec: ConvSpec | None) -> Choice:
        """Find the width that costs what the pairs cost, where none is given.

        A definite order asks for pairs.
        """
        if choice.order != "auto":
            return _PAIRS.settled(_pairs(choice), spec)
        if choice.channels is not msgspec.UNSET or spec is None:
            return choice
        channels = _BLOCK.settled(Choice(block=_BLOCK.name, pairs=choice.pairs), spec).channels
        return msgspec.structs.replace(choice, channels=channels)

    def written(self, choice: Choice) -> Choice:
        """Refuse.

        Raises:
            InputError: Always: which of the two is written is open.
        """
        raise InputError(
            "only a definite block style has a cost, got auto.", code="order-undecided"
        )

    def candidates(self, spec: ConvSpec, most: int) -> list[Choice]:
        """None: a plan tries both styles by themselves."""
        return []

    def within(self, spec: ConvSpec, macs: float) -> Choice:
        """Return the largest of both; a block alone where no pair fits."""
        block = _BLOCK.within(spec, macs)
        pairs = _PAIRS.within(spec, macs)
        if (_PAIRS.macs(spec, pairs) or 0) > macs:
            return block
        return msgspec.structs.replace(pairs, block=self.name, channels=block.channels)

    def lowerings(self, choice: Choice) -> tuple[Choice, ...]:
        """Return the choice itself, which is open."""
        return (choice,)

    def text(self, choice: Choice) -> str:
        """Both: "1 × auto or three-factor R = 32"."""
        return " or ".join(style.text(one) for style, one in self._both(choice))

    def macs(self, spec: ConvSpec, choice: Choice) -> int | None:
        """Return the larger of the two."""
        each = [style.macs(spec, one) for style, one in self._both(self.settled(choice, spec))]
        known = [macs for macs in each if macs is not None]
        return max(known) if len(known) == len(each) else None

    def params(self, spec: ConvSpec, choice: Choice, *, bias: bool) -> int:
        """Return the larger of the two."""
        both = self._both(self.settled(choice, spec))
        return max(style.params(spec, one, bias=bias) for style, one in both)

    def fit(
        self,
        data: SiteData,
        choice: Choice,
        options: FitOptions,
        start: Factorization | None = None,
    ) -> Fitted:
        """Fit both to data and keep the lower data error."""
        both = self._both(self.settled(choice, data.site.spec))
        fitted = [style.fit(data, one, options, start) for style, one in both]
        return _better(fitted, [one.factors.data_error or 0.0 for one in fitted])

    def fits_in_parts(self, choice: Choice) -> bool:
        """Both do: pairs whose order is open become depthwise first."""
        return True

    def from_weights(
        self, kernel: Array, bias: Array | None, spec: ConvSpec, choice: Choice
    ) -> Factorization:
        """Take the one nearer to the kernel."""
        both = self._both(self.settled(choice, spec))
        made = [style.from_weights(kernel, bias, spec, one) for style, one in both]
        return _better(made, [one.weight_error for one in made])

    def random(
        self, kernel: Array, bias: Array | None, choice: Choice, rng: np.random.Generator
    ) -> Factorization:
        """Draw fresh pairs, the tutorials' baseline."""
        return _PAIRS.random(kernel, bias, _pairs(choice), rng)

    def _both(self, choice: Choice) -> list[tuple[BlockStyle, Choice]]:
        if choice.block != self.name:  # settled, because of its order
            return [(_PAIRS, choice)]
        block = Choice(block=_BLOCK.name, channels=choice.channels)
        return [(_PAIRS, _pairs(choice)), (_BLOCK, block)]


STYLE: BlockStyle = AutoBlock()

_ROUNDING = 1e-6
"""Less than that is no difference between errors: where both are exact, pairs are taken."""


def _better(made: Sequence[_T], errors: Sequence[float]) -> _T:
    """Return the last one, the block, where its error is really lower than that of the pairs."""
    return made[-1] if errors[-1] < errors[0] - _ROUNDING else made[0]


def _pairs(choice: Choice) -> Choice:
    return msgspec.structs.replace(choice, block=_PAIRS.name, channels=msgspec.UNSET)
