"""Refine a rewritten model: distillation on the calibration images, without labels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from dsconvert.base.messages import note
from dsconvert.base.number_words import real_number, whole_number

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from dsconvert.base.predictor import Array
    from dsconvert.base.progress import Progress
    from dsconvert.converter.backends.keras.composed import ComposedModel
    from dsconvert.converter.core.report import RewriteReport
    from dsconvert.models.training.refine import Refinement, RefineSettings

    from .model_files import Model, ModelFile

DEFAULT = "60s"
"""How long Keras models with calibration images are refined unless asked otherwise."""
_MOST = 10_000_000
"""Of seconds, or of steps."""
_WISH = re.compile(r"(?P<count>.*?) ?(?P<unit>s|steps?)?")


def refine_settings(
    wish: float | str | None, seed: int, option: str = "--refine"
) -> RefineSettings | None:
    """Read how long to refine.

    Args:
        wish: Seconds, "60s", or, to get the same weights each time, "400steps"; None for the
            default; 0 for not at all.
        seed: Seeds every draw.
        option: What the command line calls it.

    Raises:
        InputError: If it is none of these.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.models.training.refine import RefineSettings

    read = _WISH.fullmatch(str(DEFAULT if wish is None else wish))
    steps = read is not None and (read["unit"] or "").startswith("step")
    count = None if read is None else (whole_number if steps else real_number)(read["count"])
    if count is None or count < 0:
        raise InputError(
            f"{wish!r} is no time to refine for.",
            f"Give seconds, as {option} 60, or a number of steps, as {option} 400steps.",
            code="not-a-time",
        )
    if count > _MOST:
        raise InputError(
            f"{wish} is too long to refine for: at most {_MOST:,} seconds or steps.",
            f"Give seconds, as {option} 60, or a number of steps, as {option} 400steps.",
            code="not-a-time",
        )
    if count == 0:
        return None
    if steps:
        return RefineSettings(steps=int(count), seed=seed)
    return RefineSettings(seconds=float(count), seed=seed)


def check_refinement(wish: float | str | None, kind: str, calibrated: bool) -> None:
    """Refuse, before anything is fitted, a refinement that is asked for and cannot be.

    Raises:
        InputError: If the wish cannot be read, or images are missing.
        MissingExtra: If Keras is missing.
    """
    from dsconvert.base.errors import InputError, require

    if wish is None or refine_settings(wish, 0) is None:
        return
    if not calibrated:
        raise InputError(
            "a refinement trains on the calibration images, and none are given.",
            "Add --calibration DATA, or leave --refine out.",
            code="no-images-to-refine-on",
        )
    if kind == "onnx":
        require("tensorflow", "all", "to refine an ONNX model, which is imported into Keras")


def refined(
    model: Model,
    original: ModelFile,
    report: RewriteReport,
    inputs: Sequence[Array] | None,
    *,
    wish: float | str | None = None,
    seed: int = 0,
    progress: Progress,
) -> tuple[Model, Refinement | None]:
    """Refine a rewritten model where that is wanted, and can be.

    By default Keras models are refined whose blocks were fitted to calibration images.

    Args:
        model: What `converter.rewrite.rewrite` returned; a Keras model gets the new weights itself.
        original: What it was made from.
        report: What the rewrite did.
        inputs: The calibration images, (n, ...) for each input.
        wish: See `refine_settings`.
        seed: That of the rewrite: the same images are kept out as were kept out of the fit.
        progress: Told of each step.

    Returns:
        The model, and what the refinement came to; None where none was done.
    """
    settings = refine_settings(wish, seed)
    if settings is None or inputs is None or not report.rewritten or report.method != "data":
        return model, None
    if wish is None and original.kind == "onnx":
        return model, None
    reason = _hindrance(model, original, report)
    if reason:
        note(f"not refined: {reason}")
        return model, None
    if wish is None:
        note(f"refining on the calibration images for {DEFAULT}; --refine 0 leaves it out")
    if original.kind == "onnx":
        return _refined_onnx(model, original, inputs, settings, progress)
    return model, _refined_keras(model, original.model, inputs, settings, progress)


def _hindrance(model: Model, original: ModelFile, report: RewriteReport) -> str:
    """Tell why a model cannot be refined; empty if it can be."""
    if report.untrained:
        return f"{' and '.join(report.untrained)} need fine-tuning, which does more"
    if original.kind == "onnx":
        return ""
    from dsconvert.base.errors import InputError
    from dsconvert.models.training.label_outputs import with_scores

    try:
        with_scores(model)
    except InputError as error:
        return error.message.rstrip(".")
    narrow = {
        str(layer.compute_dtype)
        for layer in model.layers
        if str(getattr(layer, "compute_dtype", "")) in ("float16", "bfloat16")
    }
    return f"the model computes in {' and '.join(sorted(narrow))}" if narrow else ""


def _refined_keras(
    model: Any,
    original: Any,
    inputs: Sequence[Array],
    settings: RefineSettings,
    progress: Progress,
) -> Refinement:
    """Train a Keras model in its place, by the scores before labels where it gives these."""
    from dsconvert.converter.backends.keras.graph import as_functional
    from dsconvert.converter.calibration import split
    from dsconvert.models.training.label_outputs import with_scores
    from dsconvert.models.training.refine import refine

    model, teacher = with_scores(model), with_scores(as_functional(original))
    composed = composed_like(teacher, model)
    data = split(inputs, settings.seed)
    return refine(
        composed(model),
        composed(teacher),
        data.inputs,
        data.held_out,
        settings,
        progress=progress,
    )


def composed_like(
    original: Any, student: Any, *, half: bool | None = None, batch_norms: bool = False
) -> Callable[[Any], ComposedModel]:
    """Return what computes models with one dense convolution in the place of each block.

    Args:
        original: The Keras model whose layers are no parts of blocks.
        student: What was made from it.
        half: Compute wide convolutions in bfloat16; None where the processor multiplies it.
        batch_norms: Let the norms of a model that is trained follow the batch.
    """
    from dsconvert.converter.backends.keras.composed import ComposedModel

    narrow = _multiplies_bfloat16() if half is None else half
    return lambda model: ComposedModel(
        model, original, student=student, half=narrow, batch_norms=batch_norms
    )


def _multiplies_bfloat16() -> bool:
    """Tell whether this processor multiplies bfloat16 faster than float32; False if unknown."""
    from pathlib import Path

    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _refined_onnx(
    model: Model,
    original: ModelFile,
    inputs: Sequence[Array],
    settings: RefineSettings,
    progress: Progress,
) -> tuple[Model, Refinement | None]:
    """Import both models into Keras, train there, and write the weights back."""
    from dsconvert.formats.onnx.messages import copied
    from dsconvert.formats.onnx.open import embed_weights

    from .model_files import open_model
    from .onnx_round_trip import convert, keras_arrays

    made = copied(model)
    embed_weights(made, original.folder)  # those that it has of the original's are beside that
    student = convert(open_model(made), settings.seed, tell=False, progress=progress)
    teacher = convert(original, settings.seed, tell=False, progress=progress)
    arrays = keras_arrays(inputs, student.converted.input_axes)
    done = _refined_keras(student.model, teacher.model, arrays, settings, progress)
    if not done.kept:
        return model, done
    return student.converted.write_back(student.model), done
