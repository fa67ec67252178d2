"""TFRecord files of tf.train.Example."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array

from .record_files import Record, content, damaged
from .sources import Request

_IMAGES = ("image/encoded", "image", "image_raw", "jpg", "png")
_LABELS = ("label", "image/class/label", "class", "cls")
_HEAD, _TAIL = 12, 4
"""Bytes around each record: its length with a checksum, and the checksum of its content."""
_MASK = 0xA282EAD8
"""Is added, so that the checksum of data that hold checksums is none of theirs."""


class TfRecords:
    """Records of tf.train.Example.

    An encoded image is a bytes feature ``image/encoded`` or ``image``; other samples are a float
    or integer feature named ``x`` or as the model's input, in the model's shape. A class is an
    integer feature ``label`` or ``image/class/label``.

    Args:
        request: Names the model's input and its shape.
    """

    def __init__(self, request: Request) -> None:
        for package in ("tensorflow", "google_crc32c"):
            require(package, "keras", "to read .tfrecord files")
        self._names = (*_IMAGES, "x", *request.names[:1])
        self._shape = request.shapes[0][1:] if request.shapes else ()

    def list(self, file: Path) -> list[Record]:
        """Return the records by the lengths that are written before them."""
        end, start = file.stat().st_size, 0
        records: list[Record] = []
        with file.open("rb") as stream:
            if stream.read(2) == b"\x1f\x8b":
                why = "it is compressed, and its records cannot be found singly"
                raise damaged(file, why, f"Try: gunzip -c {file} > {file.stem}-plain{file.suffix}")
            while start < end:
                stream.seek(start)
                head = stream.read(_HEAD)
                size, checksum = struct.unpack("<QI", head) if len(head) == _HEAD else (end, None)
                if start + _HEAD + size + _TAIL > end:
                    raise damaged(file, f"record {len(records)} is longer than the file")
                if checksum != _checksum(head[:8]):
                    raise damaged(file, f"the checksum before record {len(records)} is wrong")
                records.append(Record(file, f"record {len(records)}", start + _HEAD, size))
                start += _HEAD + size + _TAIL
        return records

    def sample(self, record: Record) -> bytes | Array:
        """Return an encoded image, or the numbers in the model's shape."""
        features = self._features(record)
        for name in self._names:
            if name not in features:
                continue
            kind, values = _values(features[name])
            if kind == "bytes_list" and len(values) == 1:
                return bytes(values[0])
            if kind in ("float_list", "int64_list"):
                return self._shaped(np.asarray(values, np.float32), name, record)
        raise InputError(
            f"{record.file}, {record.name} has no feature {' or '.join(self._names)}; it has "
            f"{', '.join(sorted(features)) or 'none'}.",
            code="array-not-found",
        )

    def label(self, record: Record) -> int | None:
        """Return the class."""
        features = self._features(record)
        for name in _LABELS:
            if name in features:
                kind, values = _values(features[name])
                if kind == "int64_list" and len(values) == 1:
                    return int(values[0])
        return None

    def _shaped(self, values: Array, name: str, record: Record) -> Array:
        sizes = [-1 if size is None else size for size in self._shape]
        try:
            return values.reshape(sizes) if sizes.count(-1) < 2 else values
        except ValueError as error:
            raise InputError(
                f"{record.file}, {record.name}: {name} has {values.size} values, the model takes "
                f"{self._shape}.",
                code="shape-mismatch",
            ) from error

    @staticmethod
    def _features(record: Record) -> Any:
        from google.protobuf.message import DecodeError
        from tensorflow.train import Example

        found = content(record.file, record.start, record.size + _TAIL)
        if struct.unpack("<I", found[-_TAIL:])[0] != _checksum(found[:-_TAIL]):
            raise damaged(record.file, f"the checksum of {record.name} is wrong")
        example = Example()
        try:
            example.MergeFromString(found[:-_TAIL])
        except DecodeError as error:
            raise damaged(record.file, f"{record.name} is no tf.train.Example") from error
        return example.features.feature


def _values(feature: Any) -> tuple[str, Any]:
    kind = feature.WhichOneof("kind") or ""
    return kind, getattr(feature, kind).value if kind else ()


def _checksum(content: bytes) -> int:
    """Return what a file stores beside this content: its CRC-32C, turned and moved."""
    from google_crc32c import value

    crc: int = value(content)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF
