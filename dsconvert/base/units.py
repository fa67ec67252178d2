"""Amounts and lists as people read them."""

from __future__ import annotations

from collections.abc import Sequence

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def short(value: float | None, unit: str = "") -> str:
    """1,234,567 as "1.23 M"; None as "–"."""
    if value is None:
        return "–"
    rounded = float(f"{value:.3g}")  # 999,999 is 1 M, not 1e+03 k
    for size, prefix in _PREFIXES:
        if abs(rounded) >= size:
            return f"{rounded / size:.3g} {prefix}{unit}"
    return f"{rounded:.3g}{' ' + unit if unit else ''}"


def first_few(names: Sequence[str], most: int = 3) -> str:
    """Five names as "a, b, c and 2 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
