"""What a plan must keep."""

from __future__ import annotations

import math

import msgspec

from dsconvert.base.errors import InputError

from .limits import Limit, parse_limit

WORDS = {"macs": "MACs", "params": "parameters"}
RESOURCES = ("latency", "macs", "params", "size", "arena", "flash")
"""What a plan can be limited in, besides output error."""


class Goals(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a plan must keep; a share of the original, "0.5x", or an amount, "3ms".

    Attributes:
        latency: Of the network, on the target: "0.5x" or "3ms".
        macs: Of the network: "0.4x" or "6.25M".
        params: Of the network: "0.3x" or "50k".
        size: Of the network's weights: "0.3x" or "200KB".
        arena: Of the activations of its .tflite file on a microcontroller: "0.5x" or "64KB".
        flash: Of its .tflite file: "0.5x" or "200KB".
        max_error: The most output error, summed over the layers.

    Raises:
        InputError: If a limit cannot be read.

    Example:
        >>> import dsconvert as ds
        >>> ds.Goals(latency="0.5x", params="50k").words()
        ('latency ≤ 0.5x', 'parameters ≤ 50k')
    """

    latency: Limit | str | None = None
    macs: Limit | str | None = None
    params: Limit | str | None = None
    size: Limit | str | None = None
    arena: Limit | str | None = None
    flash: Limit | str | None = None
    max_error: float | None = None

    def __post_init__(self) -> None:
        """Read limits that are texts."""
        for name in RESOURCES:
            given = getattr(self, name)
            if isinstance(given, str):
                msgspec.structs.force_setattr(self, name, parse_limit(given, name))
        if self.max_error is not None and not 0 <= self.max_error < math.inf:
            raise InputError(
                f"--max-error {self.max_error:g} is no output error.",
                "Give a number from 0 on; dsconvert sweep shows what output error buys.",
                code="not-an-output-error",
            )

    def limit(self, name: str) -> Limit | None:
        """Give the limit of one of `RESOURCES`."""
        found: Limit | str | None = getattr(self, name)
        assert not isinstance(found, str), "read when the goals were made"
        return found

    @property
    def memory(self) -> bool:
        """Tell whether they are about what a microcontroller has to hold."""
        return self.arena is not None or self.flash is not None

    def words(self) -> tuple[str, ...]:
        """As the user put them."""
        told = [
            f"{WORDS.get(name, name)} ≤ {limit.text}"
            for name in RESOURCES
            if (limit := self.limit(name)) is not None
        ]
        return (*told, *([] if self.max_error is None else [f"output error ≤ {self.max_error:g}"]))
