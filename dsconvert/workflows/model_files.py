"""Open and save the model files that the use cases work on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from dsconvert.base.predictor import Shape
    from dsconvert.models.loading import Loaded


Kind = Literal["keras", "onnx", "tflite"]


def load_keras(path: Path, trust: bool, custom_objects: str | None) -> Loaded:
    """Load a Keras model and tell what was repaired."""
    from dsconvert.base.messages import note
    from dsconvert.base.quiet import import_quietly
    from dsconvert.models.loading import load, resolve_custom_objects

    import_quietly("tensorflow")
    objects = resolve_custom_objects(custom_objects) if custom_objects else None
    loaded = load(path, trust=trust, custom_objects=objects)
    for repair in loaded.repairs:
        note(f"{path.name}: {repair}")
    return loaded


@dataclass(frozen=True)
class ModelFile:
    """A model file that a command works on.

    Attributes:
        kind: What it holds.
        model: A `keras.Model`, or an `onnx.ModelProto` whose external data are named, not loaded.
        path: The file.
        folder: Where an ONNX file's external data are; None for Keras.
        input_names: The names of the inputs that are fed.
        input_shapes: Their shapes with the batch axis first; None where a size is free.
        sha256: Of the file.
        repairs: What had to be repaired to load it.
    """

    kind: Literal["keras", "onnx"]
    model: Any
    path: Path
    folder: Path | None
    input_names: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    sha256: str
    repairs: tuple[str, ...] = ()


def kind_of(path: Path) -> Kind:
    """What a model file holds: by its content where that says so, else by its suffix.

    What is neither of them counts as Keras, whose loader says what a file is instead.

    Raises:
        InputError: If it is a TensorFlow SavedModel.
    """
    from dsconvert.base.errors import InputError

    if (path / "saved_model.pb").is_file():
        raise InputError(
            f"{path} is a TensorFlow SavedModel: it holds a graph of operations, no Keras layers.",
            "Save the model as .keras where it was made, or make an .onnx file of it: "
            f"python -m tf2onnx.convert --saved-model {path} --output model.onnx",
        )
    head = b""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(8)
    if head.startswith((b"\x89HDF\r\n\x1a\n", b"PK\x03\x04")):
        return "keras"
    if head[4:] == b"TFL3" or path.suffix.lower() == ".tflite":
        return "tflite"
    return "onnx" if path.suffix.lower() == ".onnx" else "keras"


def open_model(path: Path, trust: bool, custom_objects: str | None) -> ModelFile:
    """Open a Keras or an ONNX file; for an ONNX file neither TensorFlow nor Keras is imported.

    Raises:
        InputError: If it is neither, or not usable.
    """
    _refuse_tflite(path)
    if kind_of(path) == "onnx":
        return _open_onnx(path)
    from dsconvert.models.evaluation.keras_predictor import KerasPredictor

    loaded = load_keras(path, trust, custom_objects)
    predictor = KerasPredictor(loaded.model)
    return ModelFile(
        kind="keras",
        model=loaded.model,
        path=path,
        folder=None,
        input_names=predictor.input_names,
        input_shapes=predictor.input_shapes,
        sha256=loaded.sha256,
        repairs=loaded.repairs,
    )


def _refuse_tflite(path: Path) -> None:
    from dsconvert.base.errors import InputError

    if path.is_file() and kind_of(path) == "tflite":
        raise InputError(
            f"{path} is a TFLite file: compiled for a runtime, it cannot be changed any more.",
            "Give the Keras or .onnx model that it was made from.",
        )


def _open_onnx(path: Path) -> ModelFile:
    from dsconvert.formats.onnx.graph import OnnxGraph
    from dsconvert.formats.onnx.open import open_onnx
    from dsconvert.formats.onnx.shapes import shape_of

    file = open_onnx(path)
    fed = OnnxGraph(file.model, path.parent).inputs
    return ModelFile(
        kind="onnx",
        model=file.model,
        path=path,
        folder=path.parent,
        input_names=tuple(value.name for value in fed),
        input_shapes=tuple(shape_of(value) or () for value in fed),
        sha256=file.sha256,
    )


def save_keras(
    model: Any, path: Path, overwrite: bool, trust: bool, custom_objects: str | None
) -> tuple[int, str]:
    """Save a Keras model where plain Keras loads it again, weight for weight.

    Returns:
        The file's size in bytes and its SHA-256.

    Raises:
        GateFailed: If the file does not give the model back; it is not kept.
    """
    import warnings

    import keras
    import numpy as np

    from dsconvert.base.errors import GateFailed
    from dsconvert.base.files import replacing, sha256
    from dsconvert.models.loading import resolve_custom_objects

    objects = resolve_custom_objects(custom_objects) if custom_objects else None
    with replacing(path, overwrite=overwrite) as temporary, warnings.catch_warnings():
        # Keras calls .h5 legacy; it was asked for.
        warnings.filterwarnings("ignore", message=".*HDF5.*")
        try:
            model.save(temporary)
            again = keras.saving.load_model(
                temporary, custom_objects=objects, compile=False, safe_mode=not trust
            )
            pairs = zip(model.get_weights(), again.get_weights(), strict=True)
            same = all(np.array_equal(saved, loaded) for saved, loaded in pairs)
        except Exception as error:
            raise GateFailed(
                f"Keras cannot read back what it wrote to {path}: {error}",
                "Try the other format: -o with .keras or .h5.",
            ) from error
        if not same:
            raise GateFailed(
                f"{path} does not give the model's weights back.",
                "Try the other format: -o with .keras or .h5.",
            )
    return path.stat().st_size, sha256(path)


def save_onnx(model: Any, folder: Path | None, path: Path, overwrite: bool) -> tuple[int, str]:
    """Save an ONNX model that is valid and that ONNX Runtime takes.

    Returns:
        The size in bytes, external data included, and the SHA-256 of the .onnx file.
    """
    from dsconvert.base.files import sha256
    from dsconvert.formats.onnx.save import save

    size = save(model, folder, path, overwrite=overwrite)
    return size, sha256(path)
