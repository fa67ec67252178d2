"""Models that answer: opened files and objects of every kind behind one face."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .model_files import (
    ModelFile,
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
def runtime_of(source: ModelSource, *, threads: int = 1) -> Iterator[Session]:
    """Run a TFLite or ONNX model in its own runtime; neither needs TensorFlow.

    Args:
        source: The model.
        threads: Of the runtime.

    Raises:
        InputError: If it cannot be run.
    """
    path = path_of(source)
    if path is not None:
        refuse_absent(path)
        yield _runtime(path, threads)
        return
    opened = open_model(source)
    with _saved(opened.model, opened.folder) as path:
        yield _runtime(path, threads)


@contextmanager
def runnable(source: ModelSource, *, threads: int = 1) -> Iterator[Predictor]:
    """Run any model: a Keras, TFLite or ONNX file, or a model object.

    Args:
        source: The model.
        threads: Of a runtime.

    Raises:
        InputError: If it cannot be run.
    """
    if kind_of_source(source) != "keras":
        with runtime_of(source, threads=threads) as runtime:
            yield runtime
        return
    opened = open_model(source)
    with predictor_of(opened.model, opened) as predictor:
        yield predictor


def _runtime(path: Path, threads: int) -> Session:
    from dsconvert.deploy.runtimes.registry import open_runtime

    return open_runtime(path, threads=threads)


@contextmanager
def _saved(model: Model, folder: Path | None) -> Iterator[Path]:
    """A temporary file of an ONNX model."""
    from dsconvert.formats.onnx.save import save

    with tempfile.TemporaryDirectory(prefix="dsconvert-") as place:
        path = Path(place) / "model.onnx"
        save(model, folder, path, overwrite=True)
        yield path
