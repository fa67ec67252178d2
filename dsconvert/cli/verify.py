from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from dsconvert.base.messages import note
from dsconvert.workflows import model_files

from . import formatting, options, terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from dsconvert.base.fidelity import OutputFidelity
    from dsconvert.base.predictor import Predictor, Shape
    from dsconvert.deploy.runtimes.precision import Precision
    from dsconvert.deploy.runtimes.tensor_info import TensorInfo
    from dsconvert.deploy.verification.tolerances import Thresholds
    from dsconvert.models.data.datasets import Data
    from dsconvert.workflows.results import Verification

_FREE_SIZE = 64
"""Height, width and other free sizes of random inputs."""


@dataclass(frozen=True)
class _Opened:
    predictor: Predictor
    inputs: tuple[TensorInfo, ...]
    output_shapes: tuple[Shape, ...]
    precision: Precision


def show(console: Console, result: Verification) -> None:
    """One line per output, and what is wrong."""
    from rich.table import Table

    table = Table("output", "shape", "finite", "SQNR", "relative error", box=None, pad_edge=False)
    for title in ("max error", "KL", "top-1 agreement", "classes"):
        table.add_column(title)
    for output, shape in zip(result.fidelity, result.shapes, strict=True):
        classes = output.reference_classes
        table.add_row(
            output.name,
            "×".join("n" if size is None else str(size) for size in shape),
            "yes" if output.finite else "no",
            _sqnr(output),
            formatting.short(output.relative_error),
            formatting.short(output.max_abs_error),
            "–" if output.kl_nats is None else f"{output.kl_nats:.3g} nats",
            formatting.percent(output.top1_agreement),
            "–" if classes is None else f"{classes} of {shape[-1]}",
        )
    console.print(f"{result.model} ({result.precision}) against {result.reference}")
    console.print(table)
    console.print(f"on {result.samples} samples of {result.source}")
    for remark in result.remarks:
        console.print(f"note: {remark}")
    for failure in result.failures:
        console.print(f"failed: {failure}")
    console.print("passed" if result.passed else "NOT passed")


def _sqnr(output: Any) -> str:
    if output.sqnr_db is not None:
        return f"{output.sqnr_db:.1f} dB"
    return "equal" if output.relative_error == 0 else "–"


@click.command()
@click.argument("reference", type=options.MODEL, metavar="A")
@click.argument("model", type=options.MODEL, metavar="B")
@click.option("--data", metavar="DATA", help="Images; without them seeded random inputs.")
@click.option("--samples", type=click.IntRange(1), help="How many samples; by default 500 images.")
@click.option("--min-sqnr", type=float, metavar="DB", help="Least SQNR of every output, in dB.")
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Least top-1 agreement of class outputs, 0.99 for 99 %.",
)
@click.option(
    "--max-kl", type=click.FloatRange(0), metavar="NATS", help="Largest KL of class distributions."
)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(show)
def verify(
    reference: Path,
    model: Path,
    data: str | None,
    samples: int | None,
    min_sqnr: float | None,
    min_agreement: float | None,
    max_kl: float | None,
    threads: int,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    **prepare: Any,
) -> Verification:
    """Compare B's outputs with A's on the same images, and fail if they differ too much.

    A and B are Keras, TFLite or ONNX files; each is fed in its own layout. The exit code is 1 if an
    output is not finite or misses a threshold. Without thresholds, what B stores chooses one:
    an SQNR of 60 dB for float32, 26 for float16, 10 for int8 (or the same class for 90 % of the
    samples).
    """
    from dsconvert.deploy.verification.tolerances import DEFAULTS, Thresholds, failures, remarks
    from dsconvert.models.data.checks import check_same_inputs, layout_notes
    from dsconvert.models.evaluation.compare import compare
    from dsconvert.workflows.results import Verification

    prepared = options.as_preprocessing(**prepare)
    a, b = (_open(path, threads, trust, custom_objects) for path in (reference, model))
    check_same_inputs(
        {str(reference): a.predictor.input_shapes, str(model): b.predictor.input_shapes}
    )
    if data is None:
        images = _random([b, a], samples, seed)
    else:
        images = _load(data, [b, a], samples or 500, seed, prepared)
        for one in (a, b):
            for text in layout_notes(images.laid_out(one.predictor.input_shapes)):
                note(text)
    fidelity = compare(
        b.predictor, a.predictor, images, name=model.name, progress=terminal.progress
    )
    limits = DEFAULTS[b.precision]
    if (min_sqnr, min_agreement, max_kl) != (None, None, None):
        limits = Thresholds(min_sqnr_db=min_sqnr, min_agreement=min_agreement, max_kl_nats=max_kl)
    _check_applicable(fidelity, limits)
    found = failures(fidelity, limits)
    return Verification(
        reference=str(reference),
        model=str(model),
        precision=b.precision,
        source=images.source,
        samples=len(images),
        preprocessing=images.preprocessing,
        thresholds=limits,
        shapes=a.output_shapes,
        fidelity=fidelity,
        remarks=remarks(fidelity),
        failures=found,
        passed=not found,
    )


