"""Other people's tools on the same models and images, each in an environment of its own.

Environments are made below build/peers by uv, from a package index; torch's takes 5 GB. A cell that
was measured is kept in results/peers/cells and not measured again. Parts:

int8        the unmodified model in int8: ai-edge-quantizer, TensorFlow's converter, ONNX Runtime's
            quantize_static and nncf, beside `dsconvert export`
onnx        .onnx files to .tflite files: onnx2tf beside `dsconvert export`
structure   fewer MACs without training: tensorly, torch-pruning and others, beside
            `dsconvert rewrite`; see peer_structure.py
trained     the same networks at one share after three epochs of the same training
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import peer_structure
from common import arguments, machine, table, write_json
from peer_tools import KEPT, MODELS, dsconvert, environment, figure, kept, program, run, version_of

INT8 = {
    "tflite": {
        "ai-edge-quantizer": "ai_edge_quantizer_int8.py",
        "tensorflow": "tensorflow_int8.py",
    },
    "onnx": {"onnxruntime": "onnxruntime_int8.py", "nncf": "nncf_int8.py"},
}
CALIBRATED = 200
"""Training images to calibrate on; all test images are tested on."""


def main() -> None:
    networks = ",".join(MODELS)
    parts = ("int8", "onnx", "structure", "trained")
    shares = ",".join(f"{share:g}" for share in peer_structure.SHARES)
    chosen = arguments(__doc__, *parts, networks=networks, files="*", shares=shares)
    print(f"Machine: {machine()}")
    for part in chosen.only.split(","):
        if part == "onnx":
            onnx(chosen.models / "onnx", chosen.files)
            continue
        for name in chosen.networks.split(","):
            made_by = MODELS[name].made_by
            if made_by and not MODELS[name].place(chosen.models).exists():
                print(f"\n{name}: skipped, it is not there. Make it: {made_by}")
                continue
            if part == "structure":
                asked = [float(share) for share in chosen.shares.split(",")]
                peer_structure.show(name, chosen.models, chosen.data, asked)
            else:
                show = int8 if part == "int8" else peer_structure.trained
                show(name, chosen.models, chosen.data)


# int8 of the unmodified model.


def int8(model: str, models: Path, data: Path) -> None:
    """Print one table: each file's size, accuracy, closeness to the float file, and time."""
    rows = kept(f"int8-{model}")
    if rows is None:
        with tempfile.TemporaryDirectory() as folder:
            rows = list(_int8_rows(model, models, data, Path(folder)))
        write_json(KEPT / f"int8-{model}.json", rows)
    columns = ["file", "by", "KiB", "top-1 %", "agrees with float %", "SQNR dB", "p50 µs"]
    table(f"{model} in int8, calibrated on {CALIBRATED} images, one thread", columns, rows)


def _int8_rows(model: str, models: Path, data: Path, folder: Path) -> Iterator[list[Any]]:
    trained = MODELS[model]
    source, scale = trained.place(models), trained.scale
    arrays = np.load(trained.images(data))
    drawn = np.random.default_rng(0).choice(len(arrays["x_train"]), CALIBRATED, replace=False)
    calibration = arrays["x_train"][drawn].astype(np.float32) * np.float32(scale)
    np.save(folder / "images.npy", calibration)
    np.savez(
        folder / "data.npz",
        x_train=calibration,
        x_test=arrays["x_test"].astype(np.float32) * np.float32(scale),
        y_test=arrays["y_test"],
    )
    for form, peers in INT8.items():
        original = folder / f"float.{form}"
        dsconvert("export", source, "-o", original)
        files = {original: "float32"}
        for ours in ("int8", "int8-float-io") if form == "tflite" else ("int8",):
            made = folder / f"dsconvert-{ours}.{form}"
            start = original if form == "onnx" else source
            wish = ("--quantize", ours, "--calibration", folder / "data.npz")
            try:
                dsconvert("export", start, "-o", made, *wish)
                files[made] = f"dsconvert {ours}"
            except RuntimeError as error:
                yield [form, f"dsconvert {ours}", f"failed: {error}", "", "", "", ""]
        for peer, code in peers.items():
            made = folder / f"{peer}.{form}"
            begin = source if peer == "tensorflow" else original
            try:
                program(peer, code, begin, folder / "images.npy", made)
                files[made] = version_of(peer)
            except RuntimeError as error:
                yield [form, version_of(peer), f"failed: {error}", "", "", "", ""]
        yield from _judged(form, files, folder / "data.npz")


