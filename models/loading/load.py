"""From a file to a Keras model that runs."""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfileobj
from typing import TYPE_CHECKING, Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.files import lacks_room, sha256

from . import weights
from .archive_parts import is_part, opened_parts
from .archive_weights import is_old_archive, restore_archive
from .container import UNREADABLE_ZIP, Source, broken, open_source
from .custom import check_names, plain_models
from .h5_files import check_h5
from .h5_operations import placed_operations
from .hard_sigmoid import scale_weights, steepened
from .lambdas import allow_lambdas
from .layer_names import without_slashes
from .meaning import refuse_changed_meaning
from .modules import modern
from .newer_keys import newer_keys
from .object_weights import Misfit, in_file_order
from .repairs import repair
from .saved_model import folder_sha256, restore_saved_model
from .sizes import bounded_weights, check_activations, check_windows
from .stacked_once import stacked_once
from .tf_shapes import known_shapes
from .tfops import refuse_tf_operations
from .tree import Config, objects

if TYPE_CHECKING:
    import keras

_LOG = logging.getLogger(__name__)
_MOST_REASON = 600
"""Characters of what Keras says; it can go on for pages."""
_FRAMES, _MOST_FRAMES = 4, 40_000
"""Calls within calls that a layer of a chain may take, and all of them."""
_SAVE_AGAIN = "Load it where it was made and save it again: model.save('model.keras')."


