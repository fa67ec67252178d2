"""What a student is asked to match, per output of its teacher.

An output that ends in a softmax is matched as a distribution (Hinton et al., arXiv:1503.02531),
every other output by its squared error relative to the teacher's variance, so that the outputs
of a model with several weigh alike whatever their units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dsconvert.base.output_fidelity.channel_axis import channel_axis
from dsconvert.base.output_fidelity.channel_groups import channels_last
from dsconvert.base.output_fidelity.group_error import judged_groups
from dsconvert.base.predictor import Array

_FLOOR = 1e-30
"""Least probability: its logarithm and the gradient through it are still finite in float32."""
_UNSURE = 0.75
"""Entropy of a teacher's answers, in nats, from which on they tell more than its features do.
Three networks of 0.08, 0.23 and 0.56 nats were learnt better with their features, one of 0.91 nats
without them, whether its scores were matched as classes or as numbers."""


class Objective(Protocol):
    """How one output of the student is compared with the teacher's."""

    @property
    def wants_features(self) -> bool:
        """Tell whether the teacher's answers say so little that features are compared, too.

        A teacher that knows the images by heart is sure of each. One that is not tells by every
        answer how it weighs all classes, and a small student that is to have its features as well
        is held back by those it cannot have.
        """

    def targets(self, teacher: Array, labels: Array | None) -> Array:
        """Return what to aim at, from the teacher's output (batch, ...) and labels (batch,)."""

    def loss(self, target: Any, student: Any) -> Any:
        """Return the loss of a batch of Keras tensors, one value per sample (and position)."""


@dataclass(frozen=True)
class SoftTargets:
    """T²·KL(softmax(z/T) ‖ softmax(ẑ/T)) for classes on the last axis, and their labels' share.

    With labels the loss is (1 − w) times that and w times −log p̂ of the true class, both as in
    Hinton et al.: the labels at a temperature of 1, since at a higher one they would ask for
    ever larger logits.

    Where the outputs are probabilities, the logits z are recovered as log p, which differs from
    them by a constant that no softmax sees.

    Attributes:
        temperature: T; above 1 the small probabilities count more.
        label_weight: w, the labels' share.
        logits: Whether the outputs are z itself.
        wants_features: See `Objective`.
    """

    temperature: float
    label_weight: float
    logits: bool = False
    wants_features: bool = True

    def targets(self, teacher: Array, labels: Array | None) -> Array:
        """The teacher's distribution at T, (batch, ..., classes), and the labels' behind it."""
        logits = teacher if self.logits else np.log(np.maximum(teacher, _FLOOR))
        scaled = logits / self.temperature
        soft = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
        soft /= soft.sum(axis=-1, keepdims=True)
        if labels is not None:
            hard = np.eye(teacher.shape[-1], dtype=np.float32)[labels]
            soft = np.concatenate([soft, hard], axis=-1)
        return np.asarray(soft, np.float32)

    def loss(self, target: Any, student: Any) -> Any:
        """Return the divergence from the target of the student's answer (batch, ..., classes)."""
        from keras import ops

        logits = student if self.logits else ops.log(ops.maximum(student, _FLOOR))
        classes = student.shape[-1]
        soft, hard = target[..., :classes], target[..., classes:]
        log_student = ops.log_softmax(logits / self.temperature, axis=-1)
        log_target = ops.log(ops.maximum(soft, _FLOOR))
        loss = self.temperature**2 * ops.sum(soft * (log_target - log_student), axis=-1)
        if hard.shape[-1] == 0:
            return loss
        surprise = -ops.sum(hard * ops.log_softmax(logits, axis=-1), axis=-1)
        return (1 - self.label_weight) * loss + self.label_weight * surprise


@dataclass(frozen=True)
class NormalizedError:
    """(ŷ − y)² / Var(y) for any other output, the mean over groups of channels of like scale.

    Attributes:
        variance: Of the teacher's output over samples and positions; or, where channels have
            several scales, what to divide each channel's error by, in a shape that is broadcast
            against one sample's output.
        wants_features: See `Objective`.
    """

    variance: float | Array
    wants_features: bool = True

    def targets(self, teacher: Array, labels: Array | None) -> Array:
        """Return the teacher's output as it is."""
        del labels
        return teacher

    def loss(self, target: Any, student: Any) -> Any:
        """Return the relative squared error of each sample, (batch,)."""
        from keras import ops

        axes = tuple(range(1, len(student.shape)))
        return ops.mean(ops.square(student - target) / self.variance, axis=axes)


