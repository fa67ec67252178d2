"""Every quantization of every model, as it is and rewritten: size, accuracy, time, cycles.

One part per model, then "gauge": what the choice of scales inside the pairs is worth, and "tuned":
rewritten and fine-tuned networks in int8 against their originals. Each part runs in a process of
its own, so that one that is brought down leaves the others alone.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
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
KEPT_FLOAT = ("--keep-float", "auto", "--min-sqnr", 12)
NPU = "ethos-u55-128"


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
        _rows(name, model, models / model.file, _data(model, data, folder), folder),
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
                    told, reason = _try("export", file, "-o", path, *options)
                if reason and precision == "int8":  # refused: what loses most stays in float
                    yield [*row, *[""] * 4, reason]
                    row[-1] = f"{quantize} --keep-float auto"
                    told, reason = _try("export", file, "-o", path, *options, *KEPT_FLOAT)
                if reason:
                    yield [*row, *[""] * 4, reason]
                    continue
                if network == "original" and quantize == "none":
                    first = path
                size = f"{told['size_bytes'] / 1024:.0f}"
                result = _result(model, original, path, data)
                yield [*row, size, result, *_times(model, first, path, data), _notes(told)]


def _planned(
    original: Path, kind: str, precision: str, calibration: tuple[object, ...], folder: Path
) -> tuple[Path, str]:
    """Return the network rewritten by a plan for a runtime and a precision, or why it is not."""
    runtime = "litert" if kind == "tflite" else "ort"
    stem = f"{original.stem}-{runtime}-{precision}"
    plan, small = folder / f"{stem}.json", folder / f"{stem}{_stored(original)}"
    target = ("--runtime", runtime, "--precision", precision)
    _, reason = _try("plan", original, "-o", plan, *target, *calibration)
    if reason:
        return small, reason
    if not any(layer.get("choice") for layer in json.loads(plan.read_text())["layers"]):
        return small, "nothing gets faster: left as it is"
    return small, _try(
        "rewrite", original, "-o", small, "--plan", plan, "--refine", "0", *calibration
    )[1]


def _result(model: Model, original: Path, path: Path, data: Path) -> str:
    """Top-1 of a classifier, else the SQNR of the worst group of channels against the original."""
    if isinstance(model.data, str):
        return _top1(path, data, *model.scale)
    options = ("--data", data, "--reference", original, *model.scale)
    result, reason = _try("evaluate", path, *options)
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


def _top1(path: Path, data: Path, *options: object) -> str:
    result, reason = _try("evaluate", path, "--data", data, *options)
    return reason or f"{100 * result[0]['top1']['value']:.2f} %"


def _times(model: Model, baseline: Path, path: Path, data: Path) -> tuple[str, str]:
    """Return the median, and its ratio to another file's from the same run."""
    files = dict.fromkeys((baseline, path))
    result, reason = _try("profile", *files, "--data", data, *model.scale)
    if reason or result[-1]["latency"] is None:
        return "", reason or str(result[-1]["failure"])
    versus = result[-1]["comparison"]
    ratio = f"{versus['ratio']:.2f} ({versus['low']:.2f}–{versus['high']:.2f})" if versus else ""
    return f"{result[-1]['latency']['p50_ms']:.3f}", ratio


def _notes(told: Any) -> str:
    wanted = ("gauge kept", "gauge not", "bias correction", "nothing was", "layers in float")
    notes = told.get("notes", ())
    return "; ".join(note for note in notes if any(text in note for text in wanted))


def equalize(models: Path, data: Path, folder: Path) -> None:
    """Int8 files with and without what is chosen for them; of networks at T = 1, untrained."""

    def rows() -> Iterator[list[Any]]:
        for name in ("resnet8", "vgg6"):
            original, small = models / MODELS[name].file, folder / f"{name}.keras"
            reason = _try(
                "rewrite",
                original,
                "-o",
                small,
                "--structure",
                "pairs",
                "--refine",
                "0",
                "--calibration",
                data,
            )[1]
            if reason:
                yield [name, *[""] * 4, reason]
            else:
                yield from _equalize_rows(name, small, data, folder)

    table("Int8 of networks rewritten at T = 1", _GAUGE_COLUMNS, rows())


