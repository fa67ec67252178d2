"""The options that make int8 files better, and what they become."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from dsconvert.base.messages import note
from dsconvert.workflows import data_for, model_files

from . import options

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.base.predictor import Predictor
    from dsconvert.deploy.exporting.layer_types import QuantizationReport
    from dsconvert.deploy.exporting.refine import Refinement


class _Count(click.ParamType[Any]):
    """How many layers, or "auto"."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse it."""
        if value == "auto" or isinstance(value, int):
            return value
        if not value.isdecimal():
            self.fail(f"{value!r} is neither a number nor auto.", param, ctx)
        return int(value)


choices = options.stack(
    click.option(
        "--equalize",
        "--gauge",
        "equalize",
        type=click.Choice(["auto", "on", "off"]),
        default="auto",
        show_default=True,
        help="Equal ranges for the channels inside each pair of an int8 file: where that helps.",
    ),
    click.option(
        "--bias-correction/--no-bias-correction",
        "correct_biases",
        default=True,
        help="Let biases of int8 files make up for shifted means, where that helps.",
    ),
    click.option(
        "--keep-float",
        type=_Count(),
        default=0,
        help="Leave the N layers that lose most in int8 in float; auto: as many as --min-sqnr or "
        "--max-drop needs.",
    ),
    click.option("--min-sqnr", type=float, metavar="DB", help="For --keep-float auto."),
    click.option(
        "--max-drop", metavar="SHARE", help="For --keep-float auto: 1% of top-1 on --test-data."
    ),
    click.option("--test-data", metavar="DATA", help="Labelled images for --max-drop."),
    click.option("--report", is_flag=True, help="Show what each layer of an int8 file loses."),
)


def check(quantize: str, measurable: bool, **chosen: Any) -> None:
    """Refuse, before any work, options that contradict one another or the quantization.

    Raises:
        InputError: With the option and what it needs.
    """
    from dsconvert.base.errors import InputError

    asked = {
        "--keep-float": chosen["keep_float"] != 0,
        "--report": chosen["report"],
        "--equalize on": chosen["equalize"] == "on",
    }
    wrong = [option for option, used in asked.items() if used]
    if wrong and not quantize.startswith("int"):
        raise InputError(
            f"{wrong[0]} is for int8 files, and this one is {quantize}.", "Add --quantize int8."
        )
    if wrong and not measurable:
        raise InputError(
            f"{wrong[0]} needs images to measure on, and a file that is verified.",
            "Add --calibration DATA.npz, and leave --no-verify out.",
        )
    goals = (chosen["min_sqnr"] is not None) + (chosen["max_drop"] is not None)
    if goals != (chosen["keep_float"] == "auto"):
        raise InputError(
            "--keep-float auto needs one goal, and goals are for it alone: --min-sqnr or "
            "--max-drop.",
            "Try: --keep-float auto --min-sqnr 30",
        )
    if (chosen["max_drop"] is None) != (chosen["test_data"] is None):
        raise InputError(
            "--max-drop and --test-data go together.",
            "Try: --keep-float auto --max-drop 1% --test-data test.npz",
        )


def as_refinement(
    source: model_files.ModelFile,
    *,
    equalize: Any,
    correct_biases: bool,
    keep_float: Any,
    min_sqnr: float | None,
    max_drop: str | None,
    test_data: str | None,
    report: bool,
    seed: int,
    prepared: Any,
) -> Refinement:
    """The options as one value; see `check`."""
    from dsconvert.deploy.exporting.refine import Refinement

    enough = None
    if max_drop is not None and test_data is not None:
        enough = _within(source, _share(max_drop), test_data, seed, prepared)
    return Refinement(
        equalize=equalize,
        correct_biases=correct_biases,
        keep_float=keep_float,
        enough=enough,
        min_sqnr_db=min_sqnr,
        report=report,
    )


def _share(text: str) -> float:
    """1% as 0.01.

    Raises:
        InputError: If it is no share.
    """
    from dsconvert.base.errors import InputError

    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise InputError(f"{text!r} is no drop of accuracy.", "Write it as 1% (a point of top-1).")
    return share


def _within(
    source: model_files.ModelFile, allowed: float, test_data: str, seed: int, prepared: Any
) -> Callable[[Predictor], bool]:
    """Whether a file loses at most so much top-1 against the model."""
    from dsconvert.base.errors import InputError
    from dsconvert.models.evaluation.evaluate import evaluate

    data = data_for.data_for(
        source, test_data, split="test", labels=True, seed=seed, preprocessing=prepared
    )

    def top1(model: Any) -> float:
        found = evaluate(model, data).top1
        if found is None:
            raise InputError(
                f"{test_data} gives no accuracy: --max-drop needs class labels and a model with "
                "class scores.",
                "Use --min-sqnr.",
            )
        return found.value

    model = source.model
    if source.kind == "onnx":
        from dsconvert.deploy.runtimes.registry import open_runtime

        model = open_runtime(source.path)
    original = top1(model)

    def within(file: Predictor) -> bool:
        reached = top1(file)
        note(f"top-1 {reached:.2%}, the model's is {original:.2%}")
        return original - reached <= allowed + 1e-9

    return within


def show_layers(console: Console, report: QuantizationReport | None) -> None:
    """One line per layer, the five worst marked."""
    if report is None:
        return
    from rich.table import Table

    worst = {layer.name for layer in report.worst(5)}
    table = Table("layer", "operator", "SQNR", "", box=None, pad_edge=False)
    for layer in report.layers:
        told = "equal" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f} dB"
        told = told if layer.finite else "not finite"
        table.add_row(layer.name, layer.op, told, "◂ worst five" if layer.name in worst else "")
    console.print(table)
    console.print(
        f"each layer's output in int8 against float32, on {report.samples} samples; what the "
        "layers before it lost is in it"
    )
