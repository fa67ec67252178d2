"""The options that commands share, and the values they become. Imports no framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

if TYPE_CHECKING:
    from dsconvert.converter.core.predictor import Shape
    from dsconvert.models import Data, Loaded, Preprocessing

Kind = Literal["keras", "onnx", "tflite"]

Command = TypeVar("Command", bound=Callable[..., Any])

MODEL = click.Path(path_type=Path)


class Memory(click.ParamType[int]):
    """Bytes as people write them: 512MiB, 2GiB, 1.5G."""

    name = "size"
    units = {"k": 10, "m": 20, "g": 30, "t": 40}  # noqa: RUF012

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse a size in binary units."""
        if isinstance(value, int):
            return value
        text = value.strip().lower().removesuffix("b").removesuffix("i")
        power = self.units.get(text[-1:], 0)
        try:
            size = int(float(text[:-1] if power else text) * 2**power)
        except ValueError:
            size = 0
        if size <= 0:
            self.fail(f"{value!r} is not a size; write it as 512MiB or 2GiB.", param, ctx)
        return size


def stack(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Several decorators as one, the first outermost."""

    def apply(function: Command) -> Command:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return apply


common = stack(
    click.option("--json", "as_json", is_flag=True, help="Print the result as JSON."),
    click.option("-v", "--verbose", count=True, help="Log more; twice for everything."),
    click.option("-q", "--quiet", is_flag=True, help="No progress, no warnings."),
    click.option("--seed", type=int, default=0, show_default=True, help="Seeds every draw."),
)

loading = stack(
    click.option(
        "--trust", is_flag=True, help="Allow a model file to run code it carries (Lambda layers)."
    ),
    click.option(
        "--custom-objects",
        metavar="MODULE:NAME",
        help="A dictionary, class or function of yours that the model needs.",
    ),
)

preprocessing = stack(
    click.option("--scale", metavar="NUMBER", help="Multiply stored values, e.g. 1/255."),
    click.option("--mean", metavar="N[,N…]", help="Then subtract: one number, or one per channel."),
    click.option("--std", metavar="N[,N…]", help="Then divide by: one number, or one per channel."),
    click.option(
        "--channels-first",
        is_flag=True,
        help="Feed images as (n, C, H, W); by default only if they do not fit as stored.",
    ),
)

overwrite = click.option("--overwrite", is_flag=True, help="Replace the output if it exists.")


def as_preprocessing(
    scale: str | None, mean: str | None, std: str | None, channels_first: bool
) -> Preprocessing:
    """The four options as one value."""
    from dsconvert.models import Preprocessing, parse_number

    def numbers(text: str | None) -> tuple[float, ...] | None:
        return None if text is None else tuple(map(parse_number, text.split(",")))

    return Preprocessing(
        scale=1.0 if scale is None else parse_number(scale),
        mean=numbers(mean),
        std=numbers(std),
        channels_first=channels_first,
    )


def preprocessing_words(preprocessing: Preprocessing) -> tuple[str, ...]:
    """The options that say the same on the command line again; none where nothing is done."""

    def number(value: float) -> str:
        whole = round(1 / value) if 1e-9 < abs(value) < 1 else 0
        return f"1/{whole}" if whole and 1 / whole == value else f"{value:.17g}"

    words: list[str] = []
    if preprocessing.scale != 1:
        words += ["--scale", number(preprocessing.scale)]
    for name, values in (("--mean", preprocessing.mean), ("--std", preprocessing.std)):
        if values is not None:
            words += [name, ",".join(map(repr, values))]
    return (*words, *(["--channels-first"] if preprocessing.channels_first else []))


def load_keras(path: Path, trust: bool, custom_objects: str | None) -> Loaded:
    """Load a Keras model and tell what was repaired."""
    from dsconvert.models import load, resolve_custom_objects

    from .terminal import import_quietly, note

    import_quietly("tensorflow")
    objects = resolve_custom_objects(custom_objects) if custom_objects else None
    loaded = load(path, trust=trust, custom_objects=objects)
    for repair in loaded.repairs:
        note(f"{path.name}: {repair}")
    return loaded


@dataclass(frozen=True)
class Opened:
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
    from dsconvert.converter.core.errors import InputError

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


def open_model(path: Path, trust: bool, custom_objects: str | None) -> Opened:
    """Open a Keras or an ONNX file; for an ONNX file neither TensorFlow nor Keras is imported.

    Raises:
        InputError: If it is neither, or not usable.
    """
    _refuse_tflite(path)
    if kind_of(path) == "onnx":
        return _open_onnx(path)
    from dsconvert.models import KerasPredictor

    loaded = load_keras(path, trust, custom_objects)
    predictor = KerasPredictor(loaded.model)
    return Opened(
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
    from dsconvert.converter.core.errors import InputError

    if path.is_file() and kind_of(path) == "tflite":
        raise InputError(
            f"{path} is a TFLite file: compiled for a runtime, it cannot be changed any more.",
            "Give the Keras or .onnx model that it was made from.",
        )


def _open_onnx(path: Path) -> Opened:
    from dsconvert.converter.onnx_graph.graph import OnnxGraph, shape_of
    from dsconvert.models.onnx_file import open_onnx

    file = open_onnx(path)
    fed = OnnxGraph(file.model, path.parent).inputs
    return Opened(
        kind="onnx",
        model=file.model,
        path=path,
        folder=path.parent,
        input_names=tuple(value.name for value in fed),
        input_shapes=tuple(shape_of(value) or () for value in fed),
        sha256=file.sha256,
    )


def data_for(opened: Opened, source: str, *, split: Any, warn: bool = True, **wishes: Any) -> Data:
    """Load data in the form a model takes, and say what was moved and what looks wrong.

    For an ONNX model this imports no framework.
    """
    from dsconvert.models import check_against, layout_notes, load_data, suspicions

    from .terminal import note

    data = load_data(
        source,
        split=split,
        input_names=opened.input_names,
        input_shapes=opened.input_shapes,
        **wishes,
    )
    check_against(opened.input_shapes, data)
    for text in layout_notes(data):
        note(text)
    for suspicion in suspicions(data, opened.model, opened.folder) if warn else ():
        note(suspicion)
    return data


def calibration_for(
    opened: Opened, source: str | None, samples: int, seed: int, prepared: Preprocessing
) -> Data | None:
    """Calibration images, if a source was given."""
    if source is None:
        return None
    return data_for(
        opened, source, split="train", samples=samples, seed=seed, preprocessing=prepared
    )


def output(ending: str, kind: str) -> Callable[[Command], Command]:
    """The option -o with its default described."""
    return click.option(
        "-o",
        "--output",
        type=click.Path(path_type=Path),
        help=f"The file to write, {kind}; by default MODEL with the ending {ending}.",
    )


def place(
    model: Path, output: Path | None, ending: str, overwrite: bool, *, allowed: tuple[str, ...]
) -> Path:
    """Where the result goes, refused at once if it cannot go there."""
    from dsconvert.converter.core.errors import InputError
    from dsconvert.converter.core.files import check_writable

    _refuse_tflite(model)
    path = output or model.with_name(model.stem + ending)
    if path.suffix not in allowed:
        raise InputError(
            f"{path} ends in {path.suffix!r}; allowed: {' or '.join(allowed)}.",
            f"Try: -o {path.with_suffix(allowed[0])}",
        )
    if path.exists() and model.exists() and path.samefile(model):
        raise InputError(f"{path} is the model itself.", "Name another file with -o.")
    check_writable(path, overwrite=overwrite)
    data = path.with_name(f"{path.name}.data")  # large weights of an ONNX model may go there
    if path.suffix == ".onnx" and data.exists():
        check_writable(data, overwrite=overwrite)
    return path


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
    from dsconvert.converter.core.errors import GateFailed
    from dsconvert.converter.core.files import replacing, sha256
    from dsconvert.models import resolve_custom_objects

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
    from dsconvert.converter.core.files import sha256
    from dsconvert.converter.onnx_graph.save import save

    size = save(model, folder, path, overwrite=overwrite)
    return size, sha256(path)
