"""What the teacher says about a batch: its outputs, and where wanted its features."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dsconvert.base.finite import CAUSES, check_answers
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress

from ..data.datasets import Data
from ..evaluation.compare import predict_all
from ..evaluation.keras_predictor import KerasPredictor
from .batches import are_photographs
from .distill import Objective
from .network import Network
from .replicas import One, Replicas
from .step import Lesson

_KEPT_ANSWERS = 1 << 28
"""Values of float32, 1 GiB, that the teacher's answers to samples on disk may take."""


def compares_features(inputs: Sequence[Array], objectives: Sequence[Objective]) -> bool:
    """Tell whether a student is to learn what its teacher computes inside, too.

    Args:
        inputs: The samples, one array per model input, (n, ...).
        objectives: One per output.
    """
    return are_photographs(inputs) and any(one.wants_features for one in objectives)


@dataclass(frozen=True)
class Share:
    """Samples of a batch, as many as one device computes.

    Attributes:
        index: Their numbers.
        inputs: The samples as they were changed, one array per input.
        labels: Their classes.
    """

    index: Array
    inputs: Sequence[Array]
    labels: Array | None = None


class Watched:
    """A teacher whose features are taught, too.

    Args:
        network: Computes it.
        model: The Keras model behind it.
        objectives: One per output.
        replicas: What computes the shares of a batch.
    """

    def __init__(
        self,
        network: Network,
        model: Any,
        objectives: Sequence[Objective],
        replicas: Replicas | None = None,
    ) -> None:
        self._objectives = objectives
        self._types = [str(tensor.dtype) for tensor in model.inputs]
        self._run = (replicas or One()).compiled(lambda *inputs: network.run(inputs))

    def ask_once(self, data: Data, progress: Progress) -> None:
        """Do nothing: features of all samples are more than memory holds."""

    def lessons(self, shares: Sequence[Share]) -> list[Lesson]:
        """Return what the shares of a batch teach."""
        import tensorflow as tf

        given = [
            [tf.constant(*pair) for pair in zip(share.inputs, self._types, strict=True)]
            for share in shares
        ]
        found = []
        for share, inputs, answers in zip(shares, given, self._run(given), strict=True):
            outputs, inside = answers
            told = [output.numpy() for output in outputs]
            found.append(Lesson(inputs, _targets(self._objectives, told, share.labels), inside))
        return found


class TeacherAnswers:
    """A teacher that is asked for its outputs alone, and only once if its samples stay the same.

    Args:
        model: The Keras model.
        objectives: One per output.
        batch_size: For its predictions.
    """

    def __init__(self, model: Any, objectives: Sequence[Objective], batch_size: int) -> None:
        self._objectives = objectives
        self._model = model
        self._predictor = KerasPredictor(model, batch_size)
        self._known: Sequence[Array] = ()

    def ask_once(self, data: Data, progress: Progress) -> None:
        """Ask about all samples now, if memory holds the answers to those on disk.

        Raises:
            InputError: If it gives NaN or infinity.
        """
        if self._known:
            return
        values = sum(math.prod(size or 1 for size in x.shape[1:]) for x in self._model.outputs)
        if not data.on_disk or values * len(data) <= _KEPT_ANSWERS:
            self._known = predict_all(self._predictor, data.inputs, progress, "Asking the teacher")
            check_answers(
                self._predictor.output_names,
                self._known,
                who="the teacher",
                on=f"samples of {data.source}",
                hint=f"{CAUSES}, and leave out the samples that it has no answer to.",
            )

    def lessons(self, shares: Sequence[Share]) -> list[Lesson]:
        """Return what the shares of a batch teach."""
        return [
            Lesson(share.inputs, _targets(self._objectives, self._answers(share), share.labels))
            for share in shares
        ]

    def _answers(self, share: Share) -> list[Array]:
        if self._known:
            return [outputs[share.index] for outputs in self._known]
        return list(self._predictor.predict(share.inputs))


def _targets(
    objectives: Sequence[Objective], answers: Sequence[Array], labels: Array | None
) -> list[Array]:
    pairs = zip(objectives, answers, strict=True)
    return [objective.targets(answer, labels) for objective, answer in pairs]
