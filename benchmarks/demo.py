"""The main job on real data, by the commands a user would type: `make demo`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path("demo")
DSCONVERT = str(Path(sys.executable).with_name("dsconvert"))


def main() -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    FOLDER.mkdir(exist_ok=True)
    os.chdir(FOLDER)
    prepare()
    fit = "--calibration digits.npz --scale 1/255 --overwrite"
    run("inspect model.h5")
    run(f"rewrite model.h5 -o rewritten.keras {fit}")
    run(
        "finetune rewritten.keras --teacher model.h5 --data digits.npz --scale 1/255 "
        "--epochs 3 -o tuned.keras --overwrite"
    )
    run(
        "evaluate model.h5 rewritten.keras tuned.keras --data digits.npz --scale 1/255 "
        "--reference model.h5"
    )
    for source, name in (("model.h5", "model"), ("tuned.keras", "tuned")):
        run(f"export {source} -o {name}.tflite {fit}")
        run(f"export {source} -o {name}-int8.tflite --quantize int8 {fit}")
        run(f"export {source} -o {name}.onnx {fit}")
    files = "model.tflite tuned.tflite model-int8.tflite tuned-int8.tflite"
    run(f"profile {files}")
    run("profile model.onnx tuned.onnx")
    summary(files)


def prepare() -> None:
    """The data and the trained model."""
    from digits import train_digits, write_digits

    from dsconvert.base.quiet import captured

    print("Training a small CNN on scikit-learn's digits …", flush=True)
    write_digits(Path("digits.npz"))
    with captured():  # Keras calls .h5 legacy, and TensorFlow greets
        train_digits(Path("digits.npz"), Path("model.h5"))


def run(arguments: str) -> None:
    """Show a command, then what it prints."""
    print(f"\n$ dsconvert {arguments}", flush=True)
    subprocess.run([DSCONVERT, *arguments.split(), "-q"], check=True)


def ask(arguments: str) -> Any:
    """Return a command's result as data."""
    command = [DSCONVERT, *arguments.split(), "--json", "-q"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def summary(files: str) -> None:
    """Original against rewritten, float and int8, in one table."""
    from rich.console import Console
    from rich.table import Table

    counts = {
        "model": ask("inspect model.h5"),
        "tuned": ask("inspect tuned.keras"),
    }
    accuracies = ask(f"evaluate {files} --data digits.npz --scale 1/255")
    measured = ask(f"profile {files}")
    table = Table(
        "", "parameters", "MACs", "file", "top-1", "p50", "against the original", box=None
    )
    p50 = {m["path"]: m["latency"]["p50_ms"] for m in measured}
    for evaluation, measurement in zip(accuracies, measured, strict=True):
        path = measurement["path"]
        stem = path.removesuffix(".tflite")
        source = stem.removesuffix("-int8")
        kind = "int8" if stem.endswith("-int8") else "float32"
        count = counts[source]
        original = path.replace("tuned", "model")
        versus = "" if source == "model" else f"{p50[original] / p50[path]:.2f}× as fast"
        table.add_row(
            f"{'original' if source == 'model' else 'rewritten'}, {kind}",
            f"{count['params']:,}",
            f"{count['macs'] / 1e6:.2f} M",
            f"{measurement['size_bytes'] / 1024:.1f} KiB",
            f"{100 * evaluation['top1']['value']:.1f} %",
            f"{p50[path] * 1e3:.0f} µs",
            versus,
        )
    print("\nOriginal against rewritten (TFLite, one thread, interleaved in one run):\n")
    Console(width=120, highlight=False).print(table)


if __name__ == "__main__":
    main()
