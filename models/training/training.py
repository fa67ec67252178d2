"""One epoch after another of training a copy of the student on its teacher's answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress

from ..data.datasets import Data
from ..evaluation.compare import predict_all
from ..evaluation.keras_predictor import KerasPredictor
from .batches import ahead, augmentation, epoch_batches
from .distill import Objective
from .settings import FinetuneSettings
from .student_copy import bare, copy_model, kept_layers, seed_random_layers

_KEPT_ANSWERS = 1 << 28
"""Values of float32, 1 GiB, that the teacher's answers to samples on disk may take."""

Answers = Callable[[Array, Sequence[Array]], tuple[Array, ...]]
"""The teacher's outputs for the samples of these indices, as augmented."""


class Trainer:
    """Trains a copy of the student; what an epoch does depends on its number and the variables.

    Args:
        student: The Keras model to copy; it is not changed.
        teacher: The Keras model to learn from.
        data: The training samples.
        objectives: One per output.
        settings: See `FinetuneSettings`.
        progress: Told of each step.
    """

    def __init__(
        self,
        student: Any,
        teacher: Any,
        data: Data,
        objectives: Sequence[Objective],
        settings: FinetuneSettings,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._progress = progress
        self._data = data
        self._objectives = objectives
        self._augment = augmentation(data.inputs, settings.augment)
        self._teacher = teacher
        fixed = student.inputs[0].shape[0]
        self._batch_size = fixed or min(settings.batch_size, len(data))
        self._steps = len(data) // self._batch_size
        self._answers: Answers | None = None
        self._frozen: bool | None = None
        self._copy = copy_model(student, mixed_precision=settings.mixed_precision)
        seed_random_layers(self._copy, settings.seed)
        self._kept = kept_layers(self._copy, teacher)
        self._optimizer = _optimizer(settings, self._steps)
        self._optimizer.build(self._copy.trainable_variables)

    def weights(self) -> list[Array]:
        """Return the copy's weights, in the student's order."""
        return list(self._copy.get_weights())

    def state(self) -> tuple[list[Array], list[Array]]:
        """Return the variables of the copy (random states included) and of the optimizer."""
        return (
            [np.asarray(variable) for variable in self._copy.variables],
            [np.asarray(variable) for variable in self._optimizer.variables],
        )

    def restore(self, copy: Sequence[Array], optimizer: Sequence[Array]) -> None:
        """Go back to a `state`."""
        for variables, values in (
            (self._copy.variables, copy),
            (self._optimizer.variables, optimizer),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def run_epoch(self, number: int) -> float:
        """Train for one epoch, the first of which is number 1.

        Returns:
            The mean loss; NaN or infinity where training broke off.
        """
        import keras

        self._compile(frozen=number <= self._settings.frozen_epochs)
        answers = self._answers = self._answers or self._teacher_answers()
        with self._progress(f"Epoch {number}/{self._settings.epochs}", self._steps) as advance:
            history = self._copy.fit(
                self._batches(number, answers),
                steps_per_epoch=self._steps,
                shuffle=False,
                verbose=0,
                callbacks=[
                    keras.callbacks.TerminateOnNaN(),
                    keras.callbacks.LambdaCallback(
                        on_train_batch_end=lambda batch, logs: advance()
                    ),
                ],
            )
        return float(history.history["loss"][-1])

    def _compile(self, *, frozen: bool) -> None:
        if frozen == self._frozen:
            return
        self._frozen = frozen
        for layer in self._kept:
            layer.trainable = not frozen
        self._copy.compile(
            self._optimizer,
            loss=[objective.loss for objective in self._objectives],
            jit_compile=False,  # XLA takes longer to compile than these steps gain on a CPU
        )

    def _batches(self, number: int, answers: Answers) -> Iterator[tuple[Any, Any]]:
        settings, labels = self._settings, self._data.labels
        batches = epoch_batches(
            self._data.inputs,
            self._batch_size,
            self._augment,
            seed=settings.seed,
            epoch=number,
        )
        for index, inputs in ahead(batches) if self._data.on_disk else batches:
            chosen = labels[index] if labels is not None and settings.label_weight > 0 else None
            targets = tuple(
                objective.targets(output, chosen)
                for objective, output in zip(self._objectives, answers(index, inputs), strict=True)
            )
            yield bare(inputs), bare(targets)

    def _teacher_answers(self) -> Answers:
        """Without augmentation the teacher answers once for all epochs, if memory holds that."""
        settings = self._settings
        teacher = KerasPredictor(
            copy_model(self._teacher, mixed_precision=settings.mixed_precision),
            max(self._batch_size, 64),
        )
        values = sum(math.prod(size or 1 for size in x.shape[1:]) for x in self._teacher.outputs)
        if self._augment or (self._data.on_disk and values * len(self._data) > _KEPT_ANSWERS):
            return lambda _, inputs: teacher.predict(inputs)
        known = predict_all(teacher, self._data.inputs, self._progress, "Asking the teacher")
        return lambda index, _: tuple(outputs[index] for outputs in known)


def _optimizer(settings: FinetuneSettings, steps: int) -> Any:
    """Return the optimizer with its schedule over all epochs of ``steps`` steps."""
    import keras

    total = settings.epochs * steps
    warmup = int(settings.warmup * total)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0 if warmup else settings.learning_rate,
        decay_steps=total - warmup,
        warmup_target=settings.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    kinds = {"adam": keras.optimizers.Adam, "adamw": keras.optimizers.AdamW}
    return kinds[settings.optimizer](schedule)
