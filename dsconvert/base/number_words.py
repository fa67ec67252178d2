"""Numbers as people write them: one rule for every option, setting and size.

ASCII digits, with a sign, a point and an exponent where they make sense, and spaces around. Python
reads more: digits of other scripts, ``1_000``, ``inf`` and ``nan``, each a slip where it is typed.
"""

from __future__ import annotations

import math
import re

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_REAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def whole_number(text: str) -> int | None:
    """Read a whole number of at most 30 digits; None for what is none.

    >>> whole_number("12"), whole_number("1_2"), whole_number("12.0")
    (12, None, None)
    """
    text = text.strip(" ")
    return int(text) if _WHOLE.fullmatch(text) else None


def real_number(text: str) -> float | None:
    """Read a finite number; None for what is none.

    >>> real_number("-1.5e3"), real_number("nan"), real_number("1e400")
    (-1500.0, None, None)
    """
    text = text.strip(" ")
    number = float(text) if _REAL.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None
