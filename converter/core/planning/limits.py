"""Limits as people write them: 0.5x, 3ms, 6.25M, 200KB."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import msgspec

from dsconvert.base.errors import InputError
from dsconvert.base.number_words import real_number

_PREFIXES: Mapping[str, float] = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9}
_BYTES: Mapping[str, float] = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}
_MILLISECONDS: Mapping[str, float] = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_UNITS = {"latency": _MILLISECONDS, "size": _BYTES, "arena": _BYTES, "flash": _BYTES}
_NUMBER = re.compile(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*([a-zµ%×]*)\s*$", re.IGNORECASE)


class Limit(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The most that a resource may come to.

    Attributes:
        value: A share of the original, or an amount.
        relative: Which of the two.
        text: As it was written.
    """

    value: float
    relative: bool
    text: str

    def of(self, original: float) -> float:
        """Return the amount, for an original of this size."""
        return self.value * original if self.relative else self.value


def parse_limit(text: str, resource: str) -> Limit:
    """Read "0.5x", "50%" or an amount: of "latency" in ms, of memory in bytes, else a count.

    Raises:
        InputError: If it is none of these, or not positive.
    """
    units: Mapping[str, float] = _UNITS.get(resource, _PREFIXES)
    match = _NUMBER.match(text)
    unit = match[2].lower() if match else ""
    number = (real_number(match[1]) if match else None) or 0.0
    if not number * units.get(unit, 1.0) < math.inf:
        number = 0.0
    if number > 0 and unit in ("x", "×", "%"):
        return Limit(value=number / 100 if unit == "%" else number, relative=True, text=text)
    if number > 0 and unit in units:
        return Limit(value=number * units[unit], relative=False, text=text)
    example = "3ms" if resource == "latency" else "200KB" if units is _BYTES else "6.25M"
    raise InputError(
        f"{text!r} is no target for {resource}.",
        f"Write a share of the original, as 0.5x, or an amount, as {example}.",
        code="not-a-target",
    )
