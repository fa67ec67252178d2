"""Figures as people read them."""

from __future__ import annotations

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def short(value: float | None, unit: str = "") -> str:
    """1,234,567 as "1.23 M"; None as "–"."""
    if value is None:
        return "–"
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g}{' ' + unit if unit else ''}"


def percent(value: float | None, digits: int = 1) -> str:
    """0.1234 as "12.3 %"; None as "–"."""
    return "–" if value is None else f"{100 * value:.{digits}f} %"


def ratio(before: float | None, after: float | None) -> str:
    """How many times smaller: "3.4×"; "–" where unknown."""
    return "–" if not before or not after else f"{before / after:.2f}×"


def change(before: float | None, after: float | None) -> str:
    """How many times fewer, or more: "3.4× fewer"; "–" where unknown."""
    if not before or not after:
        return "–"
    return f"{after / before:.2f}× more" if after > before else f"{before / after:.2f}× fewer"


def kib(size: int) -> str:
    """Bytes as KiB or MiB."""
    return f"{size / 1024:.1f} KiB" if size < 1 << 20 else f"{size / (1 << 20):.2f} MiB"


def ms(value: float | None) -> str:
    """Milliseconds with three significant digits."""
    return "–" if value is None else f"{value:.3g} ms"
