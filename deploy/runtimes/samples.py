"""Input arrays: checked ones and random ones."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.finite import check_finite
from dsconvert.base.in_batches import samples_first
from dsconvert.base.predictor import Array
from dsconvert.base.whole_numbers import check_held

from .tensor_info import TensorInfo

FREE_SIZE = 64
"""Height, width and other free sizes of random images."""
_FEW, _MANY = 4, 32
_SIGNAL, _SIGNAL_AXES = 512, 2
"""A window of speech recognisers, and the axes of an input of signals: n, and time."""
_RANDOM_VALUES = 1 << 23
"""In all random samples of a comparison together: 32 images of 224×224×3, 5 of 720×720×3."""


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape as people write it: ``n×32×32×3``, n the batch and ``?`` for any other free size."""
    sizes = ["?" if size is None else str(size) for size in shape]
    if shape and shape[0] is None:
        sizes[0] = "n"
    return "×".join(sizes) if sizes else "scalar"


def check_inputs(
    data: Sequence[Array] | Array, inputs: Sequence[TensorInfo], what: str
) -> tuple[Array, ...]:
    """Return the data as one array per input, (n, ...), of sizes that the inputs allow.

    The first axis is free: a file with a fixed batch is fed batch by batch.

    Args:
        data: One array per input, or the array itself if there is one input.
        inputs: The inputs they are for.
        what: What to call the data in an error, e.g. ``"calibration data"``.

    Raises:
        InputError: If arrays are missing or too many, their sizes do not fit, they are empty, or a
            value is not finite.
    """
    arrays = (data,) if isinstance(data, np.ndarray) else tuple(np.asarray(a) for a in data)
    if len(arrays) != len(inputs):
        wanted = ", ".join(f"{i.name} ({shape_text(i.shape)})" for i in inputs)
        raise InputError(
            f"{what}: got {len(arrays)} arrays where the model has {len(inputs)} inputs: {wanted}.",
            code="inputs-missing",
        )
    for array, info in zip(arrays, inputs, strict=True):
        _check_array(array, info, what)
    return arrays


def count_samples(arrays: Sequence[Array], what: str) -> int:
    """Tell how many samples the arrays hold.

    Args:
        arrays: One array per input, (n, ...).
        what: What to call the data in an error.

    Raises:
        InputError: If the arrays disagree, or one has no first axis.
    """
    counts = {array.shape[:1] for array in arrays}
    if len(counts) > 1 or () in counts:
        sizes = ", ".join(shape_text(count) for count in sorted(counts))
        raise InputError(
            f"{what}: the inputs have different numbers of samples: {sizes}.", code="counts-differ"
        )
    return len(arrays[0])


def first_samples(arrays: Sequence[Array], count: int) -> tuple[Array, ...]:
    """Return so many samples; all of inputs without a common batch, such as a signal and its rate.

    Args:
        arrays: One array per input, (n, ...).
        count: How many.
    """
    return tuple(array[:count] for array in arrays) if are_samples(arrays) else tuple(arrays)


def portions(arrays: Sequence[Array], size: int) -> Iterator[list[Array]]:
    """Yield so many samples after the other; the last one is repeated where some are missing.

    Inputs without a common batch are those of one invocation.

    Args:
        arrays: One per input, (n, ...).
        size: How many at once: the batch of a file.
    """
    if not are_samples(arrays):
        yield list(arrays)
        return
    for start in range(0, len(arrays[0]), size):
        part = [array[start : start + size] for array in arrays]
        lack = size - len(part[0])
        yield [np.concatenate([x, np.repeat(x[-1:], lack, 0)]) for x in part] if lack else part


def are_samples(arrays: Sequence[Array]) -> bool:
    """Tell whether inputs have a common batch; a signal with its states has none.

    Args:
        arrays: One array per input.
    """
    counts = {array.shape[:1] for array in arrays}
    return len(counts) == 1 and () not in counts


def samples_of(arrays: Sequence[Array]) -> int:
    """Count the samples in the inputs of a model; 1 where they have no common batch.

    >>> samples_of([np.array(0.5), np.zeros((32, 8, 8, 3))])
    1
    """
    return len(arrays[0]) if are_samples(arrays) else 1


