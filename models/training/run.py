"""A run of fine-tuning from its start, or its state, to its end."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

from dsconvert.base.errors import InputError
from dsconvert.base.finite import CAUSES
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress

from .checkpoint import Checkpoint, Keeper, Underway
from .interrupts import deferred
from .judge import Judge, best_epoch
from .replicas import WorkerLostError
from .settings import Epoch, FinetuneSettings
from .training import NotFiniteError, Trainer


class Run:
    """Trains epoch after epoch, judges each, and keeps the best and the state.

    Args:
        student: What is judged; it has the weights of epoch 0.
        trainer: Trains its copy.
        judge: Compares it with the teacher.
        keeper: Keeps the state.
        settings: See `FinetuneSettings`.
        callbacks: Keras callbacks.
        progress: Told of each step.

    Attributes:
        history: The epochs, epoch 0 first. The last one may be a part.
        best: The best weights.
        interrupted: Whether the run was stopped from outside.
    """

    def __init__(
        self,
        student: Any,
        trainer: Trainer,
        judge: Judge,
        keeper: Keeper,
        settings: FinetuneSettings,
        callbacks: Sequence[Any],
        progress: Progress,
    ) -> None:
        import keras

        self.history: list[Epoch] = []
        self.best: list[Array] = student.get_weights()
        self.interrupted = False
        self._student = student
        self._trainer = trainer
        self._judge = judge
        self._keeper = keeper
        self._settings = settings
        self._callbacks = keras.callbacks.CallbackList(list(callbacks), model=trainer.model)
        self._progress = progress
        self._underway = Underway()
        self._within_step = False
        self._ended = ""

    def go(self, saved: Checkpoint | None) -> None:
        """Train until the last epoch, or until something ends it.

        Args:
            saved: Where to go on.

        Raises:
            InputError: If the teacher's answers are not finite in the first epoch, which asks it
                about all samples; later only changed ones can be new to it, and that ends the run.
            KeyboardInterrupt: If nothing was trained yet.
        """
        if saved is None:
            self.history = [self._judge.epoch(0)]
        else:
            self.history, self.best = list(saved.history), saved.best
            self._underway = saved.underway
            self._trainer.restore(saved.trained, saved.optimizer)
        self._trainer.begin_at(self.history[0].output_error)
        try:
            if saved is None:
                self._keeper.save(self._checkpoint)
            self._callbacks.on_train_begin()
            while len(self.history) <= self._settings.epochs and not self._ended:
                self._epoch()
        except WorkerLostError:  # in the step after what is underway
            self._keeper.save(self._checkpoint)
            raise
        except KeyboardInterrupt:
            if len(self.history) == 1 and not self._underway.steps:
                raise
            self.interrupted = True
            self._end_within()
        finally:
            with self._trainer.averaged():
                self._callbacks.on_train_end()

    def notes(self) -> tuple[str, ...]:
        """Tell what a reader of the report should know."""
        last = self.history[-1]
        notes = [self._ended] if self._ended else []
        if self.interrupted:
            done = f"after {self._underway.steps} of {self._trainer.steps_per_epoch} steps"
            notes.append(f"interrupted in epoch {last.epoch} {done}")
        if best_epoch(self.history) == 0:
            notes.append(
                "no epoch came closer to the teacher than the student already was: its weights are "
                "unchanged"
            )
        if self._settings.learning_rate is None:
            rate = self._trainer.highest_rate
            notes.append(
                f"the learning rate rose to {rate:.2g}, by the output error at the start and the "
                "number of steps"
            )
        return tuple(notes)

    def _epoch(self) -> None:
        """Train, or go on with, one epoch, and judge it."""
        number, trainer, underway = len(self.history), self._trainer, self._underway
        self._callbacks.on_epoch_begin(number - 1)
        left = trainer.steps_per_epoch - underway.steps
        try:
            with (
                self._progress(self._label(number), left) as advance,
                deferred() as came,
                closing(trainer.steps(number, underway.steps)) as losses,
            ):
                for _ in range(left):
                    self._step(losses)
                    advance()
                    if trainer.anywhere(came()):
                        raise KeyboardInterrupt
        except NotFiniteError as error:
            if number == 1 and trainer.anywhere(error.by_teacher):
                raise InputError(
                    f"the teacher itself gives NaN or infinity on samples to train on: {error}, in "
                    f"step {underway.steps + 1} of {trainer.steps_per_epoch}.",
                    f"{CAUSES}, and leave out the samples that it has no answer to.",
                    code="not-finite",
                ) from error
            self._ended = (
                f"training broke off in epoch {number} at step {underway.steps + 1} of "
                f"{trainer.steps_per_epoch}: {error}"
            )
            with trainer.averaged():
                self._callbacks.on_epoch_end(number - 1, {"loss": float("nan")})
            self._end_within(broken=True)
            return
        epoch = self._judged(complete=True)
        with trainer.averaged():  # callbacks may save what was judged
            self._callbacks.on_epoch_end(number - 1, _logs(epoch, trainer.learning_rate))
        self._underway = Underway()
        self._keeper.save(self._checkpoint)
        if trainer.anywhere(bool(trainer.model.stop_training)) and number < self._settings.epochs:
            self._ended = f"a callback stopped the training after epoch {number}"

    def _step(self, losses: Any) -> None:
        """Take one step, and keep the state if the last one is old."""
        underway, started = self._underway, time.perf_counter()
        self._callbacks.on_train_batch_begin(underway.steps)
        self._within_step = True
        loss = next(losses)
        underway.steps += 1
        underway.loss_sum += loss
        underway.seconds += time.perf_counter() - started
        self._within_step = False
        self._callbacks.on_train_batch_end(underway.steps - 1, {"loss": loss})
        if self._keeper.due:
            self._keeper.save(self._checkpoint)

    def _end_within(self, *, broken: bool = False) -> None:
        """Judge what there is of an epoch; keep its state, unless that was broken off."""
        if self._underway.steps and not broken and not self._within_step:
            self._keeper.save(self._checkpoint)
        if self._underway.steps or broken:
            self._judged(complete=False, broken=broken)

    def _judged(self, *, complete: bool, broken: bool = False) -> Epoch:
        """Add the epoch as it is now to the history, and keep its weights if they are the best."""
        underway = self._underway
        weights = self._trainer.weights()
        self._student.set_weights(weights)
        epoch = self._judge.epoch(
            len(self.history),
            None if broken else underway.loss_sum / max(underway.steps, 1),
            seconds=underway.seconds,
            images=underway.steps * self._trainer.samples_per_step,
            complete=complete,
        )
        self.history.append(epoch)
        if best_epoch(self.history) == epoch.epoch:
            self.best = weights
        return epoch

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            tuple(self.history), self._underway, *self._trainer.state(), list(self.best)
        )

    def _label(self, number: int) -> str:
        """Name an epoch, with what the last one came to and the time that all of them need."""
        text = f"Epoch {number}/{self._settings.epochs}"
        last = self.history[-1]
        if last.output_error is not None:
            text += f", error {last.output_error:.3g}"
        if last.images_per_second is not None:
            left = (self._settings.epochs - number + 1) * last.seconds
            text += f", {last.images_per_second:.0f} images/s, {_time(left)} left"
        return text


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _logs(epoch: Epoch, learning_rate: float) -> dict[str, float]:
    """Return what callbacks are told of an epoch; Keras' own watch ``val_loss`` by default."""
    error = float("nan") if epoch.output_error is None else epoch.output_error
    return {
        "loss": float("nan") if epoch.loss is None else epoch.loss,
        "val_loss": error,
        "output_error": error,
        "learning_rate": learning_rate,
        "images_per_second": epoch.images_per_second or 0.0,
    }
