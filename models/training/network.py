"""What is trained, and what is learnt from: Keras models, each computed in some way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from dsconvert.base.predictor import Array

from ..evaluation.keras_predictor import KerasPredictor
from .student_copy import bare, flat

_BATCH = 64


class Network(Protocol):
    """Computes a Keras model in its own way, differentiably."""

    @property
    def states(self) -> Sequence[Any]:
        """TensorFlow variables that it has besides the model's."""

    def calibrate(self) -> None:
        """Set these variables by the model's weights as they are now."""

    def run(self, inputs: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """Compute what is trained: the outputs, and features inside that a teacher has too.

        Args:
            inputs: One tensor per input, (n, ...).
        """


@runtime_checkable
class RoundedNetwork(Network, Protocol):
    """A network whose answers are not those of its Keras model."""

    def answer(self, inputs: Sequence[Any]) -> Sequence[Any]:
        """Compute the outputs that are judged."""


NetworkOf = Callable[[Any], Network]
"""Makes the network of a Keras model."""


class PlainNetwork:
    """A Keras model in training mode: with dropout, and norms that follow the batch."""

    def __init__(self, model: Any) -> None:
        self._model = model

    @property
    def states(self) -> Sequence[Any]:
        """It has no variables but the model's."""
        return ()

    def calibrate(self) -> None:
        """Do nothing."""

    def run(self, inputs: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """Compute the outputs in training mode, and no features."""
        return flat(self._model(bare(inputs), training=True)), ()


class NetworkPredictor:
    """Answers as a network does that is calibrated anew for each call.

    Args:
        network: What answers.
    """

    def __init__(self, network: RoundedNetwork) -> None:
        import tensorflow as tf

        self._network = network
        self._run = tf.function(network.answer, autograph=False, reduce_retracing=True)

    def predict(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run on a batch of any size, one array per input and output, (n, ...)."""
        self._network.calibrate()
        parts = []
        for start in range(0, len(inputs[0]), _BATCH):
            batch = [np.asarray(x[start : start + _BATCH], np.float32) for x in inputs]
            parts.append([output.numpy() for output in self._run(batch)])
        return tuple(np.concatenate(outputs) for outputs in zip(*parts, strict=True))


class Answering(Protocol):
    """A network that shows later changes of its weights."""

    def predict(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run on a batch of any size, one array per input and output, (n, ...)."""


def answering(model: Any, network: Network | None) -> Answering:
    """Return what is judged: the Keras model, or its rounded form where it is trained in that.

    Args:
        model: The Keras model.
        network: How it is computed while it is trained; None for as Keras does.
    """
    if isinstance(network, RoundedNetwork):
        return NetworkPredictor(network)
    return KerasPredictor(model)
