"""Model files and model objects: opened, checked and hashed once, then passed on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from dsconvert.base.input_size import InputSizes

if TYPE_CHECKING:
    import keras
    import onnx

    from dsconvert.base.predictor import Shape
    from dsconvert.models.loading import Loaded

    Model: TypeAlias = keras.Model | onnx.ModelProto
    ModelSource: TypeAlias = str | Path | "ModelPath" | "ModelFile" | Model
    """What every function takes for a model."""


Kind = Literal["keras", "onnx", "tflite"]


@dataclass(frozen=True)
class ModelPath:
    """A model file, and how it may be loaded.

    Attributes:
        path: The file.
        trust: Whether code in it (the bytecode of Lambda layers) may run.
        custom_objects: Classes and functions of the user's own: "module:name", or by the names in
            the file.
        dequantize: Whether a quantized .onnx file is read as the float model that it stands for.
        input_size: What sizes that its inputs leave free are fixed to: see `as_sizes`.
    """

    path: Path
    trust: bool = False
    custom_objects: str | Mapping[str, object] | None = None
    dequantize: bool = False
    input_size: InputSizes = ()


@dataclass(frozen=True)
class ModelFile:
    """A model that was opened, checked and hashed: give it to as many functions as you like.

    Attributes:
        kind: "keras" or "onnx".
        model: A `keras.Model`, or an `onnx.ModelProto` whose external data are named, not loaded.
        path: The file; None for a model that was given as an object.
        folder: Where an ONNX file's external data are; None for Keras.
        input_names: The names of the inputs that are fed.
        input_shapes: Their shapes with the batch axis first; None where a size is free.
        sha256: Of the file; empty without one.
        repairs: What had to be repaired to load it.
        loading: How it was loaded, to save it the same way.
        changed: Whether the model is another one than the file's: dequantized, of a fixed size, or
            with its small values in itself.
        dequantized: Whether it is the float model that a quantized or half-precision file stands
            for.

    Example:
        >>> import dsconvert as ds
        >>> model = ds.load("model.keras")
        >>> model.kind, model.input_shapes
        ('keras', ((None, 8, 8, 1),))
    """

    kind: Literal["keras", "onnx"]
    model: Model
    path: Path | None
    folder: Path | None
    input_names: tuple[str, ...]
    input_shapes: tuple[Shape, ...]
    sha256: str
    repairs: tuple[str, ...] = ()
    loading: ModelPath | None = None
    changed: bool = False
    dequantized: bool = False

    @property
    def given(self) -> Path | None:
        """Return what the user named: of a SavedModel its folder, not the file made of it."""
        return self.loading.path if self.loading else self.path

    @property
    def name(self) -> str:
        """Return what messages call it: the file, or the model's own name."""
        own = self.model.name if self.kind == "keras" else self.model.graph.name
        return self.given.name if self.given else str(own or "the model")

    @property
    def told(self) -> str:
        """Return what records call it: the path, or the model's own name."""
        return str(self.given) if self.given else self.name

    def __repr__(self) -> str:
        shapes = ", ".join(
            f"{name} {shape}"
            for name, shape in zip(self.input_names, self.input_shapes, strict=True)
        )
        return f"{self.told} ({self.kind}): {shapes}"


def open_model(source: ModelSource, *, wanted: str = "model") -> ModelFile:
    """Open a model; one that is open already is handed back.

    Args:
        source: A Keras or an ONNX file; or a `keras.Model` or an `onnx.ModelProto`. For an ONNX
            model neither TensorFlow nor Keras is imported.
        wanted: What messages call the argument.

    Raises:
        InputError: If it is neither, or not usable.
    """
    if isinstance(source, ModelFile):
        return source
    if isinstance(source, str | Path):
        source = ModelPath(Path(source))
    if not isinstance(source, ModelPath):
        return _from_object(source, wanted)
    refuse_absent(source.path)
    refuse_tflite(source.path)
    opened = _open_onnx(source) if kind_of(source.path) == "onnx" else _open_keras(source)
    if not source.input_size:
        return opened
    from .fixed_size import at_sizes

    return at_sizes(opened, source.input_size)


def path_of(source: ModelSource) -> Path | None:
    """Name the file that a model comes from, without opening it; None for an object."""
    if isinstance(source, str | Path):
        return Path(source)
    return source.path if isinstance(source, ModelPath | ModelFile) else None


def kind_of_source(source: ModelSource) -> Kind:
    """Tell what a model is, without opening it."""
    if isinstance(source, ModelFile):
        return source.kind
    path = path_of(source)
    if path is not None:
        return kind_of(path)
    return "onnx" if type(source).__name__ == "ModelProto" else "keras"


def kind_of(path: Path) -> Kind:
    """Tell what a model file holds: by its content where that says so, else by its suffix.

    What is neither of them counts as Keras, whose loader says what a file is instead. The folder of
    a SavedModel is Keras if Keras' description of its layers is in it; otherwise it becomes ONNX.
    """
    if path.is_dir():
        from dsconvert.models.loading.saved_model import is_keras_saved_model, is_saved_model

        return "onnx" if is_saved_model(path) and not is_keras_saved_model(path) else "keras"
    head = b""
    if path.is_file():
        with path.open("rb") as file:
            head = file.read(8)
    if head.startswith((b"\x89HDF\r\n\x1a\n", b"PK\x03\x04")):
        return "keras"
    if head[4:] == b"TFL3" or path.suffix.lower() == ".tflite":
        return "tflite"
    return "onnx" if path.suffix.lower() == ".onnx" else "keras"


