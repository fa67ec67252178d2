"""Sizes that are given to inputs which leave them free: read from words, put into shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

from .errors import InputError
from .number_words import whole_number

if TYPE_CHECKING:
    from .predictor import Shape

InputSizes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]
"""(name, sizes) of each input that is named; the name is empty for all that are not."""
SizeWords: TypeAlias = str | Sequence[int] | Sequence[str] | Mapping[str, str | Sequence[int]]
"""What sizes are given as: "256x256", (256, 256), "image=256x256", or {"image": (256, 256)}."""

_IMAGE_AXES = 4
_LARGEST = 1 << 20
UNKNOWN = "the input has no fixed size; give --input-size HxW"
"""Why a figure that depends on the size is not known."""


def parse_size(text: str) -> tuple[int, ...]:
    """Read "256x256", "256x256x3" or "16000".

    Raises:
        InputError: If it is none of these.
    """
    parts = text.lower().replace("×", "x").split("x")
    sizes = [whole_number(part) or 0 for part in parts]
    if not all(0 < size <= _LARGEST for size in sizes):
        raise InputError(
            f"invalid size {text!r}: positive numbers with an x between them are required.",
            "Write height and width as 256x256, or those of one input as NAME=256x256.",
            code="bad-size",
        )
    return tuple(sizes)


def as_sizes(words: SizeWords | None) -> InputSizes:
    """Read the sizes of inputs.

    Args:
        words: See `SizeWords`; several words, each with the name of an input, are a sequence.

    Returns:
        One entry per input that is named; an empty name stands for all others.

    Raises:
        InputError: If a word is no size, or an input is named twice.

    Example:
        >>> as_sizes("256x320")
        (('', (256, 320)),)
        >>> as_sizes({"image": (64, 64)})
        (('image', (64, 64)),)
    """
    if words is None:
        return ()
    if isinstance(words, Mapping):
        return tuple((name, _numbers(size)) for name, size in words.items())
    if isinstance(words, str):
        return (_named(words),)
    if all(isinstance(word, int) for word in words):
        return (("", _numbers(words)),) if words else ()
    found = tuple(_named(str(word)) for word in words)
    names = [name for name, _ in found]
    if len({*names}) < len(names):
        raise InputError(
            "an input is given two sizes.", "Name each input once: NAME=HxW.", code="size-twice"
        )
    return found


def fixed_shapes(
    names: Sequence[str], shapes: Sequence[Shape], sizes: InputSizes, *, channels_first: bool
) -> tuple[Shape, ...]:
    """Put sizes into shapes where these leave them free.

    Args:
        names: Of the inputs.
        shapes: Theirs, with the batch axis first, which stays as it is; None where a size is free.
        sizes: Height and width, maybe channels, of images; of others all sizes that are free.
        channels_first: Whether images are (n, C, H, W) where their shape allows both.

    Raises:
        InputError: If there is no such input, or its shape does not take the size.
    """
    given = dict(sizes)
    unknown = [name for name in given if name and name not in names]
    if unknown:
        raise InputError(
            f"no input is called {unknown[0]!r}.",
            f"Inputs: {', '.join(names)}.",
            code="unknown-input",
        )
    common = given.get("")
    found = []
    for name, shape in zip(names, shapes, strict=True):
        size = given.get(name) or common
        others_are_free = any(None in shape[1:] for shape in shapes)
        if size is None or (name not in given and None not in shape[1:] and others_are_free):
            found.append(shape)  # a size without a name is for inputs that have none
        else:
            found.append(_fixed(name, shape, size, channels_first=channels_first))
    return tuple(found)


def _fixed(name: str, shape: Shape, size: tuple[int, ...], *, channels_first: bool) -> Shape:
    for axes in _orders(shape, size, channels_first=channels_first):
        fits = all(shape[axis] in (None, value) for axis, value in zip(axes, size, strict=True))
        free = {axis for axis in range(1, len(shape)) if shape[axis] is None}
        if fits and free <= {*axes}:
            values = dict(zip(axes, size, strict=True))
            return tuple(values.get(axis, known) for axis, known in enumerate(shape))
    told = "×".join("?" if value is None else str(value) for value in shape[1:])
    wanted = "x".join(map(str, size))
    if None not in shape[1:]:
        raise InputError(
            f"input {name!r} has the fixed size {told}: it cannot be {wanted}.",
            "Leave --input-size out, or give the size that it has.",
            code="size-is-fixed",
        )
    raise InputError(
        f"input {name!r} has the sizes {told} without the batch: {wanted} does not fill them.",
        f"Give what is free, in that order: --input-size {name}=HxW",
        code="size-does-not-fit",
    )


def _orders(shape: Shape, size: tuple[int, ...], *, channels_first: bool) -> list[tuple[int, ...]]:
    """Return the axes that a size may be of, the likeliest first."""
    free = tuple(axis for axis in range(1, len(shape)) if shape[axis] is None)
    if len(shape) == _IMAGE_AXES and len(size) in (2, 3):
        orders = [(1, 2, 3), (2, 3, 1)]
        orders = orders[::-1] if channels_first else orders
        return [axes[: len(size)] for axes in orders]
    return [axes for axes in (free, tuple(range(1, len(shape)))) if len(axes) == len(size)]


def _named(word: str) -> tuple[str, tuple[int, ...]]:
    name, equals, size = word.rpartition("=")
    if equals and not name:
        raise InputError(
            f"invalid size {word!r}: no input is named.", "Write NAME=256x256.", code="bad-size"
        )
    return name, parse_size(size)


def _numbers(size: object) -> tuple[int, ...]:
    if isinstance(size, str):
        return parse_size(size)
    return parse_size("x".join(map(str, size)) if isinstance(size, Sequence) else str(size))


def size_words(sizes: InputSizes) -> list[str]:
    """Return sizes as a command line and a recipe say them."""
    return [f"{name}=" * bool(name) + "x".join(map(str, size)) for name, size in sizes]