_GAUGE_COLUMNS = ["network", "file", "how", "SQNR to the float network", "top-1", "note"]


def _equalize_rows(name: str, network: Path, data: Path, folder: Path) -> Iterator[list[Any]]:
    for kind in KINDS:
        for way in (
            ("--gauge", "off", "--no-bias-correction"),
            ("--gauge", "on", "--no-bias-correction"),
            ("--gauge", "off"),
            (),
        ):
            path = folder / f"{name}.{kind}"
            options = ("--quantize", "int8", "--calibration", data, "--overwrite", *way)
            told, reason = _try("export", network, "-o", path, *options)
            row = [name, kind, " ".join(way) or "as it comes"]
            if reason:
                yield [*row, "", "", reason]
                continue
            checked, reason = _try(
                *("verify", network, path, "--data", data, "--samples", 2000, "--min-sqnr", -1000)
            )
            sqnr = reason or f"{checked['fidelity'][0]['sqnr_db']:.2f} dB"
            yield [*row, sqnr, _top1(path, data), _notes(told)]


class Trained(NamedTuple):
    """A network rewritten and fine-tuned without labels.

    Attributes:
        planned: Rewritten by plan; else at one pair per convolution.
        training: The options of `finetune`.
    """

    planned: bool
    training: tuple[object, ...]


TRAINED = {
    "resnet8": Trained(True, ("--epochs", 8)),
    "vgg6": Trained(False, ("--epochs", 25, "--augment", "flip", "--augment", "crop")),
}


def tuned(models: Path, data: Path, folder: Path) -> None:
    """Networks that took their training: kept in the cache folder, and used again from there."""
    from dsconvert.base.cache_folder import cache_folder

    kept = cache_folder() / "benchmarks"
    kept.mkdir(parents=True, exist_ok=True)
    networks = {name: _train(name, models, data, kept) for name in TRAINED}
    files: dict[tuple[str, str, str, str], Path] = {}

    def rows() -> Iterator[list[Any]]:
        for name, network in networks.items():
            original = models / MODELS[name].file
            for which, source in (("original", original), ("rewritten, tuned", network)):
                yield [name, which, "Keras", "", f"{source.stat().st_size / 1024:.0f}", "", ""]
                for kind in KINDS:
                    for quantize in ("none", "int8"):
                        path = folder / f"{name}-{which[0]}-{quantize}.{kind}"
                        told, reason = _try(
                            *("export", source, "-o", path, "--quantize", quantize),
                            *("--calibration", data),
                        )
                        row = [name, which, kind, quantize]
                        if reason:
                            yield [*row, "", "", reason]
                            continue
                        files[name, which, kind, quantize] = path
                        size = f"{path.stat().st_size / 1024:.1f}"
                        yield [*row, size, _top1(path, data), _notes(told)]

    columns = ["model", "network", "file", "quantization", "KiB", "top-1", "note"]
    table("Rewritten and fine-tuned without labels: float and int8", columns, rows())
    table(
        "The same on this machine: the rewritten file against the original, one thread",
        ["model", "file", "quantization", "original p50 ms", "rewritten p50 ms", "ratio"],
        _against(files, data),
    )
    table(
        "The scales inside the pairs of the fine-tuned networks",
        _GAUGE_COLUMNS,
        (row for name in networks for row in _equalize_rows(name, networks[name], data, folder)),
    )
    pitfall(models, data, folder, files)


def _train(name: str, models: Path, data: Path, kept: Path) -> Path:
    """Return the rewritten and fine-tuned network."""
    original, how = models / MODELS[name].file, TRAINED[name]
    small, trained = kept / f"{name}.keras", kept / f"{name}_tuned.keras"
    if trained.exists():
        return trained
    plan, options = kept / f"{name}.json", ["--calibration", data, "--overwrite"]
    chosen: list[object] = []
    steps: list[list[object]] = []
    if how.planned:
        steps.append(["plan", original, "-o", plan, *options])
        chosen = ["--plan", plan]
    steps += [
        ["rewrite", original, "-o", small, *options, *chosen],
        [
            *("finetune", small, "--teacher", original, "--data", data, "--mixed-precision"),
            *("-o", trained, *how.training),
        ],
    ]
    for step in steps:
        reason = _try(*step)[1]
        if reason:
            raise SystemExit(f"{step[0]} of {name}: {reason}")
    return trained


