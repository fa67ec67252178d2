"""How a file is exported, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .refine import refine_settings

if TYPE_CHECKING:
    from dsconvert.base.progress import Progress
    from dsconvert.deploy.exporting.candidate_builder import Rounding
    from dsconvert.deploy.exporting.improve import Improvement
    from dsconvert.models.data.preprocess import Preprocessing

    from .data_for import DataSource
    from .model_files import ModelFile

ROUNDING = "--refine-int8"


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """How weights and activations are stored, and how the file is made better.

    Attributes:
        quantize: "none": float32; "float16"; "dynamic": int8 weights; "int8": int8 weights and
            activations; "int8-float-io": the same with float32 in and out; "int16x8".
        format: "tflite" or "onnx"; by default what the output ends in.
        samples: How many calibration images are drawn of a file.
        calibration_method: How int8 activations get their ranges: from the least to the greatest
            value ("minmax"), by the least squared error ("mse"), or, in .onnx files, by "entropy"
            or "percentile"; "auto": by minmax or mse, whichever gives the higher SQNR.
        allow_random: Whether int8 may be calibrated on random numbers; the file says that.
        allow_flex: Whether a .tflite file may keep TensorFlow's own operations.
        keep_io: Whether a float16 .onnx file takes and gives float32.
        labels: The names of the classes, or a text file with one per line, to keep in the file.
        verify: Whether to compare the outputs; the file says if not.
        equalize: Cross-layer equalization (arXiv:1906.04721) of an int8 file.
        correct_biases: Whether to try corrected biases in an int8 file.
        refine_int8: Choose on the calibration images which way each weight of an int8 .tflite file
            is rounded: seconds, "30s", or "400steps"; kept only where held-out outputs get closer.
        keep_float: How many of the layers that lose most in int8 stay in float; "auto": as many
            as ``min_sqnr_db`` or ``max_drop`` needs.
        min_sqnr_db: For "auto": the least SQNR of the outputs, in dB.
        max_drop: For "auto": what ``metric`` may lose on ``test_data`` at most, "1%" or 0.01.
        test_data: Images for ``max_drop``, with labels where the metric needs them.
        metric: Of ``max_drop``: as in `evaluate`.
        report: Whether to report what each layer of an int8 file loses.
        outputs: What becomes of int8 outputs that mix scales, as boxes and scores do: "keep" them;
            "split" them into what the last operators join; "float-tail": leave those operators in
            float; "auto": what costs least and is good enough.
        c_array: A header to write as well, ".h": the .tflite file as an aligned C array for
            TensorFlow Lite for Microcontrollers, with its operators, the size of the arena, and
            the scales of inputs and outputs.
        compile_for: An Ethos-U accelerator, e.g. "ethos-u55-128": Vela compiles the verified file
            for it, as NAME-ethos-u55-128.tflite. ``c_array`` then holds the compiled file.
        seed: Seeds every draw.

    Example:
        >>> import dsconvert as ds
        >>> ds.ExportOptions(quantize="int8", keep_float="auto", min_sqnr_db=30).samples
        500
    """

    quantize: Literal["none", "float16", "dynamic", "int8", "int8-float-io", "int16x8"] = "none"
    format: Literal["tflite", "onnx"] | None = None
    samples: int = 500
    calibration_method: Literal["auto", "minmax", "entropy", "percentile", "mse"] = "auto"
    allow_random: bool = False
    allow_flex: bool = False
    keep_io: bool = True
    labels: str | Path | Sequence[str] = ()
    verify: bool = True
    equalize: Literal["auto", "on", "off"] = "auto"
    correct_biases: bool = True
    refine_int8: float | str | None = None
    keep_float: int | Literal["auto"] = 0
    min_sqnr_db: float | None = None
    max_drop: str | float | None = None
    test_data: DataSource | None = None
    metric: str = "top1"
    report: bool = False
    outputs: Literal["keep", "split", "float-tail", "auto"] = "auto"
    c_array: str | Path | None = None
    compile_for: str | None = None
    seed: int = 0


def check(options: ExportOptions, *, measurable: bool, file_format: str = "tflite") -> None:
    """Refuse, before any work, options that contradict one another or the quantization.

    Args:
        options: The options.
        measurable: Whether there are images to measure on, and the file is verified.
        file_format: "tflite" or "onnx".

    Raises:
        InputError: With the option and what it needs.
    """
    from dsconvert.base.errors import InputError

    wish = options.refine_int8
    rounds = wish is not None and refine_settings(wish, 0, ROUNDING) is not None
    asked = {
        "--keep-float": options.keep_float != 0,
        "--report": options.report,
        ROUNDING: rounds,
        "--equalize on": options.equalize == "on",
        f"--outputs {options.outputs}": options.outputs in ("split", "float-tail"),
    }
    wrong = [option for option, used in asked.items() if used]
    if wrong and not options.quantize.startswith("int"):
        raise InputError(
            f"{wrong[0]} is for int8 files, and this one is {options.quantize}.",
            "Add --quantize int8.",
            code="int8-only",
        )
    if wrong and not measurable:
        raise InputError(
            f"{wrong[0]} needs images to measure on, and a file that is verified.",
            "Add --calibration DATA.npz, and leave --no-verify out.",
            code="needs-calibration",
        )
    if rounds and (file_format == "onnx" or options.quantize == "int16x8"):
        raise InputError(
            f"{ROUNDING} is for .tflite files with int8 weights and activations.",
            "Leave it out.",
            code="option-not-applicable",
        )
    goals = (options.min_sqnr_db is not None) + (options.max_drop is not None)
    if goals != (options.keep_float == "auto"):
        raise InputError(
            "--keep-float auto needs one goal, and goals are for it alone: --min-sqnr or "
            "--max-drop.",
            "Try: --keep-float auto --min-sqnr 30",
            code="needs-one-goal",
        )
    if options.max_drop is None and options.metric != "top1":
        raise InputError(
            f"--metric {options.metric} is what --max-drop is measured by.",
            "Try: --keep-float auto --max-drop 1% --test-data test.npz",
            code="metric-not-used",
        )
    if (options.max_drop is None) != (options.test_data is None):
        raise InputError(
            "--max-drop and --test-data go together.",
            "Try: --keep-float auto --max-drop 1% --test-data test.npz",
            code="needs-test-data",
        )


def as_improvement(
    options: ExportOptions,
    source: ModelFile,
    preprocessing: Preprocessing | None,
    progress: Progress,
) -> Improvement:
    """Turn the options into what is tried to make an int8 file better; see `check`."""
    from dsconvert.deploy.exporting.improve import Improvement

    from .accuracy_goal import judge, within

    enough = None
    if options.max_drop is not None and options.test_data is not None:
        judging = judge(source, options.metric, options.test_data, options.seed, preprocessing)
        enough = within(judging, options.max_drop)
    return Improvement(
        equalize=options.equalize,
        correct_biases=options.correct_biases,
        keep_float=options.keep_float,
        enough=enough,
        min_sqnr_db=options.min_sqnr_db,
        report=options.report,
        rounding=None if options.refine_int8 is None else _rounding(options, progress),
        outputs=options.outputs,
    )


def _rounding(options: ExportOptions, progress: Progress) -> Rounding | None:
    """Return what chooses how weights are rounded; None where it is given no time."""
    from msgspec.structs import replace

    from dsconvert.deploy.exporting.rounding import RATE, RoundingSearch

    settings = refine_settings(options.refine_int8, options.seed, ROUNDING)
    if settings is None:
        return None
    return RoundingSearch(replace(settings, learning_rate=RATE), progress)


def class_names(labels: str | Path | Sequence[str]) -> tuple[str, ...]:
    """Give the names of the classes, or read them from a file, one per line.

    Raises:
        InputError: If the file cannot be read as text, or holds no names.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.base.files import read_whole

    if not isinstance(labels, str | Path):
        return tuple(labels)
    path = Path(labels)
    try:
        lines = read_whole(path).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"the labels {path} cannot be read: {error}.",
            "Give a text file, one name per line.",
            code="labels-unreadable",
        ) from error
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if not names or "" in names:
        where = f"line {names.index('') + 1} is empty" if names else "it holds no names"
        raise InputError(
            f"the labels {path}: {where}.", "Give one name per line.", code="labels-incomplete"
        )
    return tuple(names)