def objectives(
    teacher: Any,
    outputs: Sequence[Array],
    temperature: float,
    label_weight: float,
    *,
    logits: bool = False,
) -> tuple[Objective, ...]:
    """Return one objective per output.

    Args:
        teacher: The Keras model.
        outputs: Its outputs on some of the data, which tell their variance and how sure it is.
        temperature: See `SoftTargets`.
        label_weight: See `SoftTargets`.
        logits: Whether the one output is scores of classes before a softmax.
    """
    if logits:
        sure = _is_sure(softmax(outputs[0]))
        return (SoftTargets(temperature, label_weight, logits=True, wants_features=sure),)
    scores = takes_logits(teacher)
    return tuple(
        SoftTargets(temperature, label_weight, wants_features=_is_sure(values))
        if soft
        else NormalizedError(
            _variance(values), wants_features=not scores or _is_sure(softmax(values))
        )
        for soft, values in zip(ends_in_softmax(teacher), outputs, strict=True)
    )


def _is_sure(probabilities: Array) -> bool:
    """Tell whether the mean entropy of probabilities (..., classes) is small; see `_UNSURE`."""
    logarithms = np.log(np.maximum(probabilities, _FLOOR))
    return float(-(probabilities * logarithms).sum(axis=-1).mean()) < _UNSURE


def takes_logits(model: Any) -> bool:
    """Tell whether the one output of a model may be scores of classes before a softmax."""
    shapes = [tuple(tensor.shape) for tensor in model.outputs]
    plain = len(shapes) == 1 and len(shapes[0]) == 2 and (shapes[0][1] or 0) > 1
    return plain and not any(ends_in_softmax(model))


def softmax(logits: Array) -> Array:
    """Probabilities (batch, classes) of logits."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def surprise(probabilities: Array, labels: Array) -> float:
    """Return the mean cross-entropy −log p of the true classes, in nats."""
    true = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(true, _FLOOR)).mean())


def ends_in_softmax(model: Any) -> tuple[bool, ...]:
    """Tell whether each output of a functional or sequential Keras model is a softmax."""
    return tuple(_is_softmax(tensor) for tensor in model.outputs)


def _is_softmax(tensor: Any) -> bool:
    import keras

    operation, _, index = tensor._keras_history
    if isinstance(operation, keras.Model):
        return _is_softmax(operation.outputs[index])
    if type(operation).__name__ == "Softmax":  # both the layer and the operation
        return operation.axis in (-1, len(tensor.shape) - 1)
    return getattr(operation, "activation", None) is keras.activations.softmax


def _variance(values: Array) -> float | Array:
    """Return what squared errors are divided by; see `NormalizedError`.

    Boxes in pixels beside scores of 0 … 1 would leave the scores nothing to be learnt by: with
    groups g of n_g of the N channels the loss is the mean over the G groups of their own, each
    channel's error divided by G · n_g / N · Var(y_g).

    Args:
        values: The teacher's output, (n, ...).
    """
    axis = channel_axis(values)
    grouped = judged_groups(values, axis)
    if len(grouped) < 2:
        return _spread(values)
    last = channels_last(values, axis)
    channels = last.shape[-1]
    divisor = np.full(channels, np.inf, np.float32)  # what is nothing but noise is not learnt
    for group in grouped:
        share = len(grouped) * len(group) / channels
        divisor[group] = share * _spread(last[..., group])
    shape = [1] * (values.ndim - 1)
    shape[axis - 1] = channels
    return divisor.reshape(shape)


def _spread(values: Array) -> float:
    """Variance, or the mean square where the output is constant, never zero."""
    values = np.asarray(values, np.float64)
    return float(values.var()) or float(np.mean(values**2)) or 1.0
