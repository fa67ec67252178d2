"""What larger networks lose as int8 .tflite files, with and without training for int8."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from common import table
from large_run import Run
from steps import top1

TRAINED_FOR_INT8 = ("mobilenet-v2",)
"""Its activations of depthwise convolutions are known to lose in int8."""
PLAIN = {"verify": False}
"""Without images that are held out to verify nothing is tried on them: ranges are from least to
greatest value, nothing is equalized and no bias corrected."""


def int8(run: Run, trained: dict[str, Any]) -> None:
    """Tell what each network as it was trained loses as an int8 .tflite file, and regains."""
    epochs = run.amounts.epochs

    def rows() -> Iterator[list[Any]]:
        for name, original in trained.items():
            first = {"original": original["top1"]}
            plain = run.step(f"{name}-int8-plain", partial(as_int8, run, name, PLAIN), **first)
            yield [name, "plain", "", *_int8_cells(original["top1"], plain)]
            found = run.step(f"{name}-int8", partial(as_int8, run, name, {}), **first)
            yield [name, "as it comes", "", *_int8_cells(original["top1"], found)]
            if name in TRAINED_FOR_INT8 and epochs:
                work = partial(for_int8, run, name)
                tuned = run.step(f"{name}-for-int8", work, **first, epochs=epochs)
                yield [name, "trained for int8", epochs, *_int8_cells(original["top1"], tuned)]

    table(
        "As int8 .tflite files, the networks as they were trained",
        ["network", "export", "epochs", "float %", "its own float %", "int8 %", "lost to float"],
        rows(),
        folder=run.tables,
    )


def _int8_cells(original: float, found: Any) -> list[str]:
    lost = original - found["int8"]
    return [f"{value:.2f}" for value in (original, found["float"], found["int8"], lost)]


def as_int8(run: Run, name: str, options: Mapping[str, bool]) -> Any:
    """Export a trained network as it is."""
    import dsconvert as ds

    chosen = ds.ExportOptions(quantize="int8", **options)
    return _judged(run, run.load(name), chosen)


def for_int8(run: Run, name: str) -> Any:
    """Train a network by its own answers with the rounding of an int8 file, and export it."""
    import dsconvert as ds

    settings = ds.FinetuneSettings(epochs=run.amounts.epochs, quantize="int8")
    student: Any = run.load(name)
    tuned = ds.finetune(student, run.load(name), run.data.x, settings)
    tuned.model.save(run.shelf.model(f"{name}-for-int8"))
    return _judged(run, tuned.model, ds.ExportOptions(quantize="int8", **PLAIN))


def _judged(run: Run, model: Any, options: Any) -> dict[str, float]:
    """Return the top-1 of a network and of its int8 file, in percent."""
    import dsconvert as ds

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.tflite"
        ds.export(model, path, options, calibration=run.calibration)
        judged = ds.evaluate(path, ds.Data((run.data.x_test,), run.data.y_test))
    assert judged.top1 is not None
    return {"float": top1(model, run.data)["top1"], "int8": 100 * judged.top1.value}
