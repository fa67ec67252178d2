"""Preprocessing as the files that dsconvert exported say it, and what commands were told."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsconvert.base.messages import note

from .command_words import preprocessing_words
from .model_files import ModelFile, kind_of, path_of

if TYPE_CHECKING:
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.data.preprocess import Preprocessing

    from .data_for import DataSource
    from .model_files import ModelSource


def settled(
    preprocessing: Preprocessing | None,
    models: Sequence[ModelSource],
    *data: DataSource | None,
) -> Preprocessing | None:
    """Take the preprocessing that a model's file names where none was asked for.

    What was asked for is used in any case; where a file names another one, both are told.

    Args:
        preprocessing: What was asked for; None where nothing was said.
        models: The models that get the data; the first that names a preprocessing is believed.
        *data: The data; what is in memory was prepared already, and is only compared.

    Returns:
        What to do to stored data.
    """
    from dsconvert.models.data.preprocess import Preprocessing

    given = [source for source in data if source is not None]
    stored = any(isinstance(source, str | Path) for source in given)
    if not given:
        return preprocessing
    named = [(model, found) for model in models if (found := stored_preprocessing(model))]
    if not stored:
        for source in given:
            _compare(named, getattr(source, "preprocessing", None))
        return preprocessing
    told_axis = preprocessing is not None and preprocessing == Preprocessing(channels_first=True)
    if preprocessing is None or told_axis:
        if not named:
            return preprocessing
        first, found = named[0]
        if not found.does_nothing:
            note(f"images are prepared as {_called(first)} says: {_words(found)}")
        _compare(named[1:], found)
        return Preprocessing(
            scale=found.scale, mean=found.mean, std=found.std, channels_first=told_axis
        )
    _compare(named, preprocessing)
    return preprocessing


def known(data: Data | None) -> Preprocessing | None:
    """Return what was done to data; None where that is not known, as of bare arrays."""
    if data is None or (data.source == "memory" and data.preprocessing.does_nothing):
        return None
    return data.preprocessing


def stored_preprocessing(model: ModelSource) -> Preprocessing | None:
    """Return what a file says was done to the images that it was made with.

    Args:
        model: A model; only files that dsconvert wrote say something.

    Returns:
        Scale, mean and std; None where nothing is said.
    """
    import msgspec

    from dsconvert.base.errors import InputError
    from dsconvert.deploy.exporting.metadata import metadata_of, read_metadata
    from dsconvert.formats import keras_archive
    from dsconvert.models.data.preprocess import Preprocessing
    from dsconvert.models.loading.h5_files import check_h5

    path = path_of(model)
    content: Any = model.model if isinstance(model, ModelFile) else model
    with suppress(InputError, msgspec.DecodeError):  # what is wrong with a file is told later
        said: dict[str, Any] | None = None
        if type(content).__name__ == "ModelProto":
            metadata = metadata_of(content)
            said = None if metadata is None else metadata.preprocessing
        elif path is not None and path.is_file() and kind_of(path) == "keras":
            if keras_archive.is_hdf5(path):
                if not keras_archive.may_hold_attribute(path):
                    return None
                check_h5(path)
            record = msgspec.json.decode(keras_archive.read(path) or b"{}", type=dict[str, Any])
            said = record.get("preprocessing")
        elif path is not None and path.is_file():
            metadata = read_metadata(path)
            said = None if metadata is None else metadata.preprocessing
        if said is not None:
            found = msgspec.convert(said, Preprocessing)
            return Preprocessing(scale=found.scale, mean=found.mean, std=found.std)
    return None


def _compare(
    named: Sequence[tuple[ModelSource, Preprocessing]], used: Preprocessing | None
) -> None:
    """Tell of each file that names another preprocessing than what is used."""
    if used is None:
        return
    for model, found in named:
        if _numbers(found) != _numbers(used):
            note(
                f"{_called(model)} was made for images prepared with {_words(found)}; these are "
                f"prepared with {_words(used)}: the figures may say nothing"
            )


def _numbers(preprocessing: Preprocessing) -> tuple[Any, ...]:
    """Return what is done to values, for comparison."""
    mean, std = preprocessing.mean, preprocessing.std
    return (
        preprocessing.scale,
        None if mean is None or not any(mean) else mean,
        None if std is None or set(std) == {1.0} else std,
    )


def _words(preprocessing: Preprocessing) -> str:
    words = preprocessing_words(preprocessing)
    return " ".join(word for word in words if word != "--channels-first") or "nothing"


def _called(model: ModelSource) -> str:
    path = path_of(model)
    return path.name if path is not None else "the model"