def _check_array(array: Array, info: TensorInfo, what: str) -> None:
    """Check one array; see `check_inputs`."""
    fits = array.ndim == len(info.shape) and all(
        allowed in (None, size)
        for size, allowed in zip(array.shape[1:], info.shape[1:], strict=True)
    )
    if not fits:
        raise InputError(
            f"{what}: the array for input {info.name} has shape {shape_text(array.shape)}, "
            f"allowed is {shape_text((None, *info.shape[1:]) if info.shape else ())}.",
            code="shape-mismatch",
        )
    if array.size == 0:
        raise InputError(f"{what}: the array for input {info.name} is empty.", code="no-samples")
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"{what}: the array for input {info.name} holds {array.dtype}, no numbers.",
            code="not-numbers",
        )
    check_finite(array, f"{what}: input {info.name}")
    if info.scale is None:
        check_held(array, info.dtype, f"{what}: input {info.name}")


def random_count(inputs: Sequence[TensorInfo], free_size: int) -> int:
    """Tell how many random samples to compare on: 32, down to 4 where they are large.

    Args:
        inputs: The inputs they are for.
        free_size: What is taken for free sizes.
    """
    values = sum(
        math.prod(free_size if size is None else size for size in info.shape[1:]) for info in inputs
    )
    return max(_FEW, min(_MANY, _RANDOM_VALUES // max(1, values)))


def random_inputs(
    inputs: Sequence[TensorInfo], count: int, seed: int, free_size: int | None = None
) -> tuple[Array, ...]:
    """Seeded random arrays, (count, ...) each, as real (dequantized) values.

    Floats are standard normal; quantized inputs are uniform over the range they can store;
    uint8 is uniform over 0…255; other integers are 0 or 1, valid as an index everywhere.

    Args:
        inputs: The inputs to make arrays for.
        count: Samples, where the batch is free; a fixed batch keeps its size.
        seed: Of the random numbers.
        free_size: What to take for free sizes other than the batch.

    Raises:
        InputError: If a size other than the batch is free and ``free_size`` is None.
    """
    rng = np.random.default_rng(seed)
    arrays = []
    for info in inputs:
        sizes = [count if i == 0 and size is None else size for i, size in enumerate(info.shape)]
        if free_size is None and None in sizes:
            raise InputError(
                f"input {info.name} has free sizes ({shape_text(info.shape)}).",
                "Give the size, --input-size HxW, or input data, whose size is used.",
                code="free-sizes",
            )
        shape = tuple(free_size if size is None else size for size in sizes)
        arrays.append(_random_array(rng, info, shape))
    return tuple(arrays)


def random_samples(
    inputs: Sequence[TensorInfo], seed: int, count: int | None = None
) -> tuple[Array, ...]:
    """Seeded random arrays to compare two models on.

    Inputs without a common batch get those of one invocation: a signal, of 512 values where its
    length is free, and beside it states whose free size is the batch, of 1.

    Args:
        inputs: The inputs to make arrays for.
        seed: Of the random numbers.
        count: Samples, of any batch that a fixed one is fed with; by default `random_count`.
    """
    if samples_first([info.shape for info in inputs]):
        free = [msgspec.structs.replace(info, shape=(None, *info.shape[1:])) for info in inputs]
        return random_inputs(free, count or random_count(free, FREE_SIZE), seed, FREE_SIZE)
    first = FREE_SIZE if len(inputs[0].shape) > _SIGNAL_AXES else _SIGNAL
    sizes = (first, *[1] * (len(inputs) - 1))
    return tuple(
        array
        for info, size in zip(inputs, sizes, strict=True)
        for array in random_inputs([info], 1, seed, size)
    )


def _random_array(rng: np.random.Generator, info: TensorInfo, shape: Any) -> Array:
    """Return one random array; see `random_inputs`."""
    try:
        dtype = np.dtype(info.dtype)
    except TypeError:  # texts
        dtype = np.dtype(object)
    if dtype.kind in "OSU":
        raise InputError(
            f"input {info.name} takes values of the type {info.dtype}; only numbers are made up, "
            "exported and compared.",
            "Give the part of the model behind what reads them: keras.Model(inputs, outputs) of "
            "the first tensor of numbers.",
            code="text-input",
        )
    array: Array
    if dtype.kind == "f":
        array = rng.standard_normal(shape, dtype=np.float32)
    elif info.scale is not None and info.zero_point is not None:
        limits = np.iinfo(dtype)
        stored = rng.integers(limits.min, limits.max, shape, endpoint=True)
        array = ((stored - info.zero_point) * info.scale).astype(np.float32)
    else:
        array = rng.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)
    return array
