"""Reading samples as they are stored in NumPy files."""

from __future__ import annotations

import io
import lzma
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal, TypeVar

import numpy as np
import psutil

from dsconvert.base.errors import InputError
from dsconvert.base.messages import note
from dsconvert.base.predictor import Array, Shape

from .array_names import find_arrays
from .stored import Stored, of_array

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

_LOCAL_NAMES = 26
"""Where a member's own header in a zip file says how long its name and its extra field are."""

Split = Literal["train", "test"]
_Labels = TypeVar("_Labels")


@dataclass(frozen=True)
class Request:
    """Which samples are wanted.

    Attributes:
        split: "train" or "test".
        samples: How many; None for all.
        seed: Seeds the draw.
        names: The names of the model's inputs, where known.
        shapes: Their shapes, batch axis first and channels last, where known.
        memory: Bytes of float32 above which samples stay on disk; None reads all that are drawn.
        needs_labels: Whether the samples are no use without labels.
    """

    split: Split
    samples: int | None = None
    seed: int = 0
    names: tuple[str, ...] = ()
    shapes: tuple[Shape, ...] = ()
    memory: int | None = None
    needs_labels: bool = False

    def labels(self, read: Callable[[], _Labels]) -> _Labels | None:
        """Read labels; where none are needed, those of no use are left out, and a note says so.

        Raises:
            InputError: What ``read`` raises, if labels are needed.
        """
        try:
            return read()
        except InputError as error:
            if self.needs_labels:
                raise
            note(f"no labels are read: {error.words.message}")
            return None

    def draw(self, count: int) -> Any:
        """Indices of the samples to take of ``count``, in order, or a slice that takes all."""
        if self.samples is None or self.samples >= count:
            return slice(None)
        chosen = np.random.default_rng(self.seed).permutation(count)[: self.samples]
        return np.sort(chosen)

    def stays(self, shape: Sequence[int]) -> bool:
        """Tell whether samples (n, ...), as many of them as are drawn, are too large for memory."""
        count = min(shape[0], self.samples or shape[0])
        size = count * math.prod(shape[1:]) * np.dtype(np.float32).itemsize
        return self.memory is not None and size > self.memory


@dataclass(frozen=True)
class Raw:
    """Samples as stored: one array per input, (n, ...), and labels (n, ...) or None.

    Attributes:
        inputs: What is not in memory yet is read when it is asked for.
        labels: Labels of all samples; of records, those that are not read yet.
        drawn: Whether these are the samples that were asked for, and no more are to be drawn.
    """

    inputs: tuple[Array | Stored, ...]
    labels: Array | Stored | None
    drawn: bool = False


def read_archive(path: Path, request: Request) -> Raw:
    """Read an .npz file; large inputs that are not compressed stay on disk.

    Raises:
        InputError: If it is damaged or lacks an array.
    """
    with _readable(path):
        _check_archive(path, may_stay=request.memory is not None)
    with _readable(path), np.load(path, allow_pickle=False) as file:
        found = []
        wanted = _input_keys(request)
        for key, candidates in zip(find_arrays(file.files, wanted), wanted, strict=True):
            if key is None:
                names = " or ".join(dict.fromkeys(candidates))  # an input may be called x
                first = candidates[0]
                named = f"{first}=images" if first.isidentifier() else f"**{{{first!r}: images}}"
                raise InputError(
                    f"{path} has no array {names} to {request.split} with; "
                    f"it has {', '.join(file.files) or 'none'}.",
                    f"Save it under that name: numpy.savez(..., {named}).",
                    code="array-not-found",
                )
            found.append(key)
        # A "y" beside "x_train" belongs to no split.
        split_only = found[0].endswith(f"_{request.split}")
        label_keys = (f"y_{request.split}",) if split_only else (f"y_{request.split}", "y")
        label_key = next((key for key in label_keys if key in file.files), None)

        inputs = []
        for key in found:
            mapped = _mapped(path, f"{key}.npy", request)
            inputs.append(
                numeric(file[key], f"{key} of {path}")
                if mapped is None
                else _unread(numeric(mapped, f"{key} of {path}"), path, key)
            )

        def read_labels() -> Array:
            with _readable(path):
                return numeric(file[label_key], f"{label_key} of {path}")

        labels = None if label_key is None else request.labels(read_labels)
    return Raw(tuple(inputs), labels)


