"""Every quantization of every model, as it is and rewritten by plan: size, accuracy, time."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import RESNET8, VGG6, arguments, machine, table


class Model(NamedTuple):
    """A model of the benchmark.

    Attributes:
        file: Below the folder of models.
        data: "cifar10" or "mnist" where it classifies that; else the (height, width, channels) of
            pictures that it is fed, enlarged from CIFAR-10's.
        scale: The options that say how it takes them.
    """

    file: str
    data: str | tuple[int, int, int]
    scale: tuple[str, ...] = ()


MODELS = {
    "resnet8": Model(RESNET8, "cifar10"),
    "vgg6": Model(VGG6, "cifar10"),
    "nncf_lenet": Model("keras/nncf_lenet.h5", "mnist", ("--scale", "1/255")),
    "dncnn": Model("keras/dncnn_sigma25.keras", (64, 64, 1), ("--scale", "1/255")),
    "ultraface": Model("onnx/ultraface_rfb_320.onnx", (240, 320, 3), ("--scale", "1/127.5")),
    "winml_pytorch": Model(
        "onnx/winml_pytorch_tutorial_cnn.onnx", "cifar10", ("--scale", "1/127.5", "--mean", "1")
    ),
    "yunet": Model("onnx/yunet_n_dynamic.onnx", (320, 320, 3)),
}
PICTURES = 120
"""Of models without labels: 100 to calibrate on, 20 to compare on."""
KINDS = {
    "tflite": ("none", "float16", "dynamic", "int8", "int8-float-io", "int16x8"),
    "onnx": ("none", "float16", "dynamic", "int8"),
}


def main() -> None:
    chosen = arguments(__doc__, "matrix", "gauge")
    print(f"Machine: {machine()}")
    parts: dict[str, Callable[[Path, Path, Path], None]] = {"matrix": matrix, "gauge": gauge}
    for name in chosen.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            parts[name](chosen.models, chosen.data, Path(folder))


def matrix(models: Path, data: Path, folder: Path) -> None:
    for name, model in MODELS.items():
        source = _data(model, data, folder)
        table(
            f"{name}: {model.file}",
            ["network", "file", "quantization", "size", "result", "p50 to its own float32", "note"],
            _rows(name, model, models / model.file, source, folder),
        )


def _rows(name: str, model: Model, original: Path, data: Path, folder: Path) -> Iterator[list[Any]]:
    plan, small = folder / f"{name}.json", folder / f"{name}-small{_stored(original)}"
    calibration = ("--calibration", data, *model.scale)
    networks = {"original": original}
    failed = (
        _try("plan", original, "-o", plan, *calibration)[1]
        or _try("rewrite", original, "-o", small, "--plan", plan, *calibration)[1]
    )
    if failed:
        yield ["rewritten", "", "", "", "", "", failed]
    else:
        networks["rewritten"] = small
    for network, file in networks.items():
        for kind, quantizations in KINDS.items():
            baseline = None
            for quantize in quantizations:
                row = [network, kind, quantize]
                path = folder / f"{name}-{network}-{quantize}.{kind}"
                if file.suffix == f".{kind}" and quantize == "none":
                    path, told, reason = file, {"size_bytes": file.stat().st_size}, ""
                else:
                    options = ("--quantize", quantize, *calibration, "--samples", 100)
                    told, reason = _try("export", file, "-o", path, *options)
                if reason:
                    yield [*row, "", "", "", reason]
                    continue
                baseline = baseline or path
                size = f"{told['size_bytes'] / 1024:.0f} KiB"
                result, ratio = _result(model, original, path, data), _ratio(baseline, path)
                yield [*row, size, result, ratio, _notes(told)]


def _result(model: Model, original: Path, path: Path, data: Path) -> str:
    """Top-1 of a classifier, else the SQNR of the worst output against the original."""
    if isinstance(model.data, str):
        result, reason = _try("evaluate", path, "--data", data, *model.scale)
        return reason or f"{100 * result[0]['top1']['value']:.2f} %"
    threshold = ("--min-sqnr", -1000)
    result, reason = _try("verify", original, path, "--data", data, *threshold, *model.scale)
    if reason:
        return reason
    worst = min(one["sqnr_db"] if one["finite"] else -np.inf for one in result["fidelity"])
    return f"{worst:.1f} dB"


def _ratio(baseline: Path, path: Path) -> str:
    if baseline == path:
        return "1"
    result, reason = _try("profile", baseline, path)
    if reason or result[1]["comparison"] is None:
        return reason or str(result[1]["failure"])
    versus = result[1]["comparison"]
    return f"{versus['ratio']:.2f} ({versus['low']:.2f}–{versus['high']:.2f})"


def _notes(told: Any) -> str:
    wanted = ("gauge kept", "gauge not", "bias correction", "nothing was")
    return "; ".join(note for note in told.get("notes", ()) if note.startswith(wanted))


def gauge(models: Path, data: Path, folder: Path) -> None:
    def rows() -> Iterator[list[Any]]:
        for name in ("resnet8", "vgg6"):
            original, small = models / MODELS[name].file, folder / f"{name}.keras"
            reason = _try("rewrite", original, "-o", small, "--calibration", data)[1]
            if reason:
                yield [name, "", "", "", "", reason]
                continue
            for kind in KINDS:
                for way in (
                    ("--gauge", "off", "--no-bias-correction"),
                    ("--gauge", "on", "--no-bias-correction"),
                    ("--gauge", "off"),
                    (),
                ):
                    path = folder / f"{name}.{kind}"
                    options = ("--quantize", "int8", "--calibration", data, "--overwrite", *way)
                    told, reason = _try("export", small, "-o", path, *options)
                    row = [name, kind, " ".join(way) or "as it comes"]
                    if reason:
                        yield [*row, "", "", reason]
                        continue
                    checked, reason = _try(
                        *("verify", small, path, "--data", data, "--samples", 2000),
                        *("--min-sqnr", -1000),
                    )
                    sqnr = reason or f"{checked['fidelity'][0]['sqnr_db']:.2f} dB"
                    yield [*row, sqnr, _result(MODELS[name], original, path, data), _notes(told)]

    table(
        "Int8 of networks rewritten at T = 1: the file against the float network",
        ["network", "file", "how", "SQNR", "top-1", "note"],
        rows(),
    )


def _data(model: Model, cifar: Path, folder: Path) -> Path:
    """Where the model's images are."""
    if model.data == "cifar10":
        return cifar
    if model.data == "mnist":
        return cifar.with_name("mnist.npz")
    from PIL import Image

    height, width, channels = (int(size) for size in model.data)
    path = folder / f"{height}x{width}x{channels}.npz"
    mode = "L" if channels == 1 else "RGB"
    pictures = [
        np.asarray(
            Image.fromarray(x).convert(mode).resize((width, height), Image.Resampling.BICUBIC)
        )
        for x in np.load(cifar)["x_train"][:PICTURES]
    ]
    array = np.stack(pictures).reshape(-1, height, width, channels)
    np.savez(path, x_train=array[:100], x_test=array[100:])
    return path


def _stored(path: Path) -> str:
    return ".onnx" if path.suffix == ".onnx" else ".keras"


def _try(*arguments: object) -> tuple[Any, str]:
    """One command, as a user would give it: its JSON, or why there is none."""
    code = "from dsconvert.converter.cli import main; main()"
    command = [sys.executable, "-c", code, *map(str, arguments), "-q", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout), ""
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error:")] or lines[-1:]
    return {}, f"exit {done.returncode}: {errors[0][:160] if errors else 'no message'}"


if __name__ == "__main__":
    main()
