"""Every quantization of every model, as it is and rewritten: size, accuracy, time, cycles.

One part per model, then "gauge": what the choice of scales inside the pairs is worth, and "tuned":
rewritten and fine-tuned networks in int8 against their originals. Each part runs in a process of
its own, so that one that is brought down leaves the others alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import arguments, machine, table
from quantize_steps import KINDS, MODELS, Model, data_of, notes_of, times, top1, tried
from quantize_tuned import equalize, tuned

KEPT_FLOAT = ("--keep-float", "auto", "--min-sqnr", 12)


def main() -> None:
    chosen = arguments(__doc__, *MODELS, "gauge", "tuned")
    parts = chosen.only.split(",")
    if len(parts) > 1:
        for part in parts:
            command = [sys.executable, __file__, "--only", part]
            command += ["--models", str(chosen.models), "--data", str(chosen.data)]
            subprocess.run(command, check=False)
        return
    (part,) = parts
    print(f"Machine: {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        if part == "gauge":
            equalize(chosen.models, chosen.data, Path(folder))
        elif part == "tuned":
            tuned(chosen.models, chosen.data, Path(folder))
        else:
            matrix(part, chosen.models, chosen.data, Path(folder))


def matrix(name: str, models: Path, data: Path, folder: Path) -> None:
    model = MODELS[name]
    shown = "top-1" if isinstance(model.data, str) else "SQNR"
    table(
        f"{name}: {model.file}",
        [
            "network",
            "file",
            "quantization",
            "KiB",
            shown,
            "p50 ms",
            "to the original's float32",
            "note",
        ],
        _rows(name, model, models / model.file, data_of(model, data, folder), folder),
    )


def _rows(name: str, model: Model, original: Path, data: Path, folder: Path) -> Iterator[list[Any]]:
    calibration = ("--calibration", data, *model.scale)
    for kind, quantizations in KINDS.items():
        networks = {("original", precision): original for precision in ("float32", "int8")}
        for precision in ("float32", "int8"):  # each planned for what it will run as
            small, reason = _planned(original, kind, precision, calibration, folder)
            if reason:
                yield ["rewritten", kind, precision, *[""] * 4, reason]
            else:
                networks["rewritten", precision] = small
        first = original
        for network in ("original", "rewritten"):
            for quantize in quantizations:
                precision = "int8" if quantize.startswith("int8") else "float32"
                file = networks.get((network, precision))
                if file is None:
                    continue
                row = [network, kind, quantize]
                path = folder / f"{name}-{network}-{quantize}.{kind}"
                if file.suffix == f".{kind}" and quantize == "none":
                    path, told, reason = file, {"size_bytes": file.stat().st_size}, ""
                else:
                    options = ("--quantize", quantize, *calibration, "--samples", 100)
                    told, reason = tried("export", file, "-o", path, *options)
                if reason and precision == "int8":  # refused: what loses most stays in float
                    yield [*row, *[""] * 4, reason]
                    row[-1] = f"{quantize} --keep-float auto"
                    told, reason = tried("export", file, "-o", path, *options, *KEPT_FLOAT)
                if reason:
                    yield [*row, *[""] * 4, reason]
                    continue
                if network == "original" and quantize == "none":
                    first = path
                size = f"{told['size_bytes'] / 1024:.0f}"
                result = _result(model, original, path, data)
                yield [*row, size, result, *times(model, first, path, data), notes_of(told)]


def _planned(
    original: Path, kind: str, precision: str, calibration: tuple[object, ...], folder: Path
) -> tuple[Path, str]:
    """Return the network rewritten by a plan for a runtime and a precision, or why it is not."""
    runtime = "litert" if kind == "tflite" else "ort"
    stem = f"{original.stem}-{runtime}-{precision}"
    plan, small = folder / f"{stem}.json", folder / f"{stem}{_stored(original)}"
    target = ("--runtime", runtime, "--precision", precision)
    _, reason = tried("plan", original, "-o", plan, *target, *calibration)
    if reason:
        return small, reason
    if not any(layer.get("choice") for layer in json.loads(plan.read_text())["layers"]):
        return small, "nothing gets faster: left as it is"
    return small, tried(
        "rewrite", original, "-o", small, "--plan", plan, "--refine", "0", *calibration
    )[1]


def _result(model: Model, original: Path, path: Path, data: Path) -> str:
    """Top-1 of a classifier, else the SQNR of the worst group of channels against the original."""
    if isinstance(model.data, str):
        return top1(path, data, *model.scale)
    options = ("--data", data, "--reference", original, *model.scale)
    result, reason = tried("evaluate", path, *options)
    if reason:
        return reason
    figures = [_worst(one) for one in result[0]["fidelity"]]
    return "equal" if min(figures) == np.inf else f"{min(figures):.1f} dB"


def _worst(fidelity: Any) -> float:
    """Return the lowest SQNR of an output's groups."""
    if not fidelity["finite"]:
        return float(-np.inf)
    groups = [group["sqnr_db"] for group in fidelity["measure"]["groups"]]
    return min((sqnr for sqnr in groups if sqnr is not None), default=float(np.inf))


def _stored(path: Path) -> str:
    return ".onnx" if path.suffix == ".onnx" else ".keras"


if __name__ == "__main__":
    main()
