"""Records in large files: TFRecord files and tar shards, found by name, pattern or folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dsconvert.base.errors import InputError

from .images import encoded_images
from .record_files import Record, Records, opened
from .sources import Raw, Request
from .stored import Index, Stored, in_threads
from .tar_shards import TarShards
from .tfrecord import TfRecords

_TFDS = "tfds:"
_TFRECORD = re.compile(r"\.tfrecords?(-\d+-of-\d+)?$")
_RANGE = re.compile(r"\{(\d{1,18})\.\.(\d{1,18})\}", re.ASCII)
_MOST_FILES = 100_000
_SPLITS = {"train": ("train",), "test": ("test", "validation", "valid", "val", "eval")}
"""The words in a file's name by which it belongs to a split; the first that occur are taken."""


def is_records(source: str) -> bool:
    """Tell whether a source names records: files, a pattern of them, their folder, or "tfds:"."""
    if source.startswith(_TFDS) or _is_shard(Path(source)):
        return True
    path = Path(source)
    return path.is_dir() and any(map(_is_shard, path.iterdir()))


def read_records(source: str, request: Request, image_size: tuple[int, int] | None) -> Raw:
    """Find the records of a split; their content is decoded when it is asked for.

    Args:
        source: A .tfrecord file or .tar shard; a pattern of such files with ``*`` or
            ``{000..007}``; a folder of them; or ``tfds:NAME[/CONFIG][:VERSION]``, which is looked
            for in $TFDS_DATA_DIR or ~/tensorflow_datasets. Of files whose names say train, test
            or validation those of the split are read.
        request: Which samples are wanted.
        image_size: (height, width) of images; by default the model's.

    Raises:
        InputError: If there are no such files, or a file is damaged or holds no samples.
    """
    if len(request.shapes) > 1:
        raise InputError(
            f"{source} holds images, one in a record, and the model has "
            f"{len(request.shapes)} inputs ({', '.join(request.names)}).",
            "Give an .npz file with one array per input, named after it.",
            code="inputs-missing",
        )
    files = _of_split(files_of(source), request)
    kind: Records = TarShards() if files[0].suffix == ".tar" else TfRecords(request)
    records = [record for found in in_threads(kind.list, files) for record in found]
    if not records:
        raise InputError(f"{source} holds no records.", code="no-samples")
    first = kind.sample(records[0])
    if isinstance(first, bytes):
        names = [f"{record.file}: {record.name}" for record in records]
        inputs = encoded_images(
            lambda number: opened(kind.sample(records[number])), names, request, image_size
        )
    else:
        inputs = _arrays(kind, records, first)
    first_label = request.labels(lambda: kind.label(records[0]))
    labels = None if first_label is None else _labels(kind, records)
    return Raw((inputs,), labels)


def _arrays(kind: Records, records: Sequence[Record], first: np.ndarray) -> Stored:
    def read(numbers: Index) -> np.ndarray:
        arrays = in_threads(lambda n: kind.sample(records[n]), [int(n) for n in numbers])
        wrong = [
            f"{records[n].file}: {records[n].name}"
            for n, array in zip(numbers, arrays, strict=True)
            if np.shape(array) != first.shape
        ]
        if wrong:
            raise InputError(
                f"{len(wrong)} records have another shape than {first.shape}, that of the "
                f"first: {', '.join(wrong[:5])}.",
                "Write all samples in one shape.",
                code="shape-mismatch",
            )
        return np.stack(arrays)

    shape = (len(records), *first.shape)
    return Stored(read, shape, first.dtype, "\n".join(f"{r.file}:{r.start}" for r in records))


def _labels(kind: Records, records: Sequence[Record]) -> Stored:
    def read(numbers: Index) -> np.ndarray:
        labels = [kind.label(records[int(n)]) for n in numbers]
        missing = [records[int(n)] for n, one in zip(numbers, labels, strict=True) if one is None]
        if missing:
            raise InputError(
                f"{len(missing)} of {len(labels)} records have no label, the first of them "
                f"{missing[0].file}: {missing[0].name}.",
                code="labels-incomplete",
            )
        return np.array(labels)

    return Stored(read, (len(records),), np.dtype(np.int64), "labels")


def _is_shard(path: Path) -> bool:
    return path.suffix == ".tar" or _TFRECORD.search(path.name) is not None


def files_of(source: str) -> list[Path]:
    """Return the files of records that a source names, of all splits, sorted.

    Raises:
        InputError: If there are none, or are of two kinds.
    """
    if source.startswith(_TFDS):
        return files_of(str(_prepared(source.removeprefix(_TFDS))))
    if Path(source).is_dir():
        files = [path for path in Path(source).iterdir() if _is_shard(path)]
    else:
        named = (path for one in _expanded(source) for path in _matches(one))
        files = [path for path in named if path.is_file()]
    if not files:
        raise InputError(f"{source}: no such file.", code="data-not-found")
    if len({path.suffix == ".tar" for path in files}) > 1:
        raise InputError(
            f"{source} holds .tfrecord files and .tar shards.",
            "Give a pattern that names one kind.",
            code="not-a-data-source",
        )
    return sorted(files)


def _matches(pattern: str) -> Sequence[Path]:
    path = Path(pattern)
    if path.is_file():
        return [path]
    root = Path(path.anchor or ".")
    return list(root.glob(str(path.relative_to(path.anchor))))


def _expanded(source: str) -> Iterator[str]:
    """Yield the names that ``{000..007}`` stands for."""
    found = _RANGE.search(source)
    if found is None:
        yield source
        return
    low, high = found[1], found[2]
    if int(high) - int(low) >= _MOST_FILES:
        raise InputError(
            f"{source} stands for more than {_MOST_FILES:,} files.",
            "Write a pattern with * instead.",
            code="not-a-data-source",
        )
    for number in range(int(low), int(high) + 1):
        yield from _expanded(source.replace(found[0], f"{number:0{len(low)}}", 1))


def _of_split(files: Sequence[Path], request: Request) -> Sequence[Path]:
    """Return the files of the split where names say to which they belong, else all."""
    words = {path: set(re.split(r"[^a-z]+", path.name.lower())) for path in files}
    known = {word for split in _SPLITS.values() for word in split}
    if not any(known & found for found in words.values()):
        return files
    for word in _SPLITS[request.split]:
        chosen = [path for path in files if word in words[path]]
        if chosen:
            return chosen
    raise InputError(
        f"none of {files[0].name}, … is named {' or '.join(_SPLITS[request.split])}.",
        "Name the files to read by a pattern.",
        code="split-not-found",
    )


def _prepared(name: str) -> Path:
    """Return the folder of a data set that TensorFlow Datasets has prepared on this machine."""
    where, _, version = name.partition(":")
    root = Path(os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    folder = root / where
    versions = sorted(
        (path for path in (folder.iterdir() if folder.is_dir() else ()) if _is_version(path.name)),
        key=lambda path: [int(part) for part in path.name.split(".")],
    )
    for path in reversed(versions):
        if not version or path.name == version:
            return path
    there = ", ".join(path.name for path in versions) or "none"
    raise InputError(
        f"{folder} holds no prepared data set{f' of version {version}' if version else ''}; "
        f"versions there: {there}.",
        "Prepare it with TensorFlow Datasets, or set TFDS_DATA_DIR.",
        code="data-not-found",
    )


def _is_version(name: str) -> bool:
    return re.fullmatch(r"\d+\.\d+\.\d+", name) is not None
