from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.deploy.runtimes.registry import RUNTIMES

from . import next_command, options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.verified import Verification


@click.command(epilog=terms.explained("SQNR", "KL", "agreement"))
@click.argument("reference", type=options.MODEL, metavar="A")
@click.argument("model", type=options.MODEL, metavar="B")
@click.option("--data", metavar="DATA", help="Images; without them seeded random inputs.")
@click.option("--samples", type=options.SAMPLES, help="How many samples; by default 500 images.")
@click.option(
    "--min-sqnr",
    type=options.Finite(),
    metavar="DB",
    help="Least SQNR of every group of channels, in dB.",
)
@click.option(
    "--min-agreement",
    type=options.Finite(0, 1),
    metavar="SHARE",
    help="Least top-1 agreement of class outputs, 0.99 for 99 %.",
)
@click.option(
    "--max-kl", type=options.Finite(0), metavar="NATS", help="Largest KL of class distributions."
)
@click.option(
    "--runtime",
    type=click.Choice(list(RUNTIMES)),
    help="Run B in this one; by default in its format's own, as A.",
)
@options.dequantizing("A, a quantized or half-precision .onnx file,")
@options.threads
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(next_command.after_verify)
def verify(
    reference: Path,
    model: Path,
    data: str | None,
    samples: int | None,
    min_sqnr: float | None,
    min_agreement: float | None,
    max_kl: float | None,
    threads: int,
    runtime: str | None,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    dequantize: bool,
    **prepare: Any,
) -> Verification:
    """Compare B's outputs with A's on the same images.

    \b
      dsconvert verify model.h5 model.tflite --data images.npz

    A and B are Keras, TFLite or ONNX files; each is fed in its own layout. Channels of like scale
    are judged together: boxes apart from scores. The exit code is 1 if a group of channels misses
    a threshold, or if an output is not finite, dead, constant, inverted, exchanged, moved or names
    a class no more. Without thresholds, what B stores chooses one: an SQNR of 60 dB for float32,
    26 for float16, or where A computes in half precision, 10 for int8 (or the same class for 90 %
    of the samples).
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.deploy.verification.tolerances import Thresholds
    from dsconvert.workflows.verify import verify as run

    asked = Thresholds(min_sqnr_db=min_sqnr, min_agreement=min_agreement, max_kl_nats=max_kl)
    return run(
        options.opened_with(reference, trust, custom_objects, dequantize),
        options.opened_with(model, trust, custom_objects),
        data=data,
        samples=samples,
        thresholds=None if asked == Thresholds() else asked,
        preprocessing=options.as_preprocessing(**prepare),
        threads=threads,
        runtime=runtime,
        seed=seed,
        progress=terminal.progress,
    )
