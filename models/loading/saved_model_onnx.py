"""SavedModels without Keras' description of their layers, as ONNX files made by tf2onnx."""

from __future__ import annotations

import re
from pathlib import Path

from dsconvert.base.cache_folder import cache_folder
from dsconvert.base.child_process import run_python
from dsconvert.base.errors import InputError, require
from dsconvert.base.files import replacing
from dsconvert.base.messages import note

from .saved_model import folder_sha256

_OPSET = 17
_DEFAULT = b"\n\x0fserving_default\x12"
"""The usual signature, as the key of a map in a protobuf message."""
_TAKEN = re.compile(r"using first signature: (\S+)")
_SECONDS = 900


def as_onnx(path: Path) -> Path:
    """Convert a SavedModel to an .onnx file in the cache; one that is there already is used.

    TensorFlow reads the folder in a child process. A SavedModel is a program: it may contain
    operations that read files. Only its graph is read here; nothing of it is run.

    Args:
        path: The folder.

    Raises:
        InputError: If tf2onnx cannot convert it, with its last words.
        MissingExtra: If tf2onnx or TensorFlow is not installed.
    """
    require("tf2onnx", "all", "to read SavedModels without Keras layers")
    made = cache_folder() / "saved_models" / f"{folder_sha256(path)[:32]}.onnx"
    if made.is_file():
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with replacing(made, overwrite=True) as temporary:
        options = ["--saved-model", str(path.resolve()), "--output", str(temporary)]
        if _DEFAULT in (path / "saved_model.pb").read_bytes():
            options += ["--signature_def", "serving_default"]
        done = run_python(
            ["-m", "tf2onnx.convert", *options, "--opset", str(_OPSET)], timeout=_SECONDS
        )
        if done.failure or not temporary.is_file():
            raise InputError(
                f"{path} is a SavedModel that tf2onnx cannot convert: "
                f"{done.failure or 'nothing was written'}.",
                "Save the model as .keras where it was made: model.save('model.keras').",
                code="saved-model",
            )
        taken = _TAKEN.search(done.stderr)
        if taken:
            note(f"{path.name}: it has no serving_default; its signature {taken[1]} is read")
    return made
