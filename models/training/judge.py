"""Decides by samples that nothing was trained on which epoch is the best."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import Any

from dsconvert.base.fidelity import compare_outputs, output_error
from dsconvert.base.predictor import Array

from ..data.datasets import Data
from ..evaluation.keras_predictor import KerasPredictor
from .distill import softmax, surprise
from .network import Answering
from .settings import Epoch

log = logging.getLogger(__name__)


class Judge:
    """Compares the student with its teacher on the samples held out of training.

    Where labels are part of the target they are part of the verdict, by the same share.
    """

    def __init__(
        self,
        student: Answering,
        teacher: Any,
        held_out: Data,
        label_weight: float,
        *,
        logits: bool,
    ) -> None:
        reference = KerasPredictor(teacher)
        self._student = student
        self._inputs = inputs = held_out.inputs
        self._labels = held_out.labels if label_weight > 0 else None
        self._weight = label_weight
        self.names = reference.output_names
        self._logits = logits
        self.answers = reference.predict(inputs)
        self._references = self._judged(self.answers)

    def _judged(self, outputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Logits as the probabilities that they stand for."""
        return tuple(map(softmax, outputs)) if self._logits else outputs

    def epoch(
        self,
        number: int,
        loss: float | None = None,
        *,
        seconds: float = 0.0,
        images: int = 0,
        complete: bool = True,
    ) -> Epoch:
        """Return the record of an epoch, with the student as it is now.

        Args:
            number: Of the epoch.
            loss: Mean of its steps.
            seconds: What they took.
            images: How many they saw.
            complete: Whether these were all its steps.
        """
        started = time.perf_counter()
        outputs = self._judged(self._student.predict(self._inputs))
        damage = output_error(self._references, outputs)
        if self._labels is not None:
            damage += self._weight * (surprise(outputs[0], self._labels) - damage)
        record = Epoch(
            epoch=number,
            loss=loss if loss is not None and math.isfinite(loss) else None,
            output_error=damage if math.isfinite(damage) else None,
            fidelity=compare_outputs(self.names, self._references, outputs),
            seconds=seconds + time.perf_counter() - started,
            images_per_second=images / seconds if images and seconds else None,
            complete=complete,
        )
        log.info(
            "epoch %d: loss %s, output error %s, %.0f images/s",
            number,
            record.loss,
            record.output_error,
            record.images_per_second or 0,
        )
        return record


def best_epoch(history: Sequence[Epoch]) -> int:
    """Return the first epoch with the least output error."""
    return min(
        history, key=lambda epoch: math.inf if epoch.output_error is None else epoch.output_error
    ).epoch
