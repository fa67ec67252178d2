"""What ranges and corrected biases do to int8 files, and which measure on few images tells it.

800 images give the ranges, 200 others choose, and test images judge: the output error (KL in nats)
between the network and its file, and how often both name the same class.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import RESNET8, VGG6, arguments, images, machine, table

RANGES, CHOOSING, JUDGING = 800, 200, 3000
NETWORKS = {
    "resnet8": (RESNET8, None),
    "resnet8-rewritten": (RESNET8, "0.34x"),
    "vgg6": (VGG6, None),
}
"""The file, and the share of its MACs at which it is rewritten without refinement."""


def main() -> None:
    chosen = arguments(__doc__, *NETWORKS, seeds="0,1", formats="tflite,onnx")
    print(f"Machine: {machine()}")
    columns = ["network", "format", "seed", "ranges", "biases", "output error", "same class %"]
    table(
        f"int8 files judged by {JUDGING:,} images; SQNR of {CHOOSING} others, in dB",
        [*columns, "of outputs", "of logits"],
        (
            found
            for name in chosen.only.split(",")
            for seed in map(int, chosen.seeds.split(","))
            for format in chosen.formats.split(",")
            for found in rows(name, seed, format, chosen.models, chosen.data)
        ),
    )


def rows(name: str, seed: int, format: str, models: Path, data: Path) -> Iterator[list[Any]]:
    from dsconvert.deploy.exporting.held_out import HeldOut
    from dsconvert.deploy.exporting.keras_source import read_source

    taken = images(data, RANGES + CHOOSING, seed)
    source = read_source(_network(name, taken, seed, models), None)
    calibration, apart = (taken[:RANGES],), (taken[RANGES:],)
    with np.load(data) as stored:
        test = stored["x_test"][:JUDGING].astype(np.float32)
    (expected,) = source.predict([test])
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        builder = _builder(source, calibration, format, place)
        found = builder.equalized()
        builder = builder if found is None else found[0]
        full = place / f"full.{format}"
        builder.write_float(full)
        held_out = HeldOut(apart, source.predict(apart)).with_logits(full)
        for method in ("minmax", "mse", *(["percentile"] if format == "onnx" else [])):
            path, corrected = place / f"{method}.{format}", place / f"{method}-corrected.{format}"
            replace(builder, method=method).write(path)
            builder.corrected(full, path, corrected)
            for biases, file in (("as they are", path), ("corrected", corrected)):
                figures = _judged(expected, file, test)
                measures = [f"{held_out.sqnr(file):.1f}", f"{held_out.score(file):.1f}"]
                yield [name, format, seed, method, biases, *figures, *measures]


def _network(name: str, taken: Any, seed: int, models: Path) -> Any:
    import dsconvert as ds

    file, budget = NETWORKS[name]
    opened = ds.load(models / file)
    if budget is None:
        return opened.model
    options = ds.RewriteOptions(macs=budget, seed=seed)
    return ds.rewrite(opened, calibration=taken, options=options, refine=0).model


def _builder(source: Any, calibration: tuple[Any, ...], format: str, folder: Path) -> Any:
    from dsconvert.deploy.exporting import onnx_export
    from dsconvert.deploy.exporting.onnx_candidates import OnnxBuilder
    from dsconvert.deploy.exporting.onnx_prepare import prepared
    from dsconvert.deploy.exporting.onnx_source import read_onnx
    from dsconvert.deploy.exporting.tflite_candidates import TfliteBuilder

    if format == "tflite":
        return TfliteBuilder(source, calibration)
    path = folder / "float32.onnx"
    onnx_export.convert(source, path)
    ready, _ = prepared(read_onnx(path), folder, [x[:32] for x in calibration])
    return OnnxBuilder.of(ready, calibration, folder, "minmax")


def _judged(expected: Any, path: Path, test: Any) -> list[str]:
    from dsconvert.base.fidelity import output_error
    from dsconvert.deploy.runtimes.registry import open_runtime

    (found,) = open_runtime(path).predict([test])
    same = np.mean(found.argmax(axis=1) == expected.argmax(axis=1))
    return [f"{output_error([expected], [found]):.4f}", f"{100 * same:.2f}"]


if __name__ == "__main__":
    main()
