"""Figures as people read them."""

from __future__ import annotations

from dsconvert.base.units import short as short


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


def file(path: str, size: int | None, digest: str) -> str:
    """A written file with its size and hash."""
    return f"{path}: {kib(size or 0)}, SHA-256 {digest}"
