"""Reading samples as they are stored in NumPy files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array, Shape

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Request:
    """Which samples are wanted.

    Attributes:
        split: "train" or "test".
        samples: How many; None for all.
        seed: Seeds the draw.
        names: The names of the model's inputs, where known.
        shapes: Their shapes, batch axis first and channels last, where known.
    """

    split: Split
    samples: int | None = None
    seed: int = 0
    names: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()

    def draw(self, count: int) -> Any:
        """Indices of the samples to take of ``count``, in order, or a slice that takes all."""
        if self.samples is None or self.samples >= count:
            return slice(None)
        chosen = np.random.default_rng(self.seed).permutation(count)[: self.samples]
        return np.sort(chosen)


@dataclass(frozen=True)
class Raw:
    """Samples as stored: one array per input, (n, ...), and labels (n, ...) or None."""

    inputs: tuple[Array, ...]
    labels: Array | None


def read_archive(path: Path, request: Request) -> Raw:
    """Read an .npz file.

    Raises:
        InputError: If it is damaged or lacks an array.
    """
    with _readable(path), np.load(path, allow_pickle=False) as file:
        found = []
        for candidates in _input_keys(request):
            key = _find(file.files, candidates)
            if key is None:
                raise InputError(
                    f"{path} has no array {' or '.join(candidates)} to {request.split} with; "
                    f"it has {', '.join(file.files) or 'none'}."
                )
            found.append(key)
        # A "y" beside "x_train" belongs to no split.
        split_only = found[0].endswith(f"_{request.split}")
        label_keys = (f"y_{request.split}",) if split_only else (f"y_{request.split}", "y")
        label_key = _find(file.files, label_keys)
        inputs = [numeric(file[key], f"{key} of {path}") for key in found]
        labels = None if label_key is None else numeric(file[label_key], f"{label_key} of {path}")
    index = request.draw(len(inputs[0]))
    return Raw(tuple(array[index] for array in inputs), None if labels is None else labels[index])


def read_array(path: Path, request: Request) -> Raw:
    """Read an .npy file: the one input's samples, of which only those drawn are loaded.

    Raises:
        InputError: If it is damaged, or the model has several inputs.
    """
    if len(request.shapes) > 1:
        raise InputError(
            f"{path} holds one array and the model has {len(request.shapes)} inputs "
            f"({', '.join(request.names)}).",
            "Give an .npz file with one array per input, named after it.",
        )
    with _readable(path):
        array = numeric(np.load(path, mmap_mode="r", allow_pickle=False), str(path))
        return Raw((np.array(array[request.draw(len(array))]),), None)


def numeric(values: Any, what: str) -> Array:
    """An array of numbers.

    Raises:
        InputError: If it holds anything else.
    """
    array: Array = np.asanyarray(values)  # a memory map stays one
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise InputError(
            f"{what} is an array of type {array.dtype} and shape {array.shape}: "
            "it takes numbers with the samples along the first axis."
        )
    return array


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} cannot be read as a NumPy file: {error}") from error


def _input_keys(request: Request) -> list[tuple[str, ...]]:
    """For each input the names under which its array may be stored, the likeliest first."""
    split = request.split
    named: list[tuple[str, ...]] = [(f"{name}_{split}", name) for name in request.names]
    if len(named) > 1:
        return named
    return [(f"x_{split}", "x", *(named[0] if named else ()))]


def _find(keys: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in keys), None)
