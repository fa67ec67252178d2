"""Int8 of rewritten networks: the scales inside their pairs, and what training gives back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common import VGG6, table
from quantize_steps import KINDS, MODELS, notes_of, times, top1, tried

NPU = "ethos-u55-128"


def equalize(models: Path, data: Path, folder: Path) -> None:
    """Int8 files with and without what is chosen for them; of networks at T = 1, untrained."""

    def rows() -> Iterator[list[Any]]:
        for name in ("resnet8", "vgg6"):
            original, small = models / MODELS[name].file, folder / f"{name}.keras"
            reason = tried(
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
            told, reason = tried("export", network, "-o", path, *options)
            row = [name, kind, " ".join(way) or "as it comes"]
            if reason:
                yield [*row, "", "", reason]
                continue
            checked, reason = tried(
                *("verify", network, path, "--data", data, "--samples", 2000, "--min-sqnr", -1000)
            )
            sqnr = reason or f"{checked['fidelity'][0]['sqnr_db']:.2f} dB"
            yield [*row, sqnr, top1(path, data), notes_of(told)]


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
                        told, reason = tried(
                            *("export", source, "-o", path, "--quantize", quantize),
                            *("--calibration", data),
                        )
                        row = [name, which, kind, quantize]
                        if reason:
                            yield [*row, "", "", reason]
                            continue
                        files[name, which, kind, quantize] = path
                        size = f"{path.stat().st_size / 1024:.1f}"
                        yield [*row, size, top1(path, data), notes_of(told)]

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
        reason = tried(*step)[1]
        if reason:
            raise SystemExit(f"{step[0]} of {name}: {reason}")
    return trained


def _against(files: dict[tuple[str, str, str, str], Path], data: Path) -> Iterator[list[Any]]:
    for (name, which, kind, quantize), path in files.items():
        small = files.get((name, "rewritten, tuned", kind, quantize))
        if which == "original" and small is not None:
            before, _ = times(MODELS[name], path, path, data)
            after, ratio = times(MODELS[name], path, small, data)
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
    inspected, reason = tried("inspect", original)
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
            or tried("rewrite", original, "-o", network, "--plan", plan)[1]
            or tried(
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
            median, ratio = times(MODELS["vgg6"], dense, path, data)
            yield [
                *(label, f"{path.stat().st_size / 1024:.0f}", median, ratio),
                *(f"{told.cycles / 1e3:,.0f} k", f"{cycles / told.cycles:.2f}×"),
            ]

    table(
        f"VGG6 in int8 on LiteRT, one thread, and on {NPU} as Vela estimates it",
        ["network", "KiB", "p50 ms", "time to the original's", "cycles", "fewer by"],
        rows(),
    )
