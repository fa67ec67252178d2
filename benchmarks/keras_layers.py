"""Which Keras layers load from files of older versions, and which export to which format.

    python benchmarks/keras_layers.py versions
    python benchmarks/keras_layers.py exports tflite onnx tflite-int8

write their tables into docs/keras-layers.md, between its markers. What was tried is kept in
build/keras_layers.json, and a later run goes on from there; remove the file to begin anew. The
files of older versions are those of `keras_files.py`.
"""

from __future__ import annotations

import json
import os
import sys
import tarfile
import tempfile
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore")
ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
FILES = ROOT / "tests" / "data" / "keras_files"
DOCUMENT = ROOT / "docs" / "keras-layers.md"
TRIED = ROOT / "build" / "keras_layers.json"
CLOSE = 1e-4
"""Of the largest output: the versions sum in other orders."""


def loaded(path: Path, expected: Any, given: Any) -> str:
    """Load a file of an older version and say what became of it."""
    import numpy as np

    from dsconvert.base.errors import DsconvertError
    from dsconvert.models.loading import load

    try:
        file = load(path)
    except DsconvertError as error:
        return f"refused: {error.code}"
    found = np.asarray(file.model.predict(given, verbose=0), np.float64)
    apart = np.abs(found - expected).max() if found.shape == expected.shape else np.inf
    if not apart <= CLOSE * np.abs(expected).max():
        return "DIFFERS"
    return "repaired" if any("looked in" not in told for told in file.repairs) else "equal"


def versions() -> tuple[str, int]:
    """Return the table of files, and how many differ without a word."""
    import numpy as np
    from keras_layer_kinds import LAYERS, samples

    columns: dict[str, dict[str, str]] = {}
    for archive in sorted(FILES.glob("keras-*.tar.xz")):
        version = archive.name.removeprefix("keras-").removesuffix(".tar.xz")
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(archive) as packed:
                packed.extractall(folder, filter="data")
            for path in sorted(Path(folder).iterdir()):
                if path.suffix == ".npy":
                    continue
                expected = np.load(path.with_suffix(".npy"))
                column = columns.setdefault(f"{version} {path.suffix}", {})
                column[path.stem] = loaded(path, expected, samples(path.stem, len(expected)))
    return _table(LAYERS, columns), sum(_count(columns)["DIFFERS"].values())


def exports(formats: list[str]) -> str:
    """Return the table of exports; a format is tflite, onnx, tflite-int8 or onnx-int8."""
    import keras
    from keras_layer_kinds import LAYERS

    tried: dict[str, dict[str, str]] = {}
    if TRIED.exists():
        tried = json.loads(TRIED.read_text())
    TRIED.parent.mkdir(exist_ok=True)
    for name in LAYERS:
        for format in formats:
            if name in tried.get(format, {}):
                continue
            tried.setdefault(format, {})[name] = exported(keras, name, format)
            print(f"{name} {format}: {tried[format][name]}", file=sys.stderr)
            TRIED.write_text(json.dumps(tried))
        keras.backend.clear_session()
    columns = {
        format: {name: told for name, told in column.items() if told}
        for format, column in tried.items()
    }
    return _table(LAYERS, columns, absent="not tried")


def exported(keras: Any, name: str, format: str) -> str:
    """Export one network and say what became of it; empty where this Keras has no such layer."""
    from keras_layer_kinds import network, samples

    import dsconvert as ds

    try:
        model = network(keras, name)
    except (AttributeError, ValueError):
        return ""
    kind, _, quantization = format.partition("-")
    options = ds.ExportOptions(quantize=quantization or "none", equalize="off")  # type: ignore[arg-type]
    data = samples(name, 16)
    with tempfile.TemporaryDirectory() as folder:
        try:
            ds.export(model, Path(folder) / f"net.{kind}", options, calibration=data)
        except ds.DsconvertError as error:
            return f"refused: {_why(error)}"
    return "yes"


def _why(error: Any) -> str:
    """Return the operators that a refusal names, or its first words."""
    text = error.message
    for start in ("no TFLite kernel for ", "it has no operation "):
        if start in text:
            return f"no {text.split(start)[1].split(', in the layer')[0].rstrip('.')}"
    return str(error.code)


def _count(columns: dict[str, dict[str, str]]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {"DIFFERS": Counter()}
    for title, column in columns.items():
        for told in column.values():
            found.setdefault(told.split(":")[0], Counter())[title] += 1
    return found


def _table(layers: Any, columns: dict[str, dict[str, str]], absent: str = "–") -> str:
    """Return a table in Markdown: counts, and a row for each kind of layer."""
    counts = _count(columns)
    lines = [
        f"- {title}: {len(column)} kinds; "
        + ", ".join(f"{counts[told][title]} {told}" for told in counts if counts[told][title])
        for title, column in columns.items()
    ]
    lines += ["", f"| layer | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for name in layers:
        cells = [column.get(name, absent) for column in columns.values()]
        if any(cell != absent for cell in cells):
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _write(what: str, table: str) -> None:
    begin, end = f"<!-- table: {what} -->", f"<!-- end: {what} -->"
    before, rest = DOCUMENT.read_text().split(begin)
    DOCUMENT.write_text(f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}")


def main() -> None:
    what, *formats = sys.argv[1:]
    if what == "versions":
        table, differ = versions()
        _write(what, table)
        print(table)
        sys.exit(f"{differ} files differ without a word" if differ else 0)
    _write(what, exports(formats))


if __name__ == "__main__":
    main()
