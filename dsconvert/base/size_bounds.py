"""How large a tensor may be that a file asks for: told before memory is taken for it.

A damaged number, a padding of a million in the place of 1, makes a network of a few bytes that
takes all memory. To run a convolution takes up to ten times the bytes of its largest tensor.
Whoever has a sound network beyond the bound can raise it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from math import prod

from .errors import InputError
from .number_words import real_number
from .predictor import Shape

VARIABLE = "DSCONVERT_LARGEST_TENSOR"
"""The environment variable that raises, or lowers, the bound."""
_LARGEST = 512 << 20
"""Bytes of a tensor of one sample: 64 channels of 2048×1024 in float32."""
_ALWAYS = 64 << 20
"""Bytes that a tensor may have whatever the input is."""
_GROWTH = 10_000
"""Times as much as its input that a tensor of a network may be: 64 channels of an image that was
enlarged eightfold are 1,365 times it."""
_FREE = 32
"""Stands for a free size that is not the batch's: that of a small image."""
_AT_ONCE = 64 << 20
"""Bytes of the largest tensor of all samples that run at once."""
MOST_BYTES = 1 << 50
"""That anything may be given."""
_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}


def parse_bytes(text: str) -> int | None:
    """Read bytes as people write them, in binary units; None for what is no such size.

    >>> parse_bytes("1.5GiB") == parse_bytes("1536m")
    True
    """
    text = text.strip(" ").lower().removesuffix("b").removesuffix("i")
    power = _UNITS.get(text[-1:], 0)
    size = (real_number(text[:-1] if power else text) or 0) * 2**power
    return int(size) if 1 <= size <= MOST_BYTES else None


def largest_tensor(inputs: int) -> int:
    """Bytes that one tensor of one sample may have.

    Args:
        inputs: Bytes of all inputs of one sample.

    Raises:
        InputError: If the environment variable holds no size.
    """
    told = os.environ.get(VARIABLE, "")
    if not told:
        return min(_LARGEST, max(_ALWAYS, _GROWTH * inputs))
    size = parse_bytes(told)
    if size is None:
        raise InputError(
            f"{VARIABLE} is {told!r}, which is no size.",
            "Write it as 512MiB or 2GiB.",
            code="bad-size",
        )
    return size


def check_tensor(
    model: str, tensor: str, shape: Shape, element: int, inputs: int, batch: int = 1
) -> None:
    """Refuse a tensor that takes more than the bound.

    Args:
        model: The file, or what else to call the model.
        tensor: What to call the tensor.
        shape: Its sizes; None where one is free, which counts as 1.
        element: Bytes of one value.
        inputs: Bytes of all inputs of one sample.
        batch: Samples that all these sizes are for: those of a fixed batch.

    Raises:
        InputError: If it does.
    """
    size, most = bytes_of(shape, element), largest_tensor(inputs)
    if size > most:
        sizes = "×".join("?" if one is None else str(one) for one in shape)
        samples = "one sample" if batch == 1 else f"its fixed batch of {batch:,} samples"
        free = "" if batch == 1 else "Write it with a free batch, which runs sample by sample. "
        raise InputError(
            f"{model}: {tensor} is {sizes} and would take {_told(size)} for {samples}, whose "
            f"inputs take {_told(inputs)}; at most {_told(most)} is taken.",
            f"Copy or download it again if it is damaged. {free}"
            f"Else set {VARIABLE}={-(-size // 2**30)}GiB.",
            code="tensor-too-large",
        )


def bytes_of(shape: Shape, element: int) -> int:
    """Bytes of a tensor; a free size counts as 1."""
    return prod(1 if size is None else size for size in shape) * element


def with_small_sizes(shape: Shape) -> Shape:
    """Fill what a shape leaves free: the batch with 1, others with the size of a small image."""
    return tuple(size or (_FREE if axis else 1) for axis, size in enumerate(shape))


def fixed_batch(shapes: Iterable[Shape]) -> int:
    """Tell how many samples inputs of these shapes take at once; 1 where that is free."""
    first = {shape[0] for shape in shapes if shape}  # a single number has no batch
    size = first.pop() if len(first) == 1 else None
    return size or 1


def samples_at_once(largest: int, most: int) -> int:
    """Tell how many samples may run at once, if the largest tensor of one has so many bytes."""
    return max(1, min(most, _AT_ONCE // max(1, largest)))


def _told(size: int) -> str:
    """Write bytes as people read them."""
    return f"{size / 2**30:,.1f} GiB" if size >= 1 << 30 else f"{-(-size // 2**20):,} MiB"
