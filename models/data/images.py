"""Folders of image files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array, Shape

from .sources import Raw, Request

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
"""Pillow's decoders for these suffixes; others (EPS) would start programs on the data."""
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})


def read_folder(folder: Path, request: Request, image_size: tuple[int, int] | None) -> Raw:
    """Read images as uint8 (n, H, W, C); classes are the sub-folders, sorted by name.

    Raises:
        InputError: If there are no images, their size is open, or some cannot be read.
    """
    folder = _split_folder(folder, request)
    files, labels = _listed(folder)
    index = request.draw(len(files))
    files = list(np.array(files, object)[index])
    shape = request.shapes[0] if request.shapes else (None, None, None, 3)
    mode = _mode(shape)
    size = image_size
    if size is None and shape[1] is not None and shape[2] is not None:
        size = (shape[1], shape[2])
    images = _read_all(files, mode, size)
    return Raw((images,), None if labels is None else np.array(labels)[index])


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
    classes = sorted(
        entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
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


def _read_all(files: Sequence[Path], mode: str, size: tuple[int, int] | None) -> Array:
    """Decode and resize, (n, H, W, C); all damaged files are named at once."""
    images, damaged = [], []
    for file in files:
        try:
            with Image.open(file, formats=_FORMATS) as image:
                pixels = image.convert(mode)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            damaged.append(f"{file} ({error})")
            continue
        if size is not None and pixels.size != (size[1], size[0]):
            pixels = pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        images.append(np.asarray(pixels))
    if damaged:
        raise InputError(
            f"{len(damaged)} of {len(files)} images cannot be read: {'; '.join(damaged[:5])}"
            + ("; …" if len(damaged) > 5 else "."),
            "Remove or replace them.",
            code="images-unreadable",
        )
    sizes = {image.shape[:2] for image in images}
    if len(sizes) > 1:
        shown = ", ".join(f"{height}×{width}" for height, width in sorted(sizes)[:4])
        raise InputError(
            f"the images have {len(sizes)} different sizes ({shown}, …) and the model takes any.",
            "Resize them to one size.",
            code="image-sizes-differ",
        )
    stacked = np.stack(images)
    return stacked if stacked.ndim == 4 else stacked[..., None]