def refuse_absent(path: Path) -> None:
    """Refuse a path where nothing is, before any framework is imported.

    Raises:
        InputError: If nothing is there.
    """
    from dsconvert.base.errors import InputError

    if not path.exists():
        raise InputError(
            f"{path}: no such file.",
            "Give the path of a .keras, .h5 or .onnx file.",
            code="model-not-found",
        )


def refuse_tflite(path: Path) -> None:
    """Refuse a file that cannot be changed any more.

    Raises:
        InputError: If it is a TFLite file.
    """
    from dsconvert.base.errors import InputError

    if path.is_file() and kind_of(path) == "tflite":
        raise InputError(
            f"{path} is a TFLite file: compiled for a runtime, it cannot be changed any more.",
            "Give the Keras or .onnx model that it was made from.",
            code="tflite-input",
        )


def load_keras(source: ModelPath) -> Loaded:
    """Load a Keras model and tell what was repaired."""
    from dsconvert.base.messages import note
    from dsconvert.base.quiet import import_quietly
    from dsconvert.models.loading import load

    refuse_absent(source.path)
    import_quietly("tensorflow")
    loaded = load(source.path, trust=source.trust, custom_objects=custom_objects_of(source))
    for repair in loaded.repairs:
        note(f"{source.path.name}: {repair}")
    return loaded


def custom_objects_of(loading: ModelPath | None) -> Mapping[str, Any] | None:
    """Return the classes and functions of the user's own, by their names in the file."""
    from dsconvert.models.loading import resolve_custom_objects

    named = loading.custom_objects if loading else None
    return resolve_custom_objects(named) if isinstance(named, str) else named


def _open_keras(source: ModelPath) -> ModelFile:
    from dsconvert.base.messages import note

    loaded = load_keras(source)
    if source.dequantize:
        note(f"{source.path.name}: only .onnx files are dequantized: --dequantize changes nothing")
    return replace(
        _keras(loaded.model),
        path=source.path,
        sha256=loaded.sha256,
        repairs=loaded.repairs,
        loading=source,
    )


def _from_object(model: Model, wanted: str) -> ModelFile:
    from dsconvert.base.errors import InputError

    if type(model).__name__ == "ModelProto":
        from dsconvert.formats.onnx.checking import Refused, check_runs
        from dsconvert.formats.onnx.sizes import check_sizes
        from dsconvert.formats.onnx.training import refuse_training

        told = f"the {wanted} {model.graph.name!r}"
        try:
            check_runs(model, Path.cwd())
        except Refused as error:
            raise InputError(
                f"{told} does not run as it is; {error}",
                "Give a graph that plain ONNX Runtime runs, with its weights in it.",
                code="does-not-run",
            ) from error
        check_sizes(model, Path.cwd(), told)
        refuse_training(model, Path.cwd(), told)
        return _onnx(model, Path.cwd())
    if hasattr(model, "layers") and hasattr(model, "get_weights"):
        return _keras(model)
    raise InputError(
        f"the {wanted} is a {type(model).__name__}: a path, a keras.Model or an onnx.ModelProto is "
        "required.",
        code="not-a-model",
    )


def _keras(model: Model) -> ModelFile:
    from dsconvert.models.evaluation.keras_predictor import KerasPredictor

    predictor = KerasPredictor(model)
    return ModelFile(
        kind="keras",
        model=model,
        path=None,
        folder=None,
        input_names=predictor.input_names,
        input_shapes=predictor.input_shapes,
        sha256="",
    )


def _open_onnx(source: ModelPath) -> ModelFile:
    from dsconvert.base.errors import InputError
    from dsconvert.base.messages import note
    from dsconvert.formats.onnx.open import open_onnx

    path, dequantize = source.path, source.dequantize
    if path.is_dir():
        from dsconvert.models.loading.saved_model_onnx import as_onnx

        note(f"{path.name}: a SavedModel without Keras layers; read through tf2onnx as ONNX")
        path = as_onnx(path, trust=source.trust)
    try:
        file = open_onnx(path, dequantize=dequantize)
    except InputError as error:
        if path == source.path:
            raise
        raise InputError(  # the user knows the folder, and not the file in the cache
            error.message.replace(str(path), str(source.path)),
            "Save the part that computes, without the reading of files, or as .keras.",
            code=error.code,
        ) from error
    repairs = file.repairs
    if dequantize and not file.dequantized:
        repairs = ("nothing in it is quantized: --dequantize changes nothing", *repairs)
    elif dequantize:
        from .dequantized import told_loss

        repairs = (told_loss(file), *repairs)
    for repair in repairs:
        note(f"{source.path.name}: {repair}")
    opened = _onnx(file.model, path.parent)
    return replace(
        opened,
        path=path,
        sha256=file.sha256,
        repairs=repairs,
        loading=source,
        changed=file.dequantized or file.sizes_moved,
        dequantized=file.dequantized,
    )


def _onnx(model: Model, folder: Path) -> ModelFile:
    from dsconvert.formats.onnx.graph import OnnxGraph
    from dsconvert.formats.onnx.shapes import shape_of

    fed = OnnxGraph(model, folder).inputs
    return ModelFile(
        kind="onnx",
        model=model,
        path=None,
        folder=folder,
        input_names=tuple(value.name for value in fed),
        input_shapes=tuple(shape_of(value) or () for value in fed),
        sha256="",
    )
