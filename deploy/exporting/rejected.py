"""Files that did not pass their verification, kept beside their place to be looked into."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dsconvert.base.errors import require
from dsconvert.formats.onnx.save import data_path

from .records import Artifact


def keep(temporary: Path, path: Path, artifact: Artifact) -> str:
    """Move a rejected file to ``NAME.rejected.SUFFIX`` and write its report beside it.

    What an earlier run left there is replaced.

    Args:
        temporary: The file; one with external data has them beside it.
        path: The place that it was made for.
        artifact: What it is, with the failures.

    Returns:
        A sentence that says where they are.
    """
    place = path.with_name(f"{path.stem}.rejected{path.suffix}")
    report = place.with_suffix(".json")
    if data_path(temporary).exists():
        onnx = require("onnx", "onnx", "to write .onnx files")
        model = onnx.load_model(temporary)
        data_path(place).unlink(missing_ok=True)  # onnx would append to it
        onnx.save_model(model, place, save_as_external_data=True, location=data_path(place).name)
    else:
        temporary.replace(place)
    record = msgspec.structs.replace(artifact, path=str(place))
    report.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
    return f"It is at {place}, its report at {report}."
