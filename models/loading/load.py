"""From a file to a Keras model that runs."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.files import sha256

from . import weights
from .container import UNREADABLE_ZIP, Source, broken, is_part, open_source
from .custom import check_names
from .h5_files import check_h5
from .lambdas import allow_lambdas
from .modules import modern
from .repairs import repair
from .tfops import refuse_tf_operations
from .tree import Config, name_of, objects

if TYPE_CHECKING:
    import keras

_LOG = logging.getLogger(__name__)
_SAVE_AGAIN = "Load it where it was made and save it again: model.save('model.keras')."


@dataclass(frozen=True)
class Loaded:
    """A model from a file.

    Attributes:
        model: It runs: built, with known inputs and outputs, not compiled.
        path: The file.
        format: ``"h5"`` or ``"keras"``, by content.
        sha256: Of the file.
        repairs: What had to be changed to load it, one sentence each.
    """

    model: keras.Model
    path: Path
    format: str
    sha256: str
    repairs: tuple[str, ...]


def load(
    path: str | Path, *, trust: bool = False, custom_objects: Mapping[str, Any] | None = None
) -> Loaded:
    """Load a .h5, .hdf5 or .keras file of any Keras age.

    Args:
        path: The file.
        trust: Whether code in the file (the bytecode of Lambda layers) may run.
        custom_objects: Classes and functions of the user's own, by the names in the file.

    Raises:
        InputError: If the file is no loadable model; the message names the cause.
        MissingExtra: If Keras is not installed.
    """
    path = Path(path)
    source = open_source(path)
    try:
        config, repairs = repair(source.config)
        if source.is_old:
            _refuse_changed_meaning(path, config)
        refuse_tf_operations(path, config)
        config = allow_lambdas(path, modern(config, keras2=source.is_old), trust=trust)
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: its model configuration is not one that any Keras writes "
            f"({type(error).__name__}: {error}).",
            _SAVE_AGAIN,
        ) from error
    require("keras", "keras", "to load Keras models")
    custom = dict(custom_objects or {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of what the repairs are there for
        config, dropped = check_names(path, config, custom)
        model = _build(source, config, custom, trust)
        mirrored = weights.restore(model, source) if source.format == "h5" else None
    sentences = (source.misnamed, *repairs, dropped, mirrored)
    loaded = Loaded(model, path, source.format, sha256(path), tuple(filter(None, sentences)))
    for sentence in loaded.repairs:
        _LOG.info("%s: %s", path.name, sentence)
    return loaded


def _build(source: Source, config: Config, custom: dict[str, Any], trust: bool) -> keras.Model:
    import keras

    try:
        if source.format == "h5":
            model = keras.saving.deserialize_keras_object(config, custom, safe_mode=not trust)
        else:
            model = _load_archive(source.path, config, custom, trust)
    except InputError:
        raise
    except Exception as error:  # whatever Keras raises over a file that it does not understand
        reason = str(error).split("Exception encountered: ")[-1].strip().splitlines()
        raise InputError(
            f"{source.path}: Keras {keras.__version__} cannot rebuild this model, "
            f"written by Keras {source.keras_version}: {(reason or [type(error).__name__])[0]}",
            _SAVE_AGAIN,
        ) from error
    if not isinstance(model, keras.Model):
        raise InputError(
            f"{source.path} holds a {type(model).__name__}, not a model.", "Save a keras.Model."
        )
    if not getattr(model, "inputs", None):
        raise InputError(
            f"{source.path} does not say what shape its input has, or how its layers connect.",
            "Call the model on data, rebuild it as a functional model, and save it again.",
        )
    return model


def _load_archive(path: Path, config: Config, custom: dict[str, Any], trust: bool) -> Any:
    """Let Keras load a copy of a .keras archive that holds the repaired configuration."""
    import keras

    with tempfile.TemporaryDirectory(prefix="dsconvert-") as folder:
        copy = Path(folder) / "model.keras"
        try:
            with zipfile.ZipFile(path) as old, zipfile.ZipFile(copy, "w") as new:
                for name in filter(is_part, old.namelist()):
                    if name == "config.json":
                        new.writestr(name, json.dumps(config))
                        continue
                    with old.open(name) as reader, new.open(name, "w", force_zip64=True) as writer:
                        copyfileobj(reader, writer)
            _check_weights(path, copy, Path(folder))
        except UNREADABLE_ZIP as error:
            raise InputError(*broken(path, "zip archive", error)) from error
        return keras.saving.load_model(
            copy, custom_objects=custom, compile=False, safe_mode=not trust
        )


def _check_weights(path: Path, copy: Path, folder: Path) -> None:
    """Let a child process read the weights of an archive first: libhdf5 may crash on them."""
    with zipfile.ZipFile(copy) as archive:
        for name in archive.namelist():
            if name.endswith(".h5"):
                check_h5(Path(archive.extract(name, folder)), told=path)


def _refuse_changed_meaning(path: Path, model: Config) -> None:
    """Refuse what Keras 3 would load, but compute differently.

    Raises:
        InputError: If an activation is hard_sigmoid: clip(0.2·x + 0.5) until Keras 2, x/6 now.
    """
    layers = [
        name_of(item)
        for item in objects(model)
        for key, value in item["config"].items()
        if key.endswith("activation") and value == "hard_sigmoid"
    ]
    if layers:
        raise InputError(
            f"{path}: {', '.join(layers)} use hard_sigmoid, whose slope was 0.2 when this file "
            "was written and is 1/6 in Keras 3: the model would compute something else.",
            "Rebuild the model with the old slope as a layer of its own, and save it again.",
        )
