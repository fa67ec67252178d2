"""Reading samples as they are stored in NumPy files."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array, Shape

_UNREADABLE = (
    ArithmeticError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    OSError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy and zipfile raise over files whose headers lie."""

_HEADERS = {1: np.lib.format.read_array_header_1_0}
"""How a header is read, by its version; later ones are read as that of version 2."""

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
    with _readable(path):
        _check_archive(path)
    with _readable(path), np.load(path, allow_pickle=False) as file:
        found = []
        for candidates in _input_keys(request):
            key = _find(file.files, candidates)
            if key is None:
                raise InputError(
                    f"{path} has no array {' or '.join(candidates)} to {request.split} with; "
                    f"it has {', '.join(file.files) or 'none'}.",
                    code="array-not-found",
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


def _check_archive(path: Path) -> None:
    """Refuse an .npz file whose headers promise more than its members or this machine hold.

    Raises:
        InputError: Before memory is taken.
    """
    free = psutil.virtual_memory().available
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as member:
                version = np.lib.format.read_magic(member)
                read = _HEADERS.get(version[0], np.lib.format.read_array_header_2_0)
                shape, _, dtype = read(member)
            name, size = info.filename.removesuffix(".npy"), math.prod(shape) * dtype.itemsize
            if min(shape, default=0) < 0 or (size > info.file_size and not dtype.hasobject):
                raise InputError(
                    f"{path}: the header of {name} says {shape} of {dtype}, {size:,} bytes; "
                    f"{info.file_size:,} are there.",
                    "Copy it again, or write it again with numpy.savez.",
                    code="header-lies",
                )
            if size > free:
                raise InputError(
                    f"{path}: {name} is {shape} of {dtype}, {size / 2**30:.1f} GiB; "
                    f"{free / 2**30:.1f} GiB of memory are free.",
                    "Store it as .npy, of which only the samples needed are read.",
                    code="out-of-memory",
                )


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
            code="inputs-missing",
        )
    with _readable(path):
        array = numeric(np.load(path, mmap_mode="r", allow_pickle=False), str(path))
        return Raw((np.array(array[request.draw(len(array))]),), None)


def numeric(values: Any, what: str) -> Array:
    """Return an array of numbers.

    Raises:
        InputError: If it holds anything else.
    """
    array: Array = np.asanyarray(values)  # a memory map stays one
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise InputError(
            f"{what} is an array of type {array.dtype} and shape {array.shape}: "
            "it takes numbers with the samples along the first axis.",
            code="not-numbers",
        )
    return array


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        with np.errstate(over="raise"):  # sizes in a header may overflow
            yield
    except InputError:
        raise
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"{path} cannot be read as a NumPy file: {reason}",
            "Copy it again, or write it again with numpy.save or numpy.savez.",
            code="data-unreadable",
        ) from error


def _input_keys(request: Request) -> list[tuple[str, ...]]:
    """For each input the names under which its array may be stored, the likeliest first."""
    split = request.split
    named: list[tuple[str, ...]] = [(f"{name}_{split}", name) for name in request.names]
    if len(named) > 1:
        return named
    return [(f"x_{split}", "x", *(named[0] if named else ()))]


def _find(keys: Sequence[str], wanted: Sequence[str]) -> str | None:
    return next((name for name in wanted if name in keys), None)
