"""How good a model is: its accuracy by the labels, its fidelity to the model it was made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import Accuracy, OutputFidelity, top_k
from dsconvert.base.predictor import Array, Predictor
from dsconvert.base.progress import Progress, silent

from ..data.checks import check_against, check_classes, check_same_inputs
from ..data.datasets import Data
from ..data.preprocess import Preprocessing
from .compare import compare_with, predict_all, predict_reference
from .metrics.metric import Answers, Metric, MetricValue
from .metrics.value import value_of


class Evaluation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model does with some data. Accuracies and errors are those of its first output.

    Attributes:
        name: Of the model, as the caller calls it.
        source: Of the data.
        samples: How many.
        preprocessing: What was done to them.
        top1: Share of samples whose class gets the highest score; None without class labels.
        top5: Share whose class is among the five highest; None with five classes or fewer.
        mse: Mean squared difference from regression targets, in their unit squared.
        mae: Mean absolute difference from regression targets, in their unit.
        finite: Whether every output value is finite.
        predicted: For a class output how often each class scores highest.
        fidelity: The outputs compared with the reference's; empty without a reference.
        metrics: What was asked for beside these.
        warnings: What makes these figures doubtful.
    """

    schema: Literal["dsconvert.evaluation/1"] = "dsconvert.evaluation/1"
    name: str
    source: str
    samples: int
    preprocessing: Preprocessing
    top1: Accuracy | None = None
    top5: Accuracy | None = None
    mse: float | None = None
    mae: float | None = None
    finite: bool
    predicted: tuple[int, ...] = ()
    fidelity: tuple[OutputFidelity, ...] = ()
    metrics: tuple[MetricValue, ...] = ()
    warnings: tuple[str, ...] = ()


def evaluate(
    subject: Predictor | Any,
    data: Data,
    *,
    reference: Predictor | Any = None,
    references: tuple[Array, ...] | None = None,
    metrics: Sequence[Metric] = (),
    name: str = "",
    progress: Progress = silent,
) -> Evaluation:
    """Measure a model on data.

    Args:
        subject: A predictor of any runtime, or a Keras model.
        data: The samples; each model gets them with the channel axis of images where it takes it.
            Labels may be classes, for a first output (n, classes), or regression targets of that
            output's shape.
        reference: The model to compare with, of any runtime. Outputs that are images are compared
            in its layout.
        references: What the reference gives for these data, where that is known; see
            `predict_reference`.
        metrics: What to compute; without any, the figures that plain labels allow.
        name: What to call the subject.
        progress: Told of each chunk of samples.

    Raises:
        InputError: If data, labels or reference do not fit the subject.
    """
    predictor = as_predictor(subject)
    original = None if reference is None else as_predictor(reference)
    if original is not None:
        shapes = {
            "the reference": original.input_shapes,
            name or "the model": predictor.input_shapes,
        }
        check_same_inputs(shapes)
    data = data.laid_out(predictor.input_shapes)
    check_against(predictor.input_shapes, data)
    outputs = predict_all(predictor, data.inputs, progress, f"Evaluating {name}".rstrip())
    if original is not None and references is None:
        references = predict_reference(original, data, progress)
    fidelity: tuple[OutputFidelity, ...] = ()
    warnings: tuple[str, ...] = ()
    if original is not None and references is not None:
        try:
            kinds = getattr(predictor, "output_kinds", ())
            fidelity = compare_with(original, references, data, outputs, kinds)
        except InputError as error:
            if not metrics or error.code != "shape-mismatch":
                raise
            warnings = (f"not compared output by output: {error.words.message}",)
    answers = Answers(data.inputs, outputs, data.labels, references, data.source)
    first = outputs[0]
    classes = first.shape[1] if first.ndim == 2 and first.shape[1] >= 2 else 0
    predicted = np.bincount(first.argmax(axis=1), minlength=classes) if classes else np.empty(0)
    evaluation = Evaluation(
        name=name,
        source=data.source,
        samples=len(data),
        preprocessing=data.preprocessing,
        finite=all(bool(np.isfinite(output).all()) for output in outputs),
        predicted=tuple(int(count) for count in predicted),
        fidelity=fidelity,
        metrics=tuple(value_of(metric, answers) for metric in metrics),
        **({} if metrics else _by_labels(first, data)),
    )
    warnings += _warnings(evaluation, data.labels)
    return msgspec.structs.replace(evaluation, warnings=warnings)


def as_predictor(model: Predictor | Any) -> Predictor:
    """Return the model itself if it is a predictor, else a predictor over the Keras model."""
    if hasattr(model, "input_shapes"):
        return model
    from .keras_predictor import KerasPredictor

    return KerasPredictor(model)


def _by_labels(output: Array, data: Data) -> dict[str, Any]:
    """Return the figures that labels allow, by the names of their fields."""
    labels = data.labels
    if labels is None:
        return {}
    if output.ndim == 2 and output.shape[1] >= 2 and labels.ndim == 1:
        classes = output.shape[1]
        check_classes(labels, data.source, classes)
        top5 = top_k(output, labels, 5) if classes > 5 else None
        return {"top1": top_k(output, labels, 1), "top5": top5}
    if output.size != labels.size:
        raise InputError(
            f"the labels of {data.source} have the shape {labels.shape}, the model's first output "
            f"{output.shape}.",
            "Give one class per sample, targets of the output's shape, or no labels; or name what "
            "to measure: --metric map for boxes, --metric miou for segments.",
            code="labels-do-not-fit",
        )
    gap = output.reshape(labels.shape).astype(np.float64) - labels
    if not np.isfinite(gap).all():
        return {}
    return {"mse": float(np.mean(gap**2)), "mae": float(np.mean(np.abs(gap)))}


def _warnings(evaluation: Evaluation, labels: Array | None) -> tuple[str, ...]:
    warnings = []
    if not evaluation.finite:
        warnings.append("some outputs are not finite")
    if evaluation.samples > 1 and sum(count > 0 for count in evaluation.predicted) == 1:
        warnings.append("every sample is given the same class")
    if evaluation.top1 is not None and labels is not None:
        commonest = float(np.bincount(labels).max() / len(labels))
        if commonest < 1 and evaluation.top1.high <= commonest:
            warnings.append(
                f"top-1 {evaluation.top1.value:.1%} is no better than always naming the commonest "
                f"class ({commonest:.1%}): are preprocessing and order of classes right?"
            )
    return tuple(warnings)
