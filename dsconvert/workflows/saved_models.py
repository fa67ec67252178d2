"""Models written to files, in the format that they were opened in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .model_files import custom_objects_of

if TYPE_CHECKING:
    from dsconvert.models.data.preprocess import Preprocessing

    from .model_files import Model, ModelFile, ModelPath


_READ_AS_LAYERS = frozenset({"Concatenate", "Softmax"})
"""Functions that Keras takes for the layers of their names, which compute the same."""


def check_savable(opened: ModelFile, path: Path | None) -> None:
    """Refuse before any work a file that Keras would write and could not read again.

    Args:
        opened: The model.
        path: The file; None for none.

    Raises:
        InputError: If it is an .h5 file and the model has functions of `keras.ops`.
    """
    if path is None or path.suffix in (".keras", ".onnx") or opened.kind != "keras":
        return
    import keras

    from dsconvert.base.errors import InputError
    from dsconvert.models.parts import parts_of

    outside = (part for part in parts_of(opened.model) if not isinstance(part, keras.layers.Layer))
    found = sorted({type(part).__name__ for part in outside} - _READ_AS_LAYERS)
    if found:
        raise InputError(
            f"{path}: Keras cannot read functions of keras.ops from .h5 files, and the model has "
            f"{', '.join(found[:3])}{' and others' if len(found) > 3 else ''}.",
            f"Try: -o {path.with_suffix('.keras')}",
            code="not-in-h5",
        )


def save_model(
    model: Model,
    opened: ModelFile,
    path: Path,
    *,
    overwrite: bool,
    preprocessing: Preprocessing | None = None,
) -> tuple[int, str]:
    """Save a model that was made from an opened one, in that one's format.

    Args:
        model: The model.
        opened: The one that it was made from.
        path: The file.
        overwrite: Whether it may exist.
        preprocessing: What was done to the images that it was made with, to keep in the file.

    Returns:
        The size in bytes, external data included, and the SHA-256 of the file.

    Raises:
        GateFailed: If the file does not give the model back; it is not kept.
    """
    if opened.kind == "keras":
        return save_keras(
            model, path, overwrite=overwrite, loading=opened.loading, preprocessing=preprocessing
        )
    from dsconvert.base.files import sha256
    from dsconvert.formats.onnx.save import save

    size = save(model, opened.folder, path, overwrite=overwrite)
    return size, sha256(path)


def save_keras(
    model: Model,
    path: Path,
    *,
    overwrite: bool,
    loading: ModelPath | None = None,
    preprocessing: Preprocessing | None = None,
) -> tuple[int, str]:
    """Save a Keras model where plain Keras loads it again, weight for weight.

    Args:
        model: The model.
        path: A .keras or .h5 file.
        overwrite: Whether it may exist.
        loading: How the model that this one was made from was loaded.
        preprocessing: What was done to the images that it was made with, to keep in the file.

    Returns:
        The file's size in bytes and its SHA-256.

    Raises:
        GateFailed: If the file does not give the model back; it is not kept.
    """
    import warnings

    import keras
    import msgspec

    from dsconvert.base.errors import GateFailed
    from dsconvert.base.files import lacks_room, replacing, sha256, take_room
    from dsconvert.formats import keras_archive

    trust = loading.trust if loading else False
    with replacing(path, overwrite=overwrite) as temporary, warnings.catch_warnings():
        # Keras calls .h5 legacy, and a warning that the user made an error of is no failure.
        warnings.simplefilter("ignore")
        try:
            # On a full disk libhdf5 ends the process, and Keras leaves a folder for assets behind.
            take_room(temporary, _bytes_of(model))
            model.save(temporary)
            keras_archive.make_repeatable(temporary)
            if preprocessing is not None:
                record = {"preprocessing": msgspec.to_builtins(preprocessing)}
                keras_archive.write(temporary, msgspec.json.encode(record))
            again = keras.saving.load_model(
                temporary,
                custom_objects=custom_objects_of(loading),
                compile=False,
                safe_mode=not trust,
            )
            pairs = zip(model.weights, again.weights, strict=True)
            same = all(_digest(saved) == _digest(loaded) for saved, loaded in pairs)
        except Exception as error:
            if lacks_room(error):  # which `replacing` says
                raise
            raise GateFailed(
                f"Keras cannot read back what it wrote to {path}: {error}",
                "Try the other format: -o with .keras or .h5.",
                code="not-read-back",
            ) from error
        if not same:
            raise GateFailed(
                f"{path} does not give the model's weights back.",
                "Try the other format: -o with .keras or .h5.",
                code="not-read-back",
            )
    return path.stat().st_size, sha256(path)


def _digest(weight: Any) -> tuple[tuple[int, ...], str, bytes]:
    """Return what two weights are compared by: copies of both would be more than both models."""
    import hashlib

    import numpy as np

    values = np.ascontiguousarray(weight.numpy())
    bits = values.reshape(-1).view(np.uint8)
    return values.shape, str(values.dtype), hashlib.blake2b(bits.data).digest()


def _bytes_of(model: Model) -> int:
    """Return about how large the file of a model is: weights, and some KiB for each of them."""
    import math

    each = [math.prod(weight.shape) * 4 + (4 << 10) for weight in model.weights]
    return int(sum(each)) + len(model.to_json())