def _against(files: dict[tuple[str, str, str, str], Path], data: Path) -> Iterator[list[Any]]:
    for (name, which, kind, quantize), path in files.items():
        small = files.get((name, "rewritten, tuned", kind, quantize))
        if which == "original" and small is not None:
            before, _ = _times(MODELS[name], path, path, data)
            after, ratio = _times(MODELS[name], path, small, data)
            yield [name, kind, quantize, before, after, ratio]


def pitfall(
    models: Path, data: Path, folder: Path, files: dict[tuple[str, str, str, str], Path]
) -> None:
    """VGG6 in int8: pairs, and one depthwise of depth_multiplier 2 in their place."""
    original = models / VGG6
    networks = {
        "original": files["vgg6", "original", "tflite", "int8"],
        "T = 1, tuned": files["vgg6", "rewritten, tuned", "tflite", "int8"],
    }
    inspected, reason = _try("inspect", original)
    for label, lowering in (("T = 2, pairs summed", "sum"), ("depth_multiplier 2", "multiplier")):
        plan, network = folder / f"{lowering}.json", folder / f"{lowering}.keras"
        path = network.with_suffix(".tflite")
        choice = {"pairs": 2, "order": "depthwise-first", "lowering": lowering}
        layers = [
            {"name": layer["name"], "spec": None, "choice": choice}
            for layer in inspected["convolutions"]
            if layer["spec"]["in_channels"] > 3
        ]
        plan.write_text(json.dumps({"schema": "dsconvert.plan/1", "layers": layers}))
        reason = (
            reason
            or _try("rewrite", original, "-o", network, "--plan", plan)[1]
            or _try(
                *("export", network, "-o", path, "--quantize", "int8", "--calibration", data),
                "--no-verify",
            )[1]
        )
        if reason:
            raise SystemExit(f"{label}: {reason}")
        networks[label] = path

    def rows() -> Iterator[list[Any]]:
        from dsconvert.deploy.costs import estimate

        dense = networks["original"]
        cycles = estimate(dense, NPU).cycles
        for label, path in networks.items():
            told = estimate(path, NPU)
            median, ratio = _times(MODELS["vgg6"], dense, path, data)
            yield [
                *(label, f"{path.stat().st_size / 1024:.0f}", median, ratio),
                *(f"{told.cycles / 1e3:,.0f} k", f"{cycles / told.cycles:.2f}×"),
            ]

    table(
        f"VGG6 in int8 on LiteRT, one thread, and on {NPU} as Vela estimates it",
        ["network", "KiB", "p50 ms", "time to the original's", "cycles", "fewer by"],
        rows(),
    )


def _data(model: Model, cifar: Path, folder: Path) -> Path:
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


def _stored(path: Path) -> str:
    return ".onnx" if path.suffix == ".onnx" else ".keras"


def _try(*arguments: object) -> tuple[Any, str]:
    """Return one command, as a user would give it: its JSON, or why there is none."""
    from click.testing import CliRunner

    from dsconvert.cli import main as dsconvert

    done = CliRunner().invoke(dsconvert, [*map(str, arguments), "-q", "--json"])
    if done.exit_code == 0:
        return json.loads(done.stdout), ""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return {}, _without_folders(f"{type(done.exception).__name__}: {done.exception}")
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("Error:")] or lines[-1:]
    told = errors[0].removeprefix("Error: ") if errors else "no message"
    return {}, f"exit {done.exit_code}: {_without_folders(told)}"


def _without_folders(text: str) -> str:
    """Return a message that fits into a table and names no folder of this machine."""
    return re.sub(r"(?<!\S)/\S*/", "", text)[:240]


if __name__ == "__main__":
    main()