def _unread(array: Array, path: Path, key: str = "") -> Stored:
    told = path.stat()
    return of_array(array, f"{path}:{key}:{told.st_size}:{told.st_mtime_ns}")


def _mapped(path: Path, member: str, request: Request) -> Array | None:
    """Return a large member of an .npz file as a memory map; None where it is to be read.

    A map reads no checksum, as reading does: what fits into memory is read.
    """
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        with archive.open(info) as stream:
            shape, fortran, dtype = _header(stream)
            header = stream.tell()
    if dtype.hasobject or not shape or not request.stays(shape):
        return None
    with path.open("rb") as file:
        file.seek(info.header_offset + _LOCAL_NAMES)
        name, extra = struct.unpack("<HH", file.read(4))
    start = info.header_offset + _LOCAL_NAMES + 4 + name + extra + header
    order: Literal["C", "F"] = "F" if fortran else "C"
    return np.memmap(path, dtype, "r", offset=start, shape=shape, order=order)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of an array: its shape, whether columns come first, its type."""
    version = np.lib.format.read_magic(stream)
    return _HEADERS.get(version[0], np.lib.format.read_array_header_2_0)(stream)


def _check_archive(path: Path, *, may_stay: bool) -> None:
    """Refuse an .npz file whose headers promise more than its members or this machine hold.

    Args:
        path: The file.
        may_stay: Whether members that are not compressed may be larger than the memory.

    Raises:
        InputError: Before memory is taken.
    """
    free = psutil.virtual_memory().available
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.filename.endswith(".npy"):
                continue
            with archive.open(info) as member:
                shape, _, dtype = _header(member)
            name = info.filename.removesuffix(".npy")
            size = _check_header(f"{name} of {path}", shape, dtype, info.file_size)
            mappable = may_stay and info.compress_type == zipfile.ZIP_STORED
            if size > free and not mappable:
                raise InputError(
                    f"{path}: {name} is {shape} of {dtype}, {size / 2**30:.1f} GiB; "
                    f"{free / 2**30:.1f} GiB of memory are free.",
                    "Store it as .npy, of which only the samples needed are read.",
                    code="out-of-memory",
                )


def _check_header(what: str, shape: Sequence[int], dtype: np.dtype[Any], there: int) -> int:
    """Return how many bytes a header promises.

    Raises:
        InputError: If that is more than the bytes that are there.
    """
    size = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or (size > there and not dtype.hasobject):
        raise InputError(
            f"the header of {what} says {shape} of {dtype}, {size:,} bytes; {there:,} are there.",
            "Copy it again, or write it again with numpy.",
            code="header-lies",
        )
    return size


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
        return Raw((_unread(array, path),), None)


def decode_array(content: bytes, what: str) -> Array:
    """Return the array of numbers that the content of an .npy file holds.

    Args:
        content: The whole file.
        what: What to call it in a message.

    Raises:
        InputError: If it is damaged, or holds anything else.
    """
    with _readable(what):
        stream = io.BytesIO(content)
        shape, _, dtype = _header(stream)
        _check_header(what, shape, dtype, len(content) - stream.tell())
        return numeric(np.load(io.BytesIO(content), allow_pickle=False), what)


def numeric(values: Any, what: str) -> Array:
    """Return an array of numbers; those that are stored as objects become what they are.

    Raises:
        InputError: If it holds anything else.
    """
    array: Array = np.asanyarray(values)  # a memory map stays one
    if array.dtype.kind == "O":
        array = np.asarray(array.tolist())
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise InputError(
            f"{what} is an array of type {array.dtype} and shape {array.shape}: "
            "it takes numbers with the samples along the first axis.",
            code="not-numbers",
        )
    return array


@contextmanager
def _readable(what: Path | str) -> Iterator[None]:
    try:
        with np.errstate(over="raise"):  # sizes in a header may overflow
            yield
    except InputError:
        raise
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "allow_pickle" in reason:
            raise InputError(
                f"{what} holds an array of Python objects; to unpickle them would run code.",
                "Save it as numbers: numpy.savez(..., y=numpy.asarray(y, dtype='int64')).",
                code="data-unreadable",
            ) from error
        raise InputError(
            f"{what} cannot be read as a NumPy file: {reason}",
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
