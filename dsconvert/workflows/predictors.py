"""Models that answer: opened files and objects of every kind behind one face."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .model_files import (
    ModelFile,
    ModelPath,
    kind_of_source,
    open_model,
    path_of,
    refuse_absent,
)

if TYPE_CHECKING:
    from dsconvert.base.predictor import Predictor
    from dsconvert.deploy.runtimes.session import Session

    from .model_files import Model, ModelSource


@contextmanager
def predictor_of(model: Model, opened: ModelFile) -> Iterator[Predictor]:
    """Run a model that was made from an opened one.

    Args:
        model: A `keras.Model`, or an `onnx.ModelProto` whose external data are in the opened one's
            folder.
        opened: The model that it was made from.
    """
    if opened.kind == "keras":
        from dsconvert.models.evaluation.keras_predictor import KerasPredictor

        yield KerasPredictor(model)
        return
    with _saved(model, opened.folder) as path:
        yield _runtime(path, 1)


@contextmanager
def runtime_of(
    source: ModelSource, *, threads: int = 1, runtime: str | None = None
) -> Iterator[Session]:
    """Run a TFLite or ONNX model in a runtime; none needs TensorFlow.

    Args:
        source: The model.
        threads: Of the runtime.
        runtime: Its name; None for the default of the model's format.

    Raises:
        InputError: If it cannot be run, or not in this runtime.
        MissingExtra: If the runtime is not installed.
    """
    from dsconvert.deploy.runtimes.unknown_files import check_runs_apart

    path = path_of(source)
    if path is not None and not is_changed(source):
        refuse_absent(path)
        if path.is_dir():
            path = open_model(source).path or path  # a SavedModel, read as ONNX
        check_runs_apart(path)
        yield _runtime(path, threads, runtime)
        return
    opened = open_model(source)
    with _saved(opened.model, opened.folder) as path:
        yield _runtime(path, threads, runtime)


def is_changed(source: ModelSource) -> bool:
    """Tell whether what is meant is another model than its file's."""
    if isinstance(source, ModelFile):
        return source.changed
    return isinstance(source, ModelPath) and bool(source.input_size or source.dequantize)


@contextmanager
def runnable(
    source: ModelSource, *, threads: int = 1, runtime: str | None = None
) -> Iterator[Predictor]:
    """Run any model: a Keras, TFLite or ONNX file, or a model object.

    Args:
        source: The model.
        threads: Of a runtime.
        runtime: As for `runtime_of`; a Keras model runs in Keras.

    Raises:
        InputError: If it cannot be run.
        MissingExtra: If the runtime is not installed.
    """
    if kind_of_source(source) != "keras":
        with runtime_of(source, threads=threads, runtime=runtime) as session:
            yield session
        return
    opened = open_model(source)
    with predictor_of(opened.model, opened) as predictor:
        yield predictor


def check_runtime(runtime: str | None, models: Sequence[ModelSource]) -> None:
    """Refuse a runtime that no model would run in.

    Raises:
        InputError: If there is no such runtime, or all models are Keras models.
    """
    if runtime is None:
        return
    from dsconvert.base.errors import InputError
    from dsconvert.deploy.runtimes.registry import find_runtime

    title = find_runtime(runtime).title
    if all(kind_of_source(model) == "keras" for model in models):
        raise InputError(
            f"Keras models run in Keras, not in {title}.",
            "Leave --runtime out, or export the model and name that file.",
            code="runtime-not-used",
        )


def runtime_notes(runtime: str | None, models: Sequence[ModelSource]) -> list[str]:
    """Name the runtime that models run in, where it was chosen.

    Args:
        runtime: Its name; None for the defaults, of which nothing is said.
        models: Those that it may run.
    """
    if runtime is None:
        return []
    from dsconvert.deploy.runtimes.registry import find_runtime

    found = find_runtime(runtime)
    paths = [path_of(model) for model in models if kind_of_source(model) != "keras"]
    names = ", ".join(path.name if path else "the model" for path in paths)
    return [f"{names} runs in {found.title} {found.version}"]


def _runtime(path: Path, threads: int, runtime: str | None = None) -> Session:
    from dsconvert.deploy.runtimes.registry import open_runtime

    return open_runtime(path, threads=threads, runtime=runtime)


@contextmanager
def _saved(model: Model, folder: Path | None) -> Iterator[Path]:
    """Give a temporary file of an ONNX model."""
    from dsconvert.formats.onnx.save import save

    with tempfile.TemporaryDirectory(prefix="dsconvert-") as place:
        path = Path(place) / "model.onnx"
        save(model, folder, path, overwrite=True)
        yield path
