"""Values as they are written on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dsconvert.models.data.preprocess import Preprocessing


def number_word(value: float) -> str:
    """Write a factor as people do: "1/255", "1/127.5", "1/16", "0.25"."""
    divisor = round(10 / value) / 10 if 1e-9 < abs(value) < 1 else 0.0
    short = repr(float(value))
    longest = "0.25" if divisor.is_integer() else "1/127.5"
    if divisor and 1 / divisor == value and len(short) > len(longest):
        return f"1/{divisor:.12g}"
    return short.removesuffix(".0")


def preprocessing_words(preprocessing: Preprocessing) -> tuple[str, ...]:
    """Give the options that say the same on the command line again; none where nothing is done."""
    words: list[str] = []
    if preprocessing.scale != 1:
        words += ["--scale", number_word(preprocessing.scale)]
    for name, values in (("--mean", preprocessing.mean), ("--std", preprocessing.std)):
        if values is not None:
            words += [name, ",".join(map(repr, values))]
    return (*words, *(["--channels-first"] if preprocessing.channels_first else []))
