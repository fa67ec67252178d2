"""Files that did not pass their verification, kept beside their place to be looked into."""

from __future__ import annotations

from pathlib import Path

import msgspec

from dsconvert.base.json_text import indented
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.save import data_path, save

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
        save(load(temporary), temporary.parent, place, overwrite=True, check=False)
    else:
        temporary.replace(place)
    record = msgspec.structs.replace(artifact, path=str(place))
    report.write_bytes(indented(record) + b"\n")
    return f"It is at {place}, its report at {report}."
