"""The tail of a .tflite file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.formats.layer_names import MOVERS, WRAPPERS

from .output_tail import SAMPLES, OutputTail, find_tail
from .tflite_activations import TfliteValues

_SAME_SCALE = MOVERS | {"Concatenation", "Gather", "Slice", "Split", "Unpack"}
"""Operators whose output has the scale of their input."""


def tail_of(path: Path, samples: Sequence[Array]) -> OutputTail:
    """Find the tail of a float32 file; its tensors are called as `own_name` calls them.

    Args:
        path: The file.
        samples: One array per input, (n, ...), as the file takes them.
    """
    file = TfliteValues(path)
    reads = file.reads()
    called = {index: own_name(file.tensor_name(index)) for index in reads}
    indices = {name: index for index, name in called.items()}

    def read_by(name: str) -> list[str]:
        return [called[index] for index in reads[indices[name]] if index in reads]

    def values(names: Sequence[str]) -> Mapping[str, Array]:
        wanted = [indices[name] for name in names]
        size = int(file.batch or 1)
        count = max(size, min(len(samples[0]), SAMPLES) // size * size)
        found: list[list[Array]] = []
        for start in range(0, count, size):
            rows = np.arange(start, start + size) % len(samples[0])
            found.append(file.values([array[rows] for array in samples], wanted))
        parts = zip(*found, strict=True)
        return {
            name: np.concatenate(arrays)
            for name, arrays in zip(names, parts, strict=True)
            if arrays[0].ndim > 1
        }

    ends = [called[index] for index in file.output_tensors if index in called]
    tail = find_tail(ends, read_by, values)
    kinds = {own_name(tensor): kind for tensor, kind in file.kinds().items()}
    return _with_movers(tail, kinds, read_by)


def _with_movers(
    tail: OutputTail, kinds: Mapping[str, str], read_by: Callable[[str], Sequence[str]]
) -> OutputTail:
    """Return the tail with what moves values in front of it.

    The converter gives the input and the output of such an operator the same scale, so that the
    scale of a joined tensor would reach through it to what is joined.
    """
    mixed, cuts, level = list(tail.mixed), [], list(tail.cuts)
    while level:
        name = level.pop(0)
        if kinds[name] in _SAME_SCALE and read_by(name):
            mixed.append(name)
            level += [other for other in read_by(name) if other not in (*mixed, *level)]
        else:
            cuts.append(name)
    return OutputTail(tuple(mixed), tuple(dict.fromkeys(cuts)))


def own_name(tensor: str) -> str:
    """A tensor's name without what Keras' export puts before it, another number each time."""
    return ";".join(WRAPPERS.sub("", part) for part in tensor.split(";"))
