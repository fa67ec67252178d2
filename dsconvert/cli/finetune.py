from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import next_command, options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.tuned import TunedModel

LABEL_WEIGHT = 0.3
"""The share of the true class in the targets with --labels."""


@click.command(epilog=terms.explained("epoch 0", "output error", "agreement", "SQNR"))
@click.argument("model", type=options.MODEL)
@click.option("--teacher", type=options.MODEL, required=True, help="The model it was made from.")
@click.option("--data", metavar="DATA", required=True, help="Training images; no labels needed.")
@options.output("_tuned.keras or _tuned.onnx, as MODEL is", "a .keras, .h5 or .onnx file")
@click.option("--samples", type=options.SAMPLES, help="Use only so many of them.")
@click.option("--labels", is_flag=True, help="Mix the data's labels into the targets.")
@click.option(
    "--logits", is_flag=True, help="The output is class scores before a softmax: match them so."
)
@click.option(
    "--epochs",
    type=options.Count(1, 10**6),
    default=3,
    show_default=True,
    help="Passes over the images.",
)
@click.option(
    "--batch-size",
    type=options.Count(1, 10**6),
    default=32,
    show_default=True,
    help="Images per step.",
)
@click.option(
    "--learning-rate",
    type=options.Finite(0, 1e3),
    help="The highest rate, a share of each tensor's size. By default the farther the outputs are "
    "from the teacher's, and the more steps there are, the higher.",
)
@click.option(
    "--temperature",
    type=options.Finite(1e-6, 1e6),
    default=4.0,
    show_default=True,
    help="Class scores are divided by it before they are matched.",
)
@click.option(
    "--augment",
    multiple=True,
    type=click.Choice(["flip", "crop", "light", "mix", "none"]),
    help="How images are varied; may be repeated. By default what suits the data.",
)
@click.option(
    "--quantize",
    type=click.Choice(["none", "int8"]),
    default="none",
    show_default=True,
    help="Train with the rounding of an int8 .tflite file.",
)
@click.option(
    "--mixed-precision/--no-mixed-precision",
    default=None,
    help="Compute in bfloat16; by default where this processor gains by it.",
)
@click.option(
    "--save-minutes",
    type=options.Finite(0, 1e6),
    default=5.0,
    show_default=True,
    help="How often the state is kept beside the output, for --resume.",
)
@click.option(
    "--log-dir",
    type=click.Path(file_okay=False),
    help="Write each epoch's figures there for TensorBoard.",
)
@click.option(
    "--strategy",
    type=click.Choice(["auto", "one", "mirrored", "multiworker"]),
    default="auto",
    show_default=True,
    help="One device, all GPUs of this machine, or the machines of $TF_CONFIG.",
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@options.dequantize
@options.overwrite
@options.preprocessing
@options.loading
@options.common
@terminal.speaks(next_command.after_finetune)
def finetune(
    model: Path,
    teacher: Path,
    data: str,
    output: Path | None,
    samples: int | None,
    labels: bool,
    augment: tuple[Any, ...],
    dequantize: bool,
    overwrite: bool,
    trust: bool,
    custom_objects: str | None,
    scale: str | None,
    mean: str | None,
    std: str | None,
    channels_first: bool,
    **training: Any,
) -> TunedModel:
    """Train the rewritten MODEL to answer as the original does.

    The epoch whose outputs are closest to those of --teacher is kept. Labels are not needed.

    Each of the two is a Keras or an .onnx file. Of an ONNX MODEL the tuned weights go back into its
    own graph, unless -o names a Keras file.

    Ctrl-C writes the best up to then, with exit code 130; --resume --overwrite goes on.

    \b
      dsconvert finetune small.keras --teacher model.h5 --data train.npz
    """  # noqa: D301 - click reads \b as the control character
    from dsconvert.models.training.settings import FinetuneSettings
    from dsconvert.workflows.finetune import finetune as run

    return run(
        options.opened_with(model, trust, custom_objects, dequantize),
        options.opened_with(teacher, trust, custom_objects, dequantize),
        data,
        FinetuneSettings(
            label_weight=LABEL_WEIGHT if labels else 0.0,
            augment=tuple(kind for kind in augment if kind != "none") if augment else None,
            **training,
        ),
        preprocessing=options.as_preprocessing(scale, mean, std, channels_first),
        samples=samples,
        output=output or options.beside(model, "_tuned.keras", "_tuned.onnx"),
        overwrite=overwrite,
        progress=terminal.progress,
    )
