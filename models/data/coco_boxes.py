"""Boxes of the images in a folder, in the JSON form of the COCO data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.files import read_whole
from dsconvert.base.predictor import Array

NAME = "boxes.json"
"""The file beside the images, e.g. a copy of instances_val2017.json."""
_LARGEST = 1e9
"""Pixels that no image has in a row."""
_MOST = 2 << 30
"""Bytes that it may have: COCO's own of 118,000 images has 0.45 GB."""


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int


class _Annotation(msgspec.Struct):
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0


class _Category(msgspec.Struct):
    id: int


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_boxes(folder: Path, files: Sequence[Path]) -> Array | None:
    """Read the boxes of images from the folder's boxes.json.

    Args:
        folder: The folder.
        files: The images in it.

    Returns:
        (n, m, 6): left, top, right, bottom as shares of the image's size, the class, and whether it
        is a crowd; rows of class −1 fill up. Classes are numbered in the order of the categories'
        ids. None without such a file.

    Raises:
        InputError: If the file cannot be read, or does not know an image.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        content = msgspec.json.decode(read_whole(path, _MOST), type=_File)
    except (OSError, RecursionError, msgspec.DecodeError) as error:
        raise InputError(
            f"{path} cannot be read: {error}.",
            "It takes COCO's images (id, file_name, width, height), annotations (image_id, "
            "category_id, bbox) and categories (id).",
            code="boxes-unreadable",
        ) from error
    known = {image.file_name: image for image in content.images}
    found = [known.get(file.relative_to(folder).as_posix(), known.get(file.name)) for file in files]
    unknown = [file for file, image in zip(files, found, strict=True) if image is None]
    if unknown:
        raise InputError(
            f"{path} does not know {len(unknown)} of {len(files)} images: {unknown[0].name}, …",
            "List every image, those without boxes too.",
            code="boxes-unreadable",
        )
    numbers = {
        one: place for place, one in enumerate(sorted({one.id for one in content.categories}))
    }
    rows: dict[int, list[tuple[float, ...]]] = {image.id: [] for image in content.images}
    sizes = {image.id: (image.width, image.height) for image in content.images}
    for one in content.annotations:
        if one.image_id not in rows or one.category_id not in numbers:
            raise InputError(
                f"{path}: a box is of image {one.image_id} and category {one.category_id}, one of "
                "which is not listed.",
                code="boxes-unreadable",
            )
        left, top, width, height = one.bbox
        w, h = sizes[one.image_id]
        if min(w, h) <= 0:
            raise InputError(
                f"{path}: image {one.image_id} is {w}×{h} pixels.", code="boxes-unreadable"
            )
        if not (0 <= width < _LARGEST and 0 <= height < _LARGEST > max(abs(left), abs(top))):
            raise InputError(
                f"{path}: a box of image {one.image_id} is {one.bbox}.",
                "Left, top, width and height are wanted, in pixels.",
                code="boxes-unreadable",
            )
        corners = (left / w, top / h, (left + width) / w, (top + height) / h)
        rows[one.image_id].append((*corners, numbers[one.category_id], one.iscrowd))
    chosen = [rows[image.id] for image in found if image is not None]
    boxes = np.zeros((len(chosen), max(1, *map(len, chosen), 1), 6), np.float32)
    boxes[..., 4] = -1
    for place, given in enumerate(chosen):
        boxes[place, : len(given)] = np.array(given, np.float32).reshape(-1, 6)
    return boxes
