"""One epoch after another of training a copy of the student on its teacher's answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress

from ..data.datasets import Data
from ..evaluation.compare import predict_all
from ..evaluation.keras_predictor import KerasPredictor
from .batches import ahead, augmentation, epoch_batches
from .distill import Objective
from .network import NetworkOf, PlainNetwork
from .settings import FinetuneSettings
from .step import Step, compiled_step
from .student_copy import copy_model, kept_layers, seed_random_layers

_KEPT_ANSWERS = 1 << 28
"""Values of float32, 1 GiB, that the teacher's answers to samples on disk may take."""

Answers = Callable[[Array, Sequence[Array]], tuple[Array, ...]]
"""The teacher's outputs for the samples of these indices, as augmented."""


class NotFiniteError(Exception):
    """A step that could not be taken; its text tells the cause."""


class Trainer:
    """Trains a copy of the student; what an epoch does depends on its number and the variables.

    Args:
        student: The Keras model to copy; it is not changed.
        teacher: The Keras model to learn from.
        data: The training samples.
        objectives: One per output.
        settings: See `FinetuneSettings`.
        progress: Told of each step.
        network: How the copy is computed; by default as Keras does while it trains. Nothing is
            frozen then: what rounding damages is everywhere.
    """

    def __init__(
        self,
        student: Any,
        teacher: Any,
        data: Data,
        objectives: Sequence[Objective],
        settings: FinetuneSettings,
        progress: Progress,
        network: NetworkOf | None = None,
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
        self._step: Step | None = None
        self._copy = copy_model(student, mixed_precision=settings.mixed_precision)
        seed_random_layers(self._copy, settings.seed)
        self._network = PlainNetwork(self._copy) if network is None else network(self._copy)
        self._frozen_epochs = settings.frozen_epochs if network is None else 0
        self._kept = kept_layers(self._copy, teacher)
        self._optimizer = _optimizer(settings, self._steps)
        self._optimizer.build(self._copy.trainable_variables)
        self._copy.compile(self._optimizer, jit_compile=False)  # callbacks look for the optimizer

    def weights(self) -> list[Array]:
        """Return the copy's weights, in the student's order."""
        return list(self._copy.get_weights())

    def state(self) -> tuple[list[Array], list[Array]]:
        """Return the variables of the copy (random states included) and of the optimizer."""
        return (
            [np.asarray(variable) for variable in self._trained()],
            [np.asarray(variable) for variable in self._optimizer.variables],
        )

    def restore(self, copy: Sequence[Array], optimizer: Sequence[Array]) -> None:
        """Go back to a `state`."""
        for variables, values in (
            (self._trained(), copy),
            (self._optimizer.variables, optimizer),
        ):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)

    def _trained(self) -> list[Any]:
        return [*self._copy.variables, *self._network.states]

    @property
    def samples_per_step(self) -> int:
        """The size of a batch."""
        return self._batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Count the batches that the data fill."""
        return self._steps

    @property
    def model(self) -> Any:
        """The trained copy, compiled with its optimizer."""
        return self._copy

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return float(self._optimizer.learning_rate)

    def steps(self, number: int, done: int = 0) -> Generator[float]:
        """Train for one epoch, the first of which is number 1, and yield the loss of each step.

        Args:
            number: Of the epoch.
            done: How many of its steps were taken before the state was restored.

        Raises:
            NotFiniteError: Where a loss or a gradient is not finite. The variables are what they
                were before that step.
        """
        step = self._step_of(frozen=number <= self._frozen_epochs)
        if not done:
            self._network.calibrate()
        answers = self._answers = self._answers or self._teacher_answers()
        for inputs, targets in self._batches(number, answers, done):
            losses, moved = step(inputs, targets)
            if not moved:
                raise NotFiniteError(self._cause(inputs, targets, np.asarray(losses)))
            yield float(np.sum(losses))

    def _step_of(self, *, frozen: bool) -> Step:
        """Return the step of an epoch, compiled anew where other layers are trained."""
        if self._step is None or frozen != self._frozen:
            self._frozen = frozen
            for layer in self._kept:
                layer.trainable = not frozen
            self._step = compiled_step(
                self._network.run,
                self._objectives,
                self._optimizer,
                self._copy.trainable_variables,
                self._copy.non_trainable_variables,
            )
        return self._step

    def _cause(self, inputs: Sequence[Array], targets: Sequence[Array], losses: Array) -> str:
        """Tell where the values came from that are not finite."""
        for arrays, what in ((inputs, "hold values"), (targets, "have answers of the teacher")):
            for array in arrays:
                broken = sum(not np.isfinite(sample).all() for sample in np.asarray(array))
                if broken:
                    return (
                        f"{broken} of the batch's {len(array)} samples {what} that are not finite"
                    )
        if np.isfinite(losses).all():
            return "a gradient was not finite; a lower learning rate may help"
        names = [tensor._keras_history.operation.name for tensor in self._copy.outputs]
        (broken_loss, *_) = np.flatnonzero(~np.isfinite(losses))
        return f"the loss of {names[broken_loss]} was not finite; a lower learning rate may help"

    def _batches(
        self, number: int, answers: Answers, done: int
    ) -> Iterator[tuple[tuple[Array, ...], tuple[Array, ...]]]:
        settings, labels = self._settings, self._data.labels
        batches = epoch_batches(
            self._data.inputs,
            self._batch_size,
            self._augment,
            seed=settings.seed,
            epoch=number,
            done=done,
        )
        for index, inputs in ahead(batches) if self._data.on_disk else batches:
            chosen = labels[index] if labels is not None and settings.label_weight > 0 else None
            targets = tuple(
                objective.targets(output, chosen)
                for objective, output in zip(self._objectives, answers(index, inputs), strict=True)
            )
            yield inputs, targets

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
