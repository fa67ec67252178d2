from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.deploy.runtimes.registry import RUNTIMES

from . import next_command, options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.evaluated import EvaluatedModel
    from dsconvert.workflows.results.shown import Results


@click.command(epilog=terms.explained("top-1, top-5", "interval", "agreement", "KL", "SQNR"))
@click.argument("files", nargs=-1, required=True, type=options.MODEL, metavar="FILE...")
@click.option("--data", metavar="DATA", required=True, help="Test images, with labels or without.")
@click.option("--reference", type=options.MODEL, help="Compare the outputs with this model's.")
@click.option(
    "--metric",
    multiple=True,
    metavar="METRIC",
    help=f"What to measure, with its 95 % interval; may be repeated: {options.METRICS}.",
)
@click.option("--samples", type=options.SAMPLES, help="Use only so many of them.")
@click.option(
    "--runtime",
    type=click.Choice(list(RUNTIMES)),
    help="Run .tflite and .onnx FILEs in this one; by default in each format's own.",
)
@options.dequantizing("the --reference, a quantized or half-precision .onnx file,")
@options.threads
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(next_command.after_evaluate)
def evaluate(
    files: tuple[Path, ...],
    data: str,
    reference: Path | None,
    metric: tuple[str, ...],
    samples: int | None,
    threads: int,
    runtime: str | None,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    dequantize: bool,
    **prepare: Any,
) -> Results[EvaluatedModel]:
    """Measure accuracy, and fidelity to a reference model.

    FILEs are Keras, TFLite or ONNX files; each is fed in its own layout.

    \b
      dsconvert evaluate model.h5 tuned.keras --data test.npz
      dsconvert evaluate int8.tflite --data test.npz --reference model.h5
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.workflows.evaluate import evaluate as run

    compared = None
    if reference is not None:
        compared = options.opened_with(reference, trust, custom_objects, dequantize)
    elif dequantize:
        from dsconvert.base.errors import InputError

        raise InputError(
            "--dequantize reads the --reference as float, and there is none.",
            "FILEs are measured as they are. To measure the float form of one, write it first: "
            "dsconvert export FILE -o float.onnx --dequantize",
            code="option-not-applicable",
        )
    return run(
        tuple(options.opened_with(file, trust, custom_objects) for file in files),
        data,
        reference=compared,
        metric=metric,
        samples=samples,
        preprocessing=options.as_preprocessing(**prepare),
        threads=threads,
        runtime=runtime,
        seed=seed,
        progress=terminal.progress,
    )
