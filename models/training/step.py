"""One training step: the loss of outputs and features, its gradients, and the move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.base.tensors import in_float32

from .distill import Objective
from .network import Network
from .replicas import One, Replicas, averaged
from .strided_points import sliced_points


@dataclass(frozen=True)
class Lesson:
    """What one batch, or a share of one, teaches.

    Attributes:
        inputs: One array per input, (batch, ...).
        targets: What each objective aims at.
        inside: The teacher's features, as many as the student's that are compared.
    """

    inputs: Sequence[Any]
    targets: Sequence[Any]
    inside: Sequence[Any] = ()


class Steps:
    """Takes steps, each of which does nothing where its loss or a gradient is not finite.

    Args:
        network: Computes the student.
        objectives: One per output; their means over the batch are summed.
        optimizer: A Keras optimizer, built.
        variables: What is trained.
        states: What else the forward pass changes, as moving statistics; they go back where the
            step does nothing.
        replicas: What computes the shares of a batch.
    """

    def __init__(
        self,
        network: Network,
        objectives: Sequence[Objective],
        optimizer: Any,
        variables: Sequence[Any],
        states: Sequence[Any] = (),
        replicas: Replicas | None = None,
    ) -> None:
        import tensorflow as tf

        self._network, self._objectives = network, objectives
        self._optimizer, self._variables, self._states = optimizer, list(variables), list(states)
        self._replicas = replicas or One()
        self._slopes = self._replicas.compiled(self._gradients)
        self._move = tf.function(self._apply, autograph=False, jit_compile=False)

    def take(self, lessons: Sequence[Lesson], rate: float, features: float) -> tuple[Array, bool]:
        """Take one step.

        Args:
            lessons: The shares of the batch that are computed here, of equal size.
            rate: The learning rate.
            features: How much their squared relative error, the mean, counts beside the outputs'
                loss.

        Returns:
            The loss of each output and, behind them, of the features; and whether the variables
            have moved.
        """
        before = [np.asarray(state) for state in self._states]
        weight = np.asarray(features, np.float32)
        given = [(list(x.inputs), list(x.targets), list(x.inside), weight) for x in lessons]
        losses, finite, gradients, after = self._slopes(given)[0]
        moved = bool(finite)
        if moved:
            self._optimizer.learning_rate = rate
            self._move(gradients)
        if not moved or self._replicas.count > 1:
            for state, value in zip(self._states, after if moved else before, strict=True):
                state.assign(value)
        return np.asarray(losses), moved

    def _gradients(self, inputs: Any, targets: Any, inside: Any, weight: Any) -> Any:
        """Return what all shares come to; all of them get the same."""
        import tensorflow as tf

        # A model of another precision answers in it.
        targets, inside = [*map(in_float32, targets)], [*map(in_float32, inside)]
        sizes = averaged([tf.reduce_mean(tf.square(feature)) for feature in inside])
        with tf.GradientTape() as tape, sliced_points():
            outputs, features = self._network.run(inputs)
            outputs, features = [*map(in_float32, outputs)], [*map(in_float32, features)]
            losses = [
                tf.reduce_mean(tf.cast(objective.loss(target, output), tf.float32))
                for objective, target, output in zip(
                    self._objectives, targets, outputs, strict=True
                )
            ]
            known = bool(features and inside)  # one of the two may compute none
            for ours, theirs, size in zip(features, inside, sizes, strict=known):
                gap = tf.reduce_mean(tf.square(ours - theirs)) / (size + 1e-12)
                losses.append(weight / len(features) * gap)
            loss = tf.add_n(losses)
        values = [variable.value for variable in self._variables]
        gradients = [
            tf.zeros_like(value) if slope is None else tf.convert_to_tensor(slope)
            for value, slope in zip(values, tape.gradient(loss, values), strict=True)
        ]
        together, *gradients = averaged([tf.stack(losses), *gradients])
        sums = [tf.reduce_sum(tf.abs(tf.cast(slope, tf.float32))) for slope in gradients]
        finite = tf.math.is_finite(tf.add_n([tf.reduce_sum(together), *sums]))
        return together, finite, gradients, self._after()

    def _after(self) -> list[Any]:
        """Return the states behind the forward pass: statistics as averages over all shares."""
        values = [state.value for state in self._states]
        statistics = iter(averaged([value for value in values if value.dtype.is_floating]))
        return [next(statistics) if value.dtype.is_floating else value for value in values]

    def _apply(self, gradients: Any) -> None:
        self._optimizer.apply(gradients, self._variables)
