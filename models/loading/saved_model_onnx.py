"""SavedModels without Keras' description of their layers, as ONNX files made by tf2onnx."""

from __future__ import annotations

import json
import re
from pathlib import Path

from dsconvert.base.cache_folder import cache_folder
from dsconvert.base.child_process import Finished, run_python
from dsconvert.base.errors import InputError, require
from dsconvert.base.files import replacing
from dsconvert.base.messages import note

from .saved_model import check_members, folder_sha256

_CONVERT = Path(__file__).with_name("saved_model_convert.py")
_OPSET = 17
_DEFAULT = b"\n\x0fserving_default\x12"
"""The usual signature, as the key of a map in a protobuf message."""
_TAKEN = re.compile(r"using first signature: (\S+)")
_SECONDS = 900


def as_onnx(path: Path, *, trust: bool = False) -> Path:
    """Convert a SavedModel to an .onnx file in the cache; one that is there already is used.

    TensorFlow reads the folder in a child process. A SavedModel is a program, and loading it runs
    what fills its tables. One with operations that reach beyond it is not loaded.

    Args:
        path: The folder.
        trust: Whether its operations may read and write files.

    Raises:
        InputError: If tf2onnx cannot convert it, with its last words; if it is damaged, or reads or
            writes files.
        MissingExtra: If tf2onnx or TensorFlow is not installed.
    """
    require("tf2onnx", "all", "to read SavedModels without Keras layers")
    check_members(path)
    made = cache_folder() / "saved_models" / f"{folder_sha256(path)[:32]}.onnx"
    first = made.with_suffix(".signature")
    if made.is_file():
        if first.is_file():
            _tell_signature(path, first.read_text())
        return made
    made.parent.mkdir(parents=True, exist_ok=True)
    with replacing(made, overwrite=True) as temporary:
        usual = _DEFAULT in (path / "saved_model.pb").read_bytes()
        words = [str(path.resolve()), str(temporary), str(_OPSET)]
        words += ["serving_default" if usual else "", str(int(trust))]
        done = run_python([str(_CONVERT), *words], timeout=_SECONDS)
        if done.failure or not temporary.is_file():
            raise _refusal(path, done)
        taken = _TAKEN.search(done.stderr)
        if taken:
            first.write_text(taken[1])
            _tell_signature(path, taken[1])
    return made


def _tell_signature(path: Path, name: str) -> None:
    note(f"{path.name}: it has no serving_default; its signature {name} is read")


def _refusal(path: Path, done: Finished) -> InputError:
    """Return the error for a folder that was not converted."""
    try:
        found = json.loads(done.stdout.strip().splitlines()[-1])
        code, problem = str(found["code"]), str(found["problem"])
    except (ValueError, LookupError, TypeError):
        code, problem = "", done.failure or "nothing was written"
    if code == "needs-trust":
        return InputError(
            f"{path} is a SavedModel that reaches beyond itself: {problem}. To load it runs such "
            "operations, which can read and write your files.",
            "Give --trust (in Python trust=True) if you know who made it; or save the part that "
            "computes alone.",
            code="needs-trust",
        )
    if code == "damaged-file":
        return InputError(
            f"{path} is damaged or incomplete: {problem}.",
            "Copy or download the folder again.",
            code="damaged-file",
        )
    return InputError(
        f"{path} is a SavedModel that tf2onnx cannot convert: {problem}.",
        "Save the model as .keras where it was made: model.save('model.keras').",
        code="saved-model",
    )