def _judged(form: str, files: dict[Path, str], data: Path) -> Iterator[list[Any]]:
    """Yield a row for each file, all of them evaluated and timed together."""
    original, *_ = files
    said = dsconvert("evaluate", *files, "--data", data, "--reference", original, "--json")
    timed = dsconvert("profile", *files, "--json", "--data", data, "--min-seconds", 2)
    for (path, told), found, measured in zip(
        files.items(), json.loads(said), json.loads(timed), strict=True
    ):
        fidelity = (found.get("fidelity") or [None])[0] or {}
        latency = measured["latency"] or {}
        yield [
            form,
            told,
            f"{path.stat().st_size / 1024:.1f}",
            f"{100 * found['top1']['value']:.2f}",
            figure(fidelity.get("top1_agreement"), 100),
            figure(fidelity.get("sqnr_db")),
            figure(latency.get("p50_ms"), 1000),
        ]


# .onnx files to .tflite files.


def onnx(folder: Path, names: str) -> None:
    """Print what becomes of each .onnx file that has such a name."""
    columns = ["file", "dsconvert", "error", "CPU s", version_of("onnx2tf"), "error", "CPU s"]
    rows = (_onnx_row(path, folder) for path in sorted(folder.rglob(f"{names}.onnx")))
    table("ONNX files as TFLite files, float32", columns, rows)


def _onnx_row(path: Path, folder: Path) -> list[Any]:
    name = str(path.relative_to(folder))
    row: list[Any] = [name]
    for tool, convert in {"dsconvert": _by_us, "onnx2tf": _by_onnx2tf}.items():
        cell = f"onnx-{name.replace('/', '-')}-{tool}"
        found = kept(cell)
        if found is None:
            with tempfile.TemporaryDirectory() as place:
                began = _spent()
                try:
                    made = convert(path, Path(place))
                    seconds = _spent() - began
                    found = ["written", largest_error(path, made), f"{seconds:.1f}"]
                except RuntimeError as error:
                    found = [f"refused: {error}", "", f"{_spent() - began:.1f}"]
            write_json(KEPT / f"{cell}.json", found)
        row += [
            re.sub(r"(?<!\S)/\S+/|(?<=refused: )Error: ", "", told) for told in found
        ]  # no folders of this machine
    return row


def _spent() -> float:
    """CPU seconds of the processes that have ended: other work on the machine adds none."""
    times = os.times()
    return times.children_user + times.children_system


def _by_us(path: Path, place: Path) -> Path:
    dsconvert("export", path, "-o", place / "out.tflite", "--dequantize")
    return place / "out.tflite"


def _by_onnx2tf(path: Path, place: Path) -> Path:
    python = environment("onnx2tf")
    given = place / "given"
    shutil.copytree(path.parent, given)  # it writes what it simplified over what it reads
    path = given / path.name
    run([python.with_name("onnx2tf"), "-i", path, "-o", place, "-n"])
    found = sorted(place.glob("*_float32.tflite"))
    if not found:
        raise RuntimeError("no float32 file was written")
    return found[0]


def largest_error(original: Path, made: Path) -> str:
    """Return the largest relative error of the outputs, as `dsconvert verify` finds it."""
    try:
        said = json.loads(dsconvert("verify", original, made, "--json", allowed=(0, 1)))
    except RuntimeError as error:
        return f"not comparable: {error}"
    errors = [output["relative_error"] for output in said["fidelity"]]
    return "–" if None in errors else f"{max(errors):.1e}"


if __name__ == "__main__":
    main()
