"""ONNX models by other people: rewritten at full rank, at the Keras path's accuracy, fine-tuned."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import RESNET8, arguments, machine, table

RESNET8_ONNX = (
    "resnet8_tf2onnx_op13.onnx",
    "resnet8_constnodes.onnx",
    "resnet8_external/model.onnx",
)
WINML = "winml_pytorch_tutorial_cnn.onnx"
SIZES = {"height": 64, "width": 64, "sequence": 512}
"""For sizes that the files leave free."""


def main() -> None:
    chosen = arguments(__doc__, "exact", "accuracy", "finetune")
    print(f"Machine: {machine()}")
    parts: dict[str, Callable[[Path, Path], None]] = {
        "exact": exact,
        "accuracy": accuracy,
        "finetune": finetune,
    }
    for name in chosen.only.split(","):
        parts[name](chosen.models, chosen.data)


def exact(models: Path, data: Path) -> None:
    table(
        "Every convolution that can be, rewritten at full rank: relative error of the outputs",
        ["file", "rewritten", "left alone", "largest error"],
        _exact_rows(models / "onnx"),
    )


def _exact_rows(folder: Path) -> Iterator[list[Any]]:
    from dsconvert.base.errors import InputError
    from dsconvert.converter.inspect import inspect
    from dsconvert.converter.rewrite import rewrite
    from dsconvert.formats.onnx.open import open_onnx

    for path in sorted(folder.rglob("*.onnx")):
        name = str(path.relative_to(folder))
        try:
            file = open_onnx(path)
        except InputError as error:
            yield [name, "–", error.message.split("; ")[-1], ""]
            continue
        rows = inspect(file.model, folder=path.parent).convolutions
        can = [row.name for row in rows if row.options]
        result = rewrite(file.model, folder=path.parent, pairs=100, include=can)
        left = Counter(row.reason.code for row in rows if row.reason and row.name not in can)
        error = _difference(file.model, result.model, path.parent)
        told = ", ".join(f"{count} {code}" for code, count in left.items())
        yield [name, f"{len(can)} of {len(rows)}", told, f"{error:.1e}"]


def _difference(before: Any, after: Any, folder: Path) -> float:
    from dsconvert.base.fidelity import relative_error
    from dsconvert.formats.onnx.session import session

    sessions = [session(model, folder) for model in (before, after)]
    rng = np.random.default_rng(0)
    feeds = {item.name: _input(item, rng) for item in sessions[0].get_inputs()}
    outputs = [one.run(None, feeds) for one in sessions]
    return max(relative_error(a, b) for a, b in zip(*outputs, strict=True))


def _input(item: Any, rng: np.random.Generator) -> Any:
    shape = [size if isinstance(size, int) else SIZES.get(size, 1) for size in item.shape]
    if item.name == "sr":
        return np.array(16000)
    if "int" in item.type:
        return np.full(shape, 8, np.int32 if "int32" in item.type else np.int64)
    return rng.uniform(0, 1, shape).astype(np.float16 if "float16" in item.type else np.float32)


def accuracy(models: Path, data: Path) -> None:
    def rows() -> Iterator[list[Any]]:
        files = [models / RESNET8, *(models / "onnx" / name for name in RESNET8_ONNX)]
        with tempfile.TemporaryDirectory() as folder:
            for pairs in (1, 2, 3):
                for file in files:
                    small = Path(folder) / f"small{file.suffix.replace('.h5', '.keras')}"
                    run(
                        "rewrite",
                        file,
                        "-o",
                        small,
                        "--overwrite",
                        "--calibration",
                        data,
                        "--pairs",
                        pairs,
                    )
                    yield [file.relative_to(models), pairs, _top1(small, data)]

    table(
        "ResNet8 rewritten with 1,000 unlabelled images, no training",
        ["file", "T", "top-1 %"],
        rows(),
    )


def finetune(models: Path, data: Path) -> None:
    scale = ("--scale", "1/127.5", "--mean", "1")
    model = models / "onnx" / WINML
    with tempfile.TemporaryDirectory() as name:
        small, tuned = Path(name) / "small.onnx", Path(name) / "tuned.onnx"
        budget = ("--pairs", 1, "--refine", "300steps")
        run("rewrite", model, "-o", small, *budget, "--calibration", data, *scale)
        settings = ("--labels", "--epochs", 5)
        run(
            "finetune",
            small,
            "--teacher",
            model,
            "--data",
            data,
            "-o",
            tuned,
            *settings,
            *scale,
        )
        table(
            f"{WINML} at the MACs of one pair (stem kept), 5 epochs of distillation with labels",
            ["", "top-1 %"],
            [
                [what, _top1(file, data, *scale)]
                for what, file in (("original", model), ("rewritten", small), ("tuned", tuned))
            ],
        )


def _top1(file: Path, data: Path, *options: str) -> str:
    import json

    result = json.loads(run("evaluate", file, "--data", data, "--json", *options))
    one = result[0] if isinstance(result, list) else result
    return f"{100 * one['top1']['value']:.2f}"


def run(*arguments: object) -> str:
    """Return one command, as a user would give it; what it prints on stdout."""
    code = "from dsconvert.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments), "-q"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
