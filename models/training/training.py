"""One epoch after another of training a copy of the student on its teacher's answers."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress

from ..data.datasets import Data
from .averages import Averages
from .batches import ahead, augmentation, epoch_batches
from .distill import Objective
from .network import NetworkOf, PlainNetwork
from .replicas import One, Replicas
from .settings import FinetuneSettings
from .soap import relative_soap
from .step import Lesson, Steps
from .step_sizes import feature_weight, rate_for, share_of_rate
from .student_copy import copy_model, kept_layers, seed_random_layers
from .teacher import Share, TeacherAnswers, Watched, compares_features


class NotFiniteError(Exception):
    """A step that could not be taken; its text tells the cause.

    Attributes:
        by_teacher: Whether the teacher's answers were the cause, on samples that are finite.
    """

    by_teacher = False


class TeacherNotFiniteError(NotFiniteError):
    """A step without answers to learn from."""

    by_teacher = True


class Trainer:
    """Trains a copy of the student; what an epoch does depends on its number and the variables.

    Args:
        student: The Keras model to copy; it is not changed.
        teacher: The Keras model to learn from.
        data: The training samples.
        objectives: One per output.
        settings: See `FinetuneSettings`.
        progress: Told of each step.
        network: How the copy is computed; by default as Keras does while it trains, where the
            layers that the teacher has too are frozen for some epochs.
        watched: How the teacher is computed where its features are taught, too.
        replicas: What computes the shares of a batch.
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
        watched: NetworkOf | None = None,
        replicas: Replicas | None = None,
    ) -> None:
        import keras

        self._settings, self._replicas = settings, replicas or One()
        self._progress = progress
        self._data = data
        self._objectives = objectives
        self._labelled = settings.label_weight > 0
        self._augment = augmentation(data.inputs, settings.augment, labelled=self._labelled)
        fixed = student.inputs[0].shape[0]
        devices = self._replicas.count
        self._batch_size = devices * fixed if fixed else min(settings.batch_size, len(data))
        self._steps = len(data) // self._batch_size
        self._rate = self._rate_for(None)
        _check_shares(self._batch_size, devices)
        self._frozen: bool | None = None
        self._step: Steps | None = None
        half = bool(settings.mixed_precision) and network is None
        self._copy = copy_model(student, mixed_precision=half)
        seed_random_layers(self._copy, settings.seed)
        self._network = PlainNetwork(self._copy) if network is None else network(self._copy)
        self._averages = Averages(self._copy.weights)
        self._frozen_epochs = settings.frozen_epochs if network is None else 0
        self._kept = kept_layers(self._copy, teacher)
        self._optimizer = relative_soap(self._copy.trainable_variables)
        # Callbacks look for an optimizer that they know, and may save it.
        known = keras.optimizers.Adam(self._rate)
        known.build(self._copy.trainable_variables)
        self._copy.compile(known, jit_compile=False)
        self._teacher: TeacherAnswers | Watched
        anyhow = teacher.inputs[0].shape[0] in (None, self._batch_size // devices)
        if watched is not None and anyhow and compares_features(data.inputs, objectives):
            self._teacher = Watched(watched(teacher), teacher, objectives, self._replicas)
        else:
            alike = copy_model(teacher, mixed_precision=bool(settings.mixed_precision))
            self._teacher = TeacherAnswers(alike, objectives, max(self._batch_size, 64))

    def begin_at(self, error: float | None) -> None:
        """Choose the learning rate, unless the settings do.

        Args:
            error: That of the outputs of the student as it came.
        """
        self._rate = self._rate_for(error)

    def _rate_for(self, error: float | None) -> float:
        settings = self._settings
        steps, rounded = settings.epochs * self._steps, settings.quantize != "none"
        return settings.learning_rate or rate_for(error, steps, rounded=rounded)

    def anywhere(self, true_here: bool) -> bool:
        """Tell whether something is true in any of the processes that train together."""
        return self._replicas.any(true_here)

    def weights(self) -> list[Array]:
        """Return the averages of the copy's weights, in the student's order."""
        return self._averages.values()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Let the copy have the averages of its weights for a while."""
        own = self._copy.get_weights()
        self._copy.set_weights(self.weights())
        try:
            yield
        finally:
            self._copy.set_weights(own)

    def state(self) -> tuple[list[Array], list[Array]]:
        """Return the copy's variables, with random states and averages, and the optimizer's."""
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
        return [*self._copy.variables, *self._network.states, *self._averages.variables]

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
    def highest_rate(self) -> float:
        """The rate after the warm-up."""
        return self._rate

    @property
    def learning_rate(self) -> float:
        """The rate of the last step."""
        return float(self._copy.optimizer.learning_rate)

    def steps(self, number: int, done: int = 0) -> Generator[float]:
        """Train for one epoch, the first of which is number 1, and yield the loss of each step.

        Args:
            number: Of the epoch.
            done: How many of its steps were taken before the state was restored.

        Raises:
            NotFiniteError: Where a loss or a gradient is not finite. The variables are what they
                were before that step.
        """
        settings = self._settings
        step = self._step_of(frozen=number <= self._frozen_epochs)
        if not done:
            self._network.calibrate()
        first = (number - 1) * self._steps + done
        total = settings.epochs * self._steps
        features = feature_weight(total)
        for taken, lessons in enumerate(self._lessons(number, done), first):
            share = share_of_rate(taken, total, settings.warmup)
            rate = self._rate * share
            self._copy.optimizer.learning_rate = rate
            losses, moved = step.take(lessons, rate, features * share)
            if not moved:
                raise self._cause(lessons, losses)
            self._averages.take(taken)
            yield float(np.sum(losses))

    def _step_of(self, *, frozen: bool) -> Steps:
        """Return what takes the steps of an epoch, compiled anew where other layers are trained."""
        if self._step is None or frozen != self._frozen:
            self._frozen = frozen
            for layer in self._kept:
                layer.trainable = not frozen
            self._step = Steps(
                self._network,
                self._objectives,
                self._optimizer,
                self._copy.trainable_variables,
                self._copy.non_trainable_variables,
                self._replicas,
            )
        return self._step

    def _cause(self, lessons: Sequence[Lesson], losses: Array) -> NotFiniteError:
        """Tell where the values came from that are not finite."""
        if broken := _not_finite([x.inputs for x in lessons]):
            return NotFiniteError(f"{broken} hold values that are not finite")
        if broken := _not_finite([x.targets for x in lessons]):
            return TeacherNotFiniteError(
                f"{broken} have answers of the teacher that are not finite"
            )
        if np.isfinite(losses).all():
            return NotFiniteError("a gradient was not finite; a lower learning rate may help")
        names = [f"of {x._keras_history.operation.name}" for x in self._copy.outputs]
        names += ["inside"] * (len(losses) - len(names))
        (broken_loss, *_) = np.flatnonzero(~np.isfinite(losses))
        return NotFiniteError(
            f"the loss {names[broken_loss]} was not finite; a lower learning rate may help"
        )

    def _lessons(self, number: int, done: int) -> Iterator[list[Lesson]]:
        """Yield what the rest of an epoch teaches, as shares of the batches."""
        labels = self._data.labels if self._labelled else None
        local, size = self._replicas.local, self._batch_size // self._replicas.count
        if not self._augment:
            self._teacher.ask_once(self._data, self._progress)
        batches = epoch_batches(
            self._data.inputs,
            self._batch_size,
            self._augment,
            seed=self._settings.seed,
            epoch=number,
            done=done,
            rows=slice(size * local[0], size * (local[-1] + 1)),
        )
        for index, inputs in ahead(batches) if self._data.on_disk else batches:
            parts = [slice(size * place, size * (place + 1)) for place in range(len(local))]
            yield self._teacher.lessons(
                [
                    Share(
                        index[part],
                        [array[part] for array in inputs],
                        None if labels is None else labels[index[part]],
                    )
                    for part in parts
                ]
            )


def _not_finite(shares: Sequence[Sequence[Any]]) -> str:
    """Count the samples of a batch with values that are not finite; empty where there are none."""
    for array in (array for arrays in shares for array in arrays):
        broken = sum(not np.isfinite(sample).all() for sample in np.asarray(array))
        if broken:
            return f"{broken} of the batch's {len(array)} samples"
    return ""


def _check_shares(batch_size: int, count: int) -> None:
    """Refuse a batch that cannot be shared.

    Raises:
        InputError: If the shares would differ.
    """
    if batch_size % count:
        raise InputError(
            f"a batch of {batch_size} samples cannot be shared equally by {count} devices.",
            f"Try: --batch-size {count * max(batch_size // count, 1)}",
            code="bad-setting",
        )