def _open(path: Path, threads: int, trust: bool, custom_objects: str | None) -> _Opened:
    from dsconvert.deploy.runtimes.tensor_info import TensorInfo

    if model_files.kind_of(path) != "keras":
        from dsconvert.deploy.runtimes.precision import precision_of
        from dsconvert.deploy.runtimes.registry import open_runtime

        runtime = open_runtime(path, threads=threads)
        shapes = tuple(info.shape for info in runtime.outputs)
        return _Opened(runtime, runtime.inputs, shapes, precision_of(path))
    from dsconvert.models.evaluation.keras_predictor import KerasPredictor

    model = model_files.load_keras(path, trust, custom_objects).model
    predictor = KerasPredictor(model)
    infos = tuple(
        TensorInfo(name=name, shape=shape, dtype=str(tensor.dtype))
        for name, shape, tensor in zip(
            predictor.input_names, predictor.input_shapes, model.inputs, strict=True
        )
    )
    half = any(str(layer.compute_dtype) in ("float16", "bfloat16") for layer in model.layers)
    shapes = tuple(tuple(tensor.shape) for tensor in model.outputs)
    return _Opened(predictor, infos, shapes, "float16" if half else "float32")


def _random(opened: list[_Opened], samples: int | None, seed: int) -> Data:
    """Seeded random inputs in the layout, and the range, of the model that leaves least open."""
    from dsconvert.deploy.runtimes.samples import random_count, random_inputs
    from dsconvert.models.data.datasets import Data

    # What stores its inputs in integers has a range; the fewer free sizes, the better.
    first = min(
        opened,
        key=lambda one: (
            all(info.scale is None for info in one.inputs),
            str(one.predictor.input_shapes).count("None"),
        ),
    )
    infos = [
        msgspec.structs.replace(info, shape=(None, *info.shape[1:])) if info.shape else info
        for info in first.inputs
    ]
    count = samples or random_count(infos, _FREE_SIZE)
    arrays = random_inputs(infos, count, seed, _FREE_SIZE)
    note("compared on random inputs, which need not be what the model is made for: --data")
    return Data(arrays, names=first.predictor.input_names, source=f"random inputs (seed {seed})")


def _load(source: str, opened: list[_Opened], samples: int, seed: int, prepared: Any) -> Data:
    """The images in the layout of the model that leaves the fewest sizes open."""
    from dsconvert.models.data.datasets import load_data
    from dsconvert.models.evaluation.plausibility import suspicions

    first = min(opened, key=lambda one: str(one.predictor.input_shapes).count("None")).predictor
    images = load_data(
        source,
        split="test",
        samples=samples,
        seed=seed,
        preprocessing=prepared,
        input_names=first.input_names,
        input_shapes=first.input_shapes,
    )
    for suspicion in suspicions(images):
        note(suspicion)
    return images


def _check_applicable(outputs: Sequence[OutputFidelity], limits: Thresholds) -> None:
    """Refuse a threshold that says nothing about any output, rather than pass it.

    Raises:
        InputError: With what it would need.
    """
    from dsconvert.base.errors import InputError

    if not all(output.finite for output in outputs):
        return
    names = ", ".join(output.name for output in outputs)
    for asked, figures_, option, needs in (
        (limits.min_agreement, [o.top1_agreement for o in outputs], "--min-agreement", "classes"),
        (limits.max_kl_nats, [o.kl_nats for o in outputs], "--max-kl", "class distributions"),
    ):
        if asked is not None and all(figure is None for figure in figures_):
            raise InputError(
                f"{option} cannot be checked: none of the outputs ({names}) holds {needs}.",
                "Use --min-sqnr.",
            )
