"""Layers that Keras 3 loads from an older file and computes in another way, or not at all."""

from __future__ import annotations

from pathlib import Path

from packaging.version import InvalidVersion, Version

from dsconvert.base.errors import InputError

from .hard_sigmoid import not_steepened
from .tree import Config, name_of, objects

_RESIZES = ("bilinear", "nearest", "bicubic", "lanczos3", "lanczos5", "area")
"""What Keras 3 resizes by, of TensorFlow's names."""


_CROPPED = Version("3.8")
"""The first Keras whose RandomCrop does nothing in inference."""


def refuse_changed_meaning(
    path: Path, model: Config, *, written_by: str, old: bool, steeper: frozenset[str]
) -> None:
    """Refuse what would load and compute something else.

    Args:
        path: The file, for the message.
        model: The configuration.
        written_by: The version of Keras that wrote it.
        old: Whether Keras 2 or 1 wrote it.
        steeper: The Activation layers whose slope is that of Keras 2 already.

    Raises:
        InputError: With the layers and how to go on.
    """
    if old:
        _refuse(
            path,
            not_steepened(model, steeper),
            "use hard_sigmoid, whose slope was 0.2 when this file was written and is 1/6 in "
            "Keras 3: the model would compute something else",
            "Rebuild the model with the old slope as a layer of its own, and save it again.",
        )
    if old or _version(written_by) < _CROPPED:
        _refuse(
            path,
            [name_of(item) for item in objects(model) if item["class_name"] == "RandomCrop"],
            f"are RandomCrop layers, which crop in inference before Keras {_CROPPED} and do "
            "nothing there since: the layers behind would get larger images",
            "Replace them by Resizing with crop_to_aspect_ratio=True, which is what they did, "
            "where the model was made, and save it again.",
        )
    _refuse(
        path,
        [
            name_of(item)
            for item in objects(model)
            if item["class_name"] == "Resizing"
            and item["config"].get("interpolation", "bilinear") not in _RESIZES
        ],
        "resize in a way that Keras 3 does not have",
        f"Rebuild the model with one of: {', '.join(_RESIZES)}.",
    )


def _version(text: str) -> Version:
    """Return a version of Keras; of a file that does not say more than "3", the newest."""
    try:
        return Version(text) if "." in text else Version("4")
    except InvalidVersion:
        return Version("4")


def _refuse(path: Path, layers: list[str], what: str, hint: str) -> None:
    if layers:
        raise InputError(f"{path}: {', '.join(layers)} {what}.", hint, code="meaning-changed")
