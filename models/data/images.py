"""Folders of image files, and what decodes an image."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, UnidentifiedImageError

from dsconvert.base.errors import InputError
from dsconvert.base.messages import note
from dsconvert.base.predictor import Array, Shape

from .coco_boxes import read_boxes
from .sources import Raw, Request, Split
from .stored import Index, Stored, in_threads

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Pillow's decoders for these suffixes; others (EPS) would start programs on the data."""
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_OF_OTHER_KINDS = (TypeError, LookupError, ArithmeticError, struct.error)
"""What decoders raise over fields of another kind than they expect."""
_UNREADABLE = (
    OSError, SyntaxError, ValueError, Image.DecompressionBombError, *_OF_OTHER_KINDS,
)  # fmt: skip
_BITS_OF_TIFF = 258
"""The tag of a TIFF file with the bits of a pixel: Pillow reads 12 of them as 16."""
Open = Callable[[int], IO[bytes] | Path]
"""Gives the encoded image of this number."""


def read_folder(folder: Path, request: Request, image_size: tuple[int, int] | None) -> Raw:
    """Find images, uint8 (n, H, W, C); classes are the sub-folders, sorted by name.

    Where a file boxes.json is in the folder, its boxes are the labels; see `coco_boxes`.

    Raises:
        InputError: If there are none, or they lie in two ways at once.
    """
    folder = _split_folder(folder, request)
    files, labels = _listed(folder)
    images = encoded_images(
        lambda number: files[number], [str(file) for file in files], request, image_size
    )
    boxes = read_boxes(folder, files)
    if boxes is not None:
        return Raw((images,), boxes)
    return Raw((images,), None if labels is None else np.array(labels))


def class_names(folder: Path, split: Split) -> tuple[str, ...]:
    """Return the names of the classes where images lie in one folder for each; else none.

    Args:
        folder: As for `read_folder`.
        split: The part whose classes are meant, where there are two.
    """
    folder = folder / split if (folder / split).is_dir() else folder
    if _images(folder.iterdir()):
        return ()
    return tuple(path.name for path in _class_folders(folder))


def encoded_images(
    open_image: Open, names: Sequence[str], request: Request, image_size: tuple[int, int] | None
) -> Stored:
    """Return encoded images as samples (n, H, W, C) of uint8, decoded when they are asked for.

    Args:
        open_image: Gives the file, or the stream, of the image of a number.
        names: What to call each.
        request: The model's shapes say the number of channels, and the size if ``image_size``
            does not.
        image_size: (height, width) to resize to.

    Raises:
        InputError: If the model takes no images; and, when they are decoded, with all that cannot
            be read.
    """
    shape = request.shapes[0] if request.shapes else (None, None, None, 3)
    mode = _mode(shape)
    size = image_size
    if size is None and shape[1] is not None and shape[2] is not None:
        size = (shape[1], shape[2])

    first = _first_size(open_image, len(names))
    if size is not None and first not in (size, (0, 0)):
        note(
            f"images are resized to the model's {size[0]}×{size[1]}: {names[0]} is "
            f"{first[0]}×{first[1]}"
            + ("" if first[0] * size[1] == first[1] * size[0] else "; its proportions change")
        )

    def read(numbers: Index) -> Array:
        return _read_all(open_image, [(int(n), names[n]) for n in numbers], mode, size)

    height, width = size or first
    sample = (height, width, Image.getmodebands(mode))
    return Stored(read, (len(names), *sample), np.dtype(np.uint8), "\n".join(names))


def _first_size(open_image: Open, count: int) -> tuple[int, int]:
    """Return (height, width) by the header of the first image that has one."""
    for number in range(count):
        with suppress(*_UNREADABLE), Image.open(open_image(number), formats=_FORMATS) as image:
            return image.height, image.width
    return 0, 0


def _split_folder(folder: Path, request: Request) -> Path:
    splits = [name for name in ("train", "test") if (folder / name).is_dir()]
    if not splits:
        return folder
    if request.split not in splits:
        raise InputError(
            f"{folder} has a sub-folder {splits[0]}/ but none named {request.split}/.",
            f"Add {folder / request.split}, or name a folder of images directly.",
            code="split-not-found",
        )
    return folder / request.split


