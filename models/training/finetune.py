"""Fine-tuning by distillation: the student learns to answer as its teacher does, without labels."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsconvert.base.errors import InputError, require
from dsconvert.base.fidelity import compare_outputs, output_error
from dsconvert.base.files import check_writable
from dsconvert.base.image_layout import fits
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent

from ..data.checks import check_against, check_classes
from ..data.datasets import Data, holdout
from ..evaluation.keras_predictor import KerasPredictor
from .batches import augmentation
from .checkpoint import Checkpoint, Identity, fingerprint, load_checkpoint, save_checkpoint
from .distill import ends_in_softmax, objectives, softmax, surprise, takes_logits
from .label_outputs import with_scores
from .settings import Epoch, FinetuneSettings, Tuned
from .training import Trainer

log = logging.getLogger(__name__)


def finetune(
    student: Any,
    teacher: Any,
    data: Data,
    settings: FinetuneSettings | None = None,
    *,
    state: Path | None = None,
    progress: Progress = silent,
) -> Tuned:
    """Train the student to give the teacher's outputs; it receives the best weights found.

    The best epoch is the one whose outputs, in float32, are nearest to the teacher's on samples
    that
    are held out of training. The student as it came counts as epoch 0, so that nothing worse is
    ever handed back.

    Args:
        student: A functional or sequential Keras model. Only its weights change.
        teacher: The model it was made from: the same inputs and outputs.
        data: Training samples; labels are looked at only if ``label_weight`` is positive.
        settings: See `FinetuneSettings`.
        state: A file that holds the state after each epoch. If it exists, training goes on
            from there and gives what an uninterrupted run would have given.
        progress: Told of each training step.

    Raises:
        InputError: If the models or the data do not fit together or ``state`` belongs to another
            run.
    """
    require("keras", "keras", "to fine-tune")
    settings = settings or FinetuneSettings()
    if state is not None:
        check_writable(state, overwrite=True)
    whole, student, teacher = student, with_scores(student), with_scores(teacher)
    _check(student, teacher, data, settings)
    training, validation = holdout(data, settings.validation, seed=settings.seed)
    best = student.get_weights()
    identity = Identity(
        settings=settings,
        student=fingerprint(best),
        teacher=fingerprint(teacher.get_weights()),
        data=fingerprint(data.inputs if data.labels is None else (*data.inputs, data.labels)),
    )
    saved = load_checkpoint(state, identity) if state is not None and state.exists() else None
    logits = takes_logits(teacher) and (settings.logits or settings.label_weight > 0)
    judge = _Judge(student, teacher, validation, settings.label_weight, logits=logits)
    weight = settings.label_weight
    goals = objectives(teacher, judge.answers, settings.temperature, weight, logits=logits)
    trainer = Trainer(student, teacher, training, goals, settings, progress)
    if saved is None:
        history = [judge.epoch(0, None, time.perf_counter())]
    else:
        history, best = list(saved.history), saved.best
        trainer.restore(saved.trained, saved.optimizer)
    try:
        while len(history) <= settings.epochs and not _diverged(history):
            started = time.perf_counter()
            loss = trainer.run_epoch(len(history))
            student.set_weights(trainer.weights())
            history.append(judge.epoch(len(history), loss, started))
            if best_epoch(history) == history[-1].epoch:
                best = trainer.weights()
            if state is not None:
                checkpoint = Checkpoint(tuple(history), *trainer.state(), best)
                save_checkpoint(state, identity, checkpoint)
    finally:  # an interrupted run leaves the best so far in the student, too
        student.set_weights(best)
    notes = _notes(history)
    if student is not whole:
        matched = ", ".join(KerasPredictor(student).output_names)
        notes = (f"labels have no gradient: the student matched {matched} in their place", *notes)
    return Tuned(whole, tuple(history), best_epoch(history), notes)


class _Judge:
    """Compares the student with its teacher on the samples held out of training.

    Where labels are part of the target they are part of the verdict, by the same share.
    """

    def __init__(
        self, student: Any, teacher: Any, held_out: Data, label_weight: float, *, logits: bool
    ) -> None:
        reference = KerasPredictor(teacher)
        self._student = KerasPredictor(student)
        self._inputs = inputs = held_out.inputs
        self._labels = held_out.labels if label_weight > 0 else None
        self._weight = label_weight
        self._names = reference.output_names
        self._logits = logits
        self.answers = reference.predict(inputs)
        self._references = self._judged(self.answers)

    def _judged(self, outputs: tuple[Array, ...]) -> tuple[Array, ...]:
        """Logits as the probabilities that they stand for."""
        return tuple(map(softmax, outputs)) if self._logits else outputs

    def epoch(self, number: int, loss: float | None, started: float) -> Epoch:
        """Return the record of an epoch that began at ``started`` (time.perf_counter())."""
        outputs = self._judged(self._student.predict(self._inputs))
        damage = output_error(self._references, outputs)
        if self._labels is not None:
            damage += self._weight * (surprise(outputs[0], self._labels) - damage)
        record = Epoch(
            epoch=number,
            loss=loss if loss is not None and math.isfinite(loss) else None,
            output_error=damage if math.isfinite(damage) else None,
            fidelity=compare_outputs(self._names, self._references, outputs),
            seconds=time.perf_counter() - started,
        )
        log.info("epoch %d: loss %s, output error %s", number, record.loss, record.output_error)
        return record


def best_epoch(history: Sequence[Epoch]) -> int:
    """Return the first epoch with the least output error."""
    return min(
        history, key=lambda epoch: math.inf if epoch.output_error is None else epoch.output_error
    ).epoch


def _diverged(history: Sequence[Epoch]) -> bool:
    return len(history) > 1 and history[-1].loss is None


def _notes(history: Sequence[Epoch]) -> tuple[str, ...]:
    notes = []
    if _diverged(history):
        notes.append(
            f"training broke off in epoch {history[-1].epoch}: the loss was not finite; "
            "a lower learning rate may help"
        )
    if best_epoch(history) == 0:
        notes.append(
            "no epoch came closer to the teacher than the student already was: its weights are "
            "unchanged"
        )
    return tuple(notes)


def _check(student: Any, teacher: Any, data: Data, settings: FinetuneSettings) -> None:
    """Return what can be refused before anything is computed."""
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
    check_against([tuple(tensor.shape) for tensor in teacher.inputs], data)
    augmentation(data.inputs, settings.augment)
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
    check_classes(data, classes)
