"""Refuses what cannot be fine-tuned before anything is computed."""

from __future__ import annotations

from typing import Any

from dsconvert.base.errors import InputError
from dsconvert.base.image_layout import fits
from dsconvert.base.units import first_few

from ..data.checks import check_against, check_classes
from ..data.datasets import Data
from ..evaluation.keras_predictor import layers_of_integers
from .batches import augmentation
from .distill import ends_in_softmax, takes_logits
from .settings import FinetuneSettings

_HALF = ("float16", "bfloat16")


def check(student: Any, teacher: Any, data: Data, settings: FinetuneSettings) -> None:
    """Check that models, data and settings belong together.

    Raises:
        InputError: If they do not.
    """
    for side in ("inputs", "outputs"):
        shapes = [
            [tuple(tensor.shape) for tensor in getattr(model, side)] for model in (student, teacher)
        ]
        if len(shapes[0]) != len(shapes[1]) or not all(map(fits, *shapes)):
            raise InputError(
                f"the student's {side} have the shapes {shapes[0]}, the teacher's {shapes[1]}.",
                "Give as teacher the model that the student was made from.",
                code="models-differ",
            )
    for role, model in (("student", student), ("teacher", teacher)):
        layers = layers_of_integers(model)
        if layers:
            raise InputError(
                f"the {role} computes with integers in {first_few(layers)}, after "
                "keras.Model.quantize: they do not train.",
                "Give the float models that were quantized.",
                code="quantized-already",
            )
    narrow = {str(v.dtype) for v in student.trainable_variables} & set(_HALF)
    if narrow:
        raise InputError(
            f"the student's weights are stored in {' and '.join(sorted(narrow))}, in which small "
            "steps are lost.",
            "Build it with the policy mixed_float16 or float32, set the weights, and save it.",
            code="half-weights",
        )
    check_against([tuple(tensor.shape) for tensor in teacher.inputs], data)
    augmentation(data.inputs, settings.augment, labelled=settings.label_weight > 0)
    if settings.logits and not takes_logits(teacher):
        raise InputError(
            "logits can be matched only where the single output is a score per class, without a "
            "softmax.",
            "Leave logits out.",
            code="not-class-scores",
        )
    if settings.label_weight == 0:
        return
    if data.labels is None:
        raise InputError(
            f"label_weight is {settings.label_weight} and {data.source} has no labels.",
            "Leave label_weight at 0: the teacher's answers are enough.",
            code="needs-labels",
        )
    if not takes_logits(teacher) and (
        not any(ends_in_softmax(teacher)) or len(teacher.outputs) > 1
    ):
        raise InputError(
            "labels can be used only where the single output is a score per class.",
            "Leave label_weight at 0: the teacher's answers are enough.",
            code="not-class-scores",
        )
    classes = teacher.outputs[0].shape[-1]
    check_classes(data.labels, data.source, classes)