@dataclass(frozen=True)
class Loaded:
    """A model from a file.

    Attributes:
        model: It runs: built, with known inputs and outputs, not compiled.
        path: The file, or the folder of a SavedModel.
        format: ``"h5"``, ``"keras"`` or ``"savedmodel"``, by content.
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
    """Load a .h5, .hdf5 or .keras file of any Keras age, or a SavedModel that Keras wrote.

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

    def partly(part: Config) -> keras.Model:
        return _part(source, part, dict(custom_objects or {}), trust)

    try:
        config, plain = plain_models(source.config, custom_objects or {})
        config, renamed, told = without_slashes(config)
        stored = config
        config, sized = known_shapes(config, partly)
        config, repairs, apart = _of_today(source, config, trust)
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: its model configuration is not one that any Keras writes "
            f"({type(error).__name__}: {error}).",
            _SAVE_AGAIN,
            code="bad-configuration",
        ) from error
    require("keras", "keras", "to load Keras models")
    custom = dict(custom_objects or {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras warns of what the repairs are there for
        config, dropped = check_names(path, config, custom)
        config, newer = newer_keys(config)
        model = _build(source, config, custom, trust, stored)
        with in_file_order(model, stored):
            mirrored = _restored(model, source, renamed)
        steep = scale_weights(model, apart) if source.is_old else None
    sentences = (source.misnamed, plain, told, sized, *repairs, dropped, newer, mirrored, steep)
    digest = folder_sha256(path) if path.is_dir() else sha256(path)
    loaded = Loaded(model, path, source.format, digest, tuple(filter(None, sentences)))
    for sentence in loaded.repairs:
        _LOG.info("%s: %s", path.name, sentence)
    return loaded


def _of_today(
    source: Source, config: Config, trust: bool
) -> tuple[Config, tuple[str, ...], frozenset[str]]:
    """Return a model, or a part of one, as Keras reads it today.

    Returns:
        The configuration, what was repaired, and the layers whose slope is put into their weights.

    Raises:
        InputError: If Keras computes something in it differently, or cannot read it.
    """
    path = source.path
    config, repairs = repair(config)
    if source.format == "h5" and not source.is_old:
        config, placed = placed_operations(config)
        repairs = (*repairs, placed) if placed else repairs
    config, apart = steepened(config) if source.is_old else (config, frozenset())
    refuse_changed_meaning(
        path, config, written_by=source.keras_version, old=source.is_old, steeper=apart
    )
    refuse_tf_operations(path, config)
    check_windows(path, config)
    return allow_lambdas(path, modern(config, keras2=source.is_old), trust=trust), repairs, apart


def _restored(model: keras.Model, source: Source, renamed: Mapping[str, str]) -> str | None:
    """Set the weights that Keras did not set itself, and say what was done to them."""
    if source.format == "h5":
        return weights.restore(model, source, renamed)
    if source.format == "savedmodel":
        try:
            restore_saved_model(model, source.path)
        except Misfit as error:
            raise InputError(
                f"{source.path}: its weights do not fit its architecture: {error}.",
                _SAVE_AGAIN,
                code="weights-do-not-fit",
            ) from error
    return None


def _part(source: Source, config: Config, custom: dict[str, Any], trust: bool) -> keras.Model:
    """Build a part of a model of Keras 2 without its weights, to see shapes.

    Raises:
        InputError: If it cannot be built.
    """
    require("keras", "keras", "to load Keras models")
    import keras

    path = source.path
    config, _, _ = _of_today(source, config, trust)
    config, _ = check_names(path, config, custom)
    config, _ = newer_keys(config)
    try:
        stored = source.stored or path.stat().st_size  # of an archive not counted yet
        with warnings.catch_warnings(), bounded_weights(path, stored):
            warnings.simplefilter("ignore")
            return keras.saving.deserialize_keras_object(config, custom, safe_mode=not trust)
    except InputError:
        raise
    except Exception as error:  # whatever Keras raises; the whole model is built later
        raise InputError(
            f"{path}: a part of it cannot be built: {error}", _SAVE_AGAIN, code="not-rebuilt"
        ) from error


def _build(
    source: Source, config: Config, custom: dict[str, Any], trust: bool, stored: Config
) -> keras.Model:
    import keras

    _let_stack_hold(config)
    try:
        with stacked_once():
            if source.format == "keras":
                model = _load_archive(source, config, custom, trust, stored)
            else:
                with bounded_weights(source.path, source.stored):
                    model = keras.saving.deserialize_keras_object(
                        config, custom, safe_mode=not trust
                    )
    except InputError:
        raise
    except Exception as error:  # whatever Keras raises over a file that it does not understand
        reason = str(error).split("Exception encountered: ")[-1].strip()
        reason = " ".join(reason.split()) or type(error).__name__
        if "safe_mode" in reason and not trust:  # Keras names its own way out of a refusal
            raise InputError(
                f"{source.path}: Keras {keras.__version__} refuses to load this model, since that "
                f"could run code: {reason.split('. ')[0][:_MOST_REASON]}.",
                "Give --trust (in Python trust=True) if you know who made the file.",
                code="needs-trust",
            ) from error
        raise InputError(
            f"{source.path}: Keras {keras.__version__} cannot rebuild this model, "
            f"written by Keras {source.keras_version}: {reason[:_MOST_REASON]}",
            _SAVE_AGAIN,
            code="not-rebuilt",
        ) from error
    if not isinstance(model, keras.Model):
        raise InputError(
            f"{source.path} holds a {type(model).__name__}, not a model.",
            "Save a keras.Model.",
            code="not-a-model",
        )
    if not getattr(model, "inputs", None):
        raise InputError(
            f"{source.path} does not say what shape its input has, or how its layers connect.",
            "Call the model on data, rebuild it as a functional model, and save it again.",
            code="model-not-built",
        )
    check_activations(source.path, model)
    return model


def _let_stack_hold(config: Config) -> None:
    """Let Python's stack hold a chain of all layers: Keras walks one by calling itself.

    It does so again where layers are replaced or the model is exported, so the limit stays. A
    description that is nested deeply was refused as JSON, within the limit that there was.
    """
    needed = min(_MOST_FRAMES, _FRAMES * sum(1 for _ in objects(config)))
    if needed > sys.getrecursionlimit():
        sys.setrecursionlimit(needed)


def _load_archive(
    source: Source, config: Config, custom: dict[str, Any], trust: bool, order: Config
) -> Any:
    """Let Keras load a copy of a .keras archive that holds the repaired configuration."""
    import keras

    path = source.path
    with tempfile.TemporaryDirectory(prefix="dsconvert-") as folder:
        copy = Path(folder) / "model.keras"
        try:
            with opened_parts(path) as old, zipfile.ZipFile(copy, "w") as new:
                for name in filter(is_part, old.namelist()):
                    if name == "config.json":
                        new.writestr(name, json.dumps(config))
                        continue
                    with old.open(name) as reader, new.open(name, "w", force_zip64=True) as writer:
                        copyfileobj(reader, writer)
            stored, weights_file = _extract_weights(path, copy, Path(folder))
        except UNREADABLE_ZIP as error:
            if lacks_room(error):
                raise InputError(
                    f"{path} cannot be unpacked in {folder}: "
                    f"{getattr(error, 'strerror', None) or error}.",
                    "Free some space, or name another folder: TMPDIR=/large/tmp.",
                    code="not-writable",
                ) from error
            raise InputError(*broken(path, "zip archive", error), code="damaged-file") from error
        with bounded_weights(path, stored):
            if source.is_old:  # Keras knows layers by their order, which repairs may change
                model = keras.saving.deserialize_keras_object(config, custom, safe_mode=not trust)
                with in_file_order(model, order) as changed:
                    if weights_file is not None:
                        restore_archive(model, weights_file)
                        return model
                    if changed:
                        model.load_weights(Path(folder) / "model.weights.h5")
                        return model
            return keras.saving.load_model(
                copy, custom_objects=custom, compile=False, safe_mode=not trust
            )


def _extract_weights(path: Path, copy: Path, folder: Path) -> tuple[int, Path | None]:
    """Let a child process read the weights first: libhdf5 may crash on them.

    Returns:
        How many values they are; and the weights' file where its names are those of Keras 2.12
        and 2.13, None otherwise.
    """
    count = 0
    with zipfile.ZipFile(copy) as archive:
        for name in archive.namelist():
            if name.endswith(".h5"):
                weights = Path(archive.extract(name, folder))
                count += check_h5(weights, told=path)
                if is_old_archive(weights):
                    return count, weights
            elif name.startswith("model.weights"):
                count += archive.getinfo(name).file_size
    return count, None
