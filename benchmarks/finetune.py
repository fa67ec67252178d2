"""Fine-tuning without labels: accuracy by epoch, images per second, and what int8 regains."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import RESNET8, VGG6, accuracy, arguments, images, machine, table

BATCH = 32
ROUNDS = 15
STEPS = 4
"""Steps of each in one round: they take turns, since other work comes and goes."""


def main() -> None:
    parts = ("epochs", "throughput", "folder", "int8")
    chosen = arguments(__doc__, *parts, students=",".join(STUDENTS))
    print(f"Machine: {machine()}")
    if "epochs" in chosen.only:
        table(
            "Top-1 by epoch, 20,000 images without labels",
            [
                "model",
                "structure",
                "refined",
                "M MACs",
                "original %",
                "start %",
                "by epoch %",
                "CPU s",
            ],
            by_epoch(chosen.models, chosen.data, chosen.students.split(",")),
        )
    if "throughput" in chosen.only:
        table(
            "Images per second, each in turn",
            ["student", "one Keras step and the teacher's answers", "finetune", "share"],
            throughput(chosen.models, chosen.data),
        )
    if "folder" in chosen.only:
        table(
            "Images per second of 20,000, from memory and from JPEG files, each in turn",
            ["student", "memory", "files", "share"],
            from_folder(chosen.models, chosen.data),
        )
    if "int8" in chosen.only:
        table(
            "Rewritten and trained without labels: top-1 in float and as int8 .tflite files",
            ["student", "training", "epochs", "float", "plain", "best", "plain lost", "best lost"],
            int8(chosen.models, chosen.data, chosen.students.split(",")),
        )


class Student(NamedTuple):
    """A network and how it is rewritten.

    Attributes:
        file: The trained network, below the folder of models.
        structure: "plan", "pairs" or "auto".
        macs: A budget; without one every layer becomes one pair.
        epochs: That it is then trained.
        refine: Steps of refinement before that.
    """

    file: str
    structure: str
    macs: str | None
    epochs: int
    refine: str = "0"


STUDENTS = {
    "resnet8-plan": Student(RESNET8, "plan", "6.25M", 3),
    "resnet8-refined": Student(RESNET8, "plan", "6.25M", 3, "1000steps"),
    "resnet8-small": Student(RESNET8, "plan", "4.25M", 10, "1000steps"),
    "vgg6-pairs": Student(VGG6, "pairs", None, 8),
    "vgg6-auto": Student(VGG6, "auto", "19.84M", 10),
    "vgg6-refined": Student(VGG6, "auto", "19.84M", 10, "500steps"),
}


def by_epoch(models: Path, data: Path, students: list[str]) -> Iterator[list[Any]]:
    """Yield a row per student: fitted on 1,000 images, then fine-tuned."""
    import dsconvert as ds

    for one in map(STUDENTS.__getitem__, students):
        teacher: Any = ds.load(models / one.file).model
        made = _rewritten(one, teacher, data)
        yield [
            Path(one.file).name,
            one.structure,
            one.refine,
            f"{(made.report.macs_after or 0) / 1e6:.2f}",
            f"{accuracy(teacher, data):.2f}",
            f"{accuracy(made.model, data):.2f}",
            *_tuned(made.model, teacher, data, one.epochs),
        ]


def _rewritten(one: Student, teacher: Any, data: Path) -> Any:
    """Return the result of a rewrite that saw 1,000 images."""
    import dsconvert as ds

    x = images(data)
    plan = options = None
    if one.structure == "plan":
        plan = ds.plan(teacher, calibration=x, goals=ds.Goals(macs=one.macs))
    elif one.macs is None:
        options = ds.RewriteOptions(structure="pairs", pairs=1)
    else:
        options = ds.RewriteOptions(structure=one.structure, macs=one.macs)
    return ds.rewrite(teacher, calibration=x, plan=plan, options=options, refine=one.refine)


def _tuned(student: Any, teacher: Any, data: Path, epochs: int) -> list[str]:
    """Fine-tune a student: its accuracy by epoch, and the seconds of CPU without those for that."""
    import keras

    import dsconvert as ds

    found: list[str] = []
    judging = 0.0

    class Judge(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            nonlocal judging
            started = time.process_time()
            found.append(f"{accuracy(self.model, data):.2f}")
            print(f"epoch {epoch + 1}: {found[-1]}", file=sys.stderr, flush=True)
            judging += time.process_time() - started

    started = time.process_time()
    settings = ds.FinetuneSettings(epochs=epochs)
    ds.finetune(student, teacher, images(data, 20_000), settings, callbacks=[Judge()])
    return [" ".join(found), f"{time.process_time() - started - judging:.0f}"]


def throughput(models: Path, data: Path) -> Iterator[list[Any]]:
    """Yield a row per model: it learns from itself, every batch flipped anew."""
    from dsconvert.models.loading import load

    x = images(data, 2000)
    for name in (RESNET8, VGG6):
        teacher: Any = load(models / name).model
        rates = _in_turn({"bare": _bare_steps(teacher, x), "ours": _our_steps(teacher, x)})
        share = f"{rates['ours'] / rates['bare']:.0%}"
        yield [Path(name).name, f"{rates['bare']:.0f}", f"{rates['ours']:.0f}", share]


def from_folder(models: Path, data: Path, count: int = 20_000) -> Iterator[list[Any]]:
    """Yield a row per model: the same training from memory and from a folder of JPEG files."""
    from PIL import Image

    from dsconvert.models.data.datasets import load_data
    from dsconvert.models.loading import load

    x = images(data, count)
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(x):
            path = Path(folder) / f"{number:05}.jpg"
            Image.fromarray(image.astype(np.uint8)).save(path, quality=95)
        for name in (RESNET8, VGG6):
            teacher: Any = load(models / name).model
            files = load_data(Path(folder), split="train", memory=1).inputs[0]
            rates = _in_turn(
                {"memory": _our_steps(teacher, x), "files": _our_steps(teacher, files)}
            )
            share = f"{rates['files'] / rates['memory']:.0%}"
            yield [Path(name).name, f"{rates['memory']:.0f}", f"{rates['files']:.0f}", share]


def _in_turn(steps: dict[str, Iterator[None]]) -> dict[str, float]:
    """Return the images per second of each; they take turns, since other work comes and goes."""
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for one in steps.values():
        _timed(one, 2)  # traced
    for _ in range(ROUNDS):
        for kind, one in steps.items():
            seconds[kind].append(_timed(one, STEPS))
    return {kind: STEPS * BATCH / statistics.median(t) for kind, t in seconds.items()}


def _our_steps(teacher: Any, x: Any) -> Iterator[None]:
    """Take the steps of `finetune`: the dense network learns from itself."""
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.training.distill import objectives
    from dsconvert.models.training.settings import FinetuneSettings
    from dsconvert.models.training.training import Trainer
    from dsconvert.workflows.refine import composed_like

    settings = FinetuneSettings(batch_size=BATCH)
    goals = objectives(teacher, (teacher.predict(x[:64], verbose=0),), 4.0, 0.0)
    composed = composed_like(teacher, teacher)
    trainer = Trainer(teacher, teacher, Data((x,)), goals, settings, _silent(), composed, composed)
    return trainer.steps(1)


def _bare_steps(teacher: Any, x: np.ndarray[Any, Any]) -> Iterator[None]:
    """Take Keras' own steps on the teacher's answers, with nothing around them."""
    import keras

    student = keras.models.clone_model(teacher)
    student.set_weights(teacher.get_weights())
    student.compile("adam", "kl_divergence", jit_compile=False)
    while True:
        for start in range(0, len(x) - BATCH, BATCH):
            batch = x[start : start + BATCH]
            student.train_on_batch(batch, teacher.predict_on_batch(batch))
            yield


def _timed(steps: Iterator[Any], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        next(steps)
    return time.perf_counter() - started


def _silent() -> Callable[..., Any]:
    from dsconvert.base.progress import silent

    return silent


def int8(
    models: Path, data: Path, students: list[str], *, count: int = 20_000, epochs: int = 3
) -> Iterator[list[Any]]:
    """Yield each student as it comes, trained in float, and then trained for int8."""
    import dsconvert as ds

    train = images(data, count)
    for name in students:
        one = STUDENTS[name]
        teacher: Any = ds.load(models / one.file).model
        student: Any = _rewritten(one, teacher, data).model
        before = _in_int8(student, data, train[:1000])
        yield [name, "none", "", *_cells(before)]
        ds.finetune(student, teacher, train, ds.FinetuneSettings(epochs=epochs))
        in_float = _in_int8(student, data, train[:1000])
        yield [name, "in float", epochs, *_cells(in_float)]
        settings = ds.FinetuneSettings(epochs=epochs, quantize="int8")
        ds.finetune(student, teacher, train, settings)
        yield [name, "for int8", epochs, *_cells(_in_int8(student, data, train[:1000]), in_float)]


class InInt8(NamedTuple):
    """Top-1 of a network, in percent.

    Attributes:
        in_float: Of itself.
        plain: Of its int8 file without what `export` tries to make it better.
        best: Of the int8 file that `export` writes by itself.
    """

    in_float: float
    plain: float
    best: float


def _in_int8(model: Any, data: Path, ranges: np.ndarray[Any, Any]) -> InInt8:
    import dsconvert as ds

    best = ds.ExportOptions(quantize="int8")
    # What is tried on held-out images is not tried where nothing is verified.
    plain = replace(best, verify=False)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "plain.tflite", Path(folder) / "best.tflite"
        ds.export(model, files[0], plain, calibration=ranges)
        ds.export(model, files[1], best, calibration=ranges)
        return InInt8(*(accuracy(judged, data) for judged in (model, *files)))


def _cells(found: InInt8, trained: InInt8 | None = None) -> list[str]:
    """Return accuracies, and what the int8 files lose to the network as it was trained in float."""
    to = (trained or found).in_float
    return [f"{value:.2f}" for value in (*found, to - found.plain, to - found.best)]


if __name__ == "__main__":
    main()
