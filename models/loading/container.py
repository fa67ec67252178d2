"""What a file really is, by its content, and the configuration that it holds."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.units import first_few

from .archive_parts import TEXTS, WEIGHTS, check_folder, is_keras_folder, is_part, opened_parts
from .h5_files import check_h5
from .saved_model import METADATA, is_saved_model, read_metadata
from .tree import Config, is_object

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_SUFFIXES = {"h5": (".h5", ".hdf5"), "keras": (".keras",)}
_HEAD = 512
"""Bytes that show what a file is."""
_MOST_TEXT = 64 << 20
"""Bytes of a configuration; those of networks of a thousand layers take about one MiB."""
_ALWAYS_ALLOWED = 100 << 20
_MOST_RATIO = 50
"""Weights hardly compress; those of a pruned network do, tenfold and more."""
UNREADABLE_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    UnicodeDecodeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)
"""What zipfile raises over a damaged or encrypted archive."""
_SAVE_AGAIN = "Load the model where it was made and save it: model.save('model.keras')."


@dataclass(frozen=True)
class Source:
    """A model file, read but not yet understood.

    Attributes:
        path: The file.
        format: ``"h5"``, ``"keras"`` or ``"savedmodel"``, by content.
        config: The model's configuration as it stands in the file.
        keras_version: The version that wrote it; ``"1"`` where an .h5 file says nothing, as
            Keras itself assumes.
        backend: The Keras backend that wrote it, or an empty string.
        stored: Values that it holds, as far as they were counted: those of an archive are when
            it is unpacked.
    """

    path: Path
    format: str
    config: Config
    keras_version: str
    backend: str
    stored: int = 0

    @property
    def is_old(self) -> bool:
        """Tell whether Keras 2 or 1 wrote it."""
        return self.keras_version.startswith(("1", "2"))

    @property
    def misnamed(self) -> str | None:
        """A sentence where the suffix says something else than the content."""
        suffix = self.path.suffix.lower()
        if self.path.is_dir() or suffix in _SUFFIXES.get(self.format, (suffix,)):
            return None
        what = {"h5": "an HDF5 file", "keras": "a Keras zip archive"}[self.format]
        return f"read {self.path.name} as what it is: {what}"


def open_source(path: Path) -> Source:
    """Find out what a file is and read its configuration.

    Raises:
        InputError: If it is no Keras model file, or one without an architecture.
    """
    if is_saved_model(path) and (path / METADATA).is_file():
        config, version = read_metadata(path)
        size = sum(part.stat().st_size for part in path.glob("variables/*"))
        return Source(path, "savedmodel", config, version, "tensorflow", size)
    if is_keras_folder(path):
        check_folder(path)
        return _open_keras(path)
    _refuse_other_things(path)
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head.startswith(_HDF5_MAGIC):
        return _open_h5(path)
    if head.startswith(b"PK"):
        return _open_keras(path)
    raise InputError(*_unknown_content(path, head), code="unknown-format")


def _refuse_other_things(path: Path) -> None:
    if not path.exists():
        raise InputError(f"{path} does not exist.", "Check the path.", code="model-not-found")
    if path.is_dir():
        if is_saved_model(path):
            raise InputError(
                f"{path} is a SavedModel without {METADATA}: it holds a graph of operations, no "
                "Keras layers.",
                f"Make an .onnx file of it: python -m tf2onnx.convert --saved-model {path} "
                "--output model.onnx",
                code="saved-model-without-layers",
            )
        raise InputError(
            f"{path} is a folder.", "Give a .keras, .h5 or .hdf5 file.", code="is-a-folder"
        )
    if not path.is_file():
        raise InputError(
            f"{path} is not a regular file.", "Give a .keras, .h5 or .hdf5 file.", code="not-a-file"
        )
    if path.stat().st_size == 0:
        raise InputError(
            f"{path} is empty (0 bytes).", "Copy or download it again.", code="empty-file"
        )


def _unknown_content(path: Path, head: bytes) -> tuple[str, str]:
    """Return the message and hint for a file that is neither HDF5 nor zip."""
    if head.startswith(b"version https://git-lfs"):
        return f"{path} is a git-lfs pointer, not the model itself.", "Run: git lfs pull"
    if head[4:8] == b"TFL3":
        return f"{path} is a TFLite file: it holds no Keras layers.", _SAVE_AGAIN
    if path.suffix.lower() == ".onnx":
        return f"{path} is not a Keras file; this loads .keras, .h5 and .hdf5.", _SAVE_AGAIN
    if path.suffix.lower() == ".pb":
        return f"{path} is a TensorFlow graph: it holds no Keras layers.", _SAVE_AGAIN
    if head.lstrip().startswith(b"{") and b'"weight_map"' in head:
        return (
            f"{path} lists the files that a model's weights are in: no architecture is in it.",
            f"Build the architecture in Python, then: model.load_weights({path.name!r}); "
            "model.save('model.keras').",
        )
    if head.lstrip().startswith(b"{") and b'"class_name"' in head:
        return (
            f"{path} describes a model's layers: its weights are in another file.",
            f"In Python: model = keras.models.model_from_json(open({path.name!r}).read()); "
            "model.load_weights('WEIGHTS.h5'); model.save('model.keras').",
        )
    if head.lstrip()[:1] in (b"<", b"{") or head.isascii():
        start = head.decode("utf-8", "replace").strip().split("\n")[0][:60]
        return (
            f"{path} is a text file that starts with {start!r}, not a model.",
            "Perhaps a download page was saved instead of the file: download it again.",
        )
    return (
        f"{path} is neither an HDF5 file nor a zip archive, so no Keras model "
        f"(it starts with {head[:8].hex(' ')}).",
        "Give a .keras, .h5 or .hdf5 file.",
    )


def _open_h5(path: Path) -> Source:
    h5py = require("h5py", "keras", "to read .h5 files")
    stored = check_h5(path)
    try:
        with h5py.File(path, "r") as file:
            attributes = {key: _text(value) for key, value in file.attrs.items()}
            groups = set(file)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InputError(*broken(path, "HDF5 file", error), code="damaged-file") from error
    if "model_config" not in attributes:
        weights = "layer_names" in attributes or groups & {
            "layers",
            "_layer_checkpoint_dependencies",
        }
        raise InputError(
            f"{path} holds weights only: no architecture (no model_config) is in it."
            if weights
            else f"{path} is an HDF5 file, but no Keras model: it has no model_config.",
            f"Build the architecture in Python, then: model.load_weights({path.name!r}); "
            "model.save('model.keras').",
            code="weights-only" if weights else "not-a-model",
        )
    if "model_weights" not in groups:
        raise InputError(
            f"{path} holds an architecture but no weights.", _SAVE_AGAIN, code="no-weights"
        )
    return Source(
        path,
        "h5",
        _parse(path, attributes["model_config"]),
        attributes.get("keras_version", "1"),
        attributes.get("backend", ""),
        stored,
    )


def _open_keras(path: Path) -> Source:
    try:
        with opened_parts(path) as parts:
            names = parts.namelist()
            if isinstance(parts, zipfile.ZipFile):
                _check_sizes(path, parts)
            texts = {n: parts.read(n).decode() for n in TEXTS if n in names}
    except UNREADABLE_ZIP as error:
        what = "folder" if path.is_dir() else "zip archive"
        raise InputError(*broken(path, what, error), code="damaged-file") from error
    if "config.json" not in texts:
        found = first_few(names, 4) or "nothing"
        raise InputError(
            f"{path} is a zip archive, but no Keras model: config.json is not in it, but {found}.",
            "Give a .keras, .h5 or .hdf5 file.",
            code="not-a-model",
        )
    if not any(name.startswith(WEIGHTS) for name in names):
        raise InputError(
            f"{path} holds an architecture but no weights.", _SAVE_AGAIN, code="no-weights"
        )
    metadata = _json(path, texts.get("metadata.json", "{}"))
    version = str(metadata.get("keras_version", "3")) if isinstance(metadata, dict) else "3"
    return Source(path, "keras", _parse(path, texts["config.json"]), version, "")


def _check_sizes(path: Path, archive: zipfile.ZipFile) -> None:
    """Refuse an archive whose members unpack to far more than it holds.

    Raises:
        InputError: If the configuration or all parts together are beyond what a model needs.
    """
    parts = [info for info in archive.infolist() if is_part(info.filename)]
    total = sum(info.file_size for info in parts)
    packed = sum(info.compress_size for info in parts)
    largest = max((info.file_size for info in parts if info.filename in TEXTS), default=0)
    if largest > _MOST_TEXT or total > max(_ALWAYS_ALLOWED, _MOST_RATIO * packed):
        raise InputError(
            f"{path} unpacks to {total:,} bytes from {packed:,}: this is no model.",
            "Copy or download it again.",
            code="zip-bomb",
        )


def _json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(
            *broken(path, "model configuration", error), code="damaged-file"
        ) from error


def _parse(path: Path, text: str) -> Config:
    config: Config = _json(path, text)
    if isinstance(config, dict) and isinstance(config.get("config"), list):
        return config  # a Sequential of Keras before 2.2.3
    if not is_object(config):
        raise InputError(
            f"{path}: its model configuration has no class_name and config.",
            _SAVE_AGAIN,
            code="bad-configuration",
        )
    return config


def broken(path: Path, what: str, error: Exception) -> tuple[str, str]:
    """Return message and hint for a file of which a part cannot be read."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"{path} is damaged or cut short: its {what} cannot be read ({reason}).",
        "Copy or download it again.",
    )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