def _listed(folder: Path) -> tuple[list[Path], list[int] | None]:
    """Return the image files, and the number of each one's class if there are classes."""
    loose = _images(folder.iterdir())
    # An empty folder keeps its number: the other classes must not move up.
    classes = _class_folders(folder)
    by_class = [_images(entry.rglob("*")) for entry in classes]
    labelled = [(file, number) for number, files in enumerate(by_class) for file in files]
    if loose and labelled:
        raise InputError(
            f"{folder} holds {len(loose)} images beside sub-folders with {len(labelled)} more.",
            "Put every image into the folder of its class, or all into one folder.",
            code="images-ambiguous",
        )
    if not loose and not labelled:
        raise InputError(
            f"{folder} holds no images ({', '.join(sorted(SUFFIXES))}).", code="no-images"
        )
    if loose:
        return loose, None
    return [file for file, _ in labelled], [number for _, number in labelled]


def _class_folders(folder: Path) -> list[Path]:
    return sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _images(entries: Iterable[Path]) -> list[Path]:
    return sorted(
        entry
        for entry in entries
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    )


def _mode(shape: Shape) -> str:
    """Pillow's name for as many channels as the model takes."""
    modes = {None: "RGB", 1: "L", 3: "RGB", 4: "RGBA"}
    if len(shape) != 4 or shape[-1] not in modes:
        raise InputError(
            f"images are (n, height, width, channels), and the model takes {shape}.",
            "Give the images as arrays of that shape, in an .npz file.",
            code="not-images",
        )
    return modes[shape[-1]]


def _converted(image: Image.Image, mode: str) -> Image.Image:
    """Return an image of 8 bits a channel: of 16 the higher ones, as Pillow does with colours.

    Raises:
        ValueError: If its numbers have no known range. Pillow makes all above 255 white.
    """
    bits = getattr(image, "tag_v2", {}).get(_BITS_OF_TIFF, (16,))[0]
    if image.mode == "F" or (image.mode == "I" and image.format != "PNG"):
        raise ValueError("its pixels are numbers without a known range: give them as arrays")
    if image.mode.startswith("I"):  # grey; "I" of PNG files in Pillow 10
        return Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8)).convert(mode)
    return image.convert(mode)


def _read_all(
    open_image: Open,
    images: Sequence[tuple[int, str]],
    mode: str,
    size: tuple[int, int] | None,
) -> Array:
    """Decode and resize, (n, H, W, C); all damaged images are named at once."""

    def decoded(image: tuple[int, str]) -> Array | str:
        number, name = image
        try:
            with Image.open(open_image(number), formats=_FORMATS) as opened:
                pixels = _converted(opened, mode)
        except UnidentifiedImageError:  # whose text is the name again, or that of an object
            return f"{name} (no image of a known format)"
        except _UNREADABLE as error:
            return f"{name} ({error})"
        if size is not None and pixels.size != (size[1], size[0]):
            pixels = pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return np.asarray(pixels)

    results = in_threads(decoded, images)
    damaged = [one for one in results if isinstance(one, str)]
    if damaged:
        raise InputError(
            f"{len(damaged)} of {len(images)} images cannot be read: {'; '.join(damaged[:5])}"
            + ("; …" if len(damaged) > 5 else "."),
            "Remove or replace them.",
            code="images-unreadable",
        )
    pixels = [one for one in results if not isinstance(one, str)]
    sizes = {image.shape[:2] for image in pixels}
    if len(sizes) > 1:
        shown = ", ".join(f"{height}×{width}" for height, width in sorted(sizes)[:4])
        raise InputError(
            f"the images have {len(sizes)} different sizes ({shown}, …) and the model takes any.",
            "Resize them to one size.",
            code="image-sizes-differ",
        )
    stacked = np.stack(pixels)
    return stacked if stacked.ndim == 4 else stacked[..., None]
