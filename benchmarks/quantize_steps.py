"""What the parts of the quantization benchmark share: models, and commands with their figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import RESNET8, VGG6


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
    "ultraface": Model(
        "onnx/ultraface_rfb_320.onnx", (240, 320, 3), ("--scale", "1/128", "--mean", "127/128")
    ),
    "winml_pytorch": Model(
        "onnx/winml_pytorch_tutorial_cnn.onnx", "cifar10", ("--scale", "1/127.5", "--mean", "1")
    ),
    "yunet": Model("onnx/yunet_n_dynamic.onnx", (160, 160, 3)),
}


PICTURES = 120
"""Of models without labels: 100 to calibrate on, 20 to compare on."""


KINDS = {
    "tflite": ("none", "float16", "dynamic", "int8", "int8-float-io", "int16x8"),
    "onnx": ("none", "float16", "dynamic", "int8", "int16x8"),
}


def top1(path: Path, data: Path, *options: object) -> str:
    result, reason = tried("evaluate", path, "--data", data, *options)
    return reason or f"{100 * result[0]['top1']['value']:.2f} %"


def times(model: Model, baseline: Path, path: Path, data: Path) -> tuple[str, str]:
    """Return the median, and its ratio to another file's from the same run."""
    files = dict.fromkeys((baseline, path))
    result, reason = tried("profile", *files, "--data", data, *model.scale)
    if reason or result[-1]["latency"] is None:
        return "", reason or str(result[-1]["failure"])
    versus = result[-1]["comparison"]
    ratio = f"{versus['ratio']:.2f} ({versus['low']:.2f}–{versus['high']:.2f})" if versus else ""
    return f"{result[-1]['latency']['p50_ms']:.3f}", ratio


def notes_of(told: Any) -> str:
    wanted = ("gauge kept", "gauge not", "bias correction", "nothing was", "layers in float")
    notes = told.get("notes", ())
    return "; ".join(note for note in notes if any(text in note for text in wanted))


def data_of(model: Model, cifar: Path, folder: Path) -> Path:
    """Tell where the model's images are."""
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


def tried(*arguments: object) -> tuple[Any, str]:
    """Return one command, as a user would give it: its JSON, or why there is none."""
    from click.testing import CliRunner

    from dsconvert.cli import main as dsconvert

    done = CliRunner().invoke(dsconvert, [*map(str, arguments), "-q", "--json"])
    if done.exit_code == 0:
        return json.loads(done.stdout), ""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return {}, _without_folders(f"{type(done.exception).__name__}: {done.exception}")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    told = [json.loads(line)["message"] for line in lines if line.startswith("{")]
    (last,) = told[:1] or lines[-1:] or ["no message"]
    return {}, f"exit {done.exit_code}: {_without_folders(last)}"


def _without_folders(text: str) -> str:
    """Return a message that fits into a table and names no folder of this machine."""
    return re.sub(r"(?<!\S)/\S*/", "", text)[:240]
