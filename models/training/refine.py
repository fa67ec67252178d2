"""A minute of label-free distillation on the calibration images themselves.

A rewritten network was fitted layer by layer. Here all layers are moved together, by the original's
answers (Hinton et al., arXiv:1503.02531) and by what it computes inside, on mixtures (Zhang et al.,
arXiv:1710.09412), flips, crops and changes of brightness of the same images. Two things decide:

- Steps are shares of each tensor's size (`soap.py`).
- Images that nothing was fitted to decide whether the result is kept. Where it went too far,
  weights on the way to it are tried (Wortsman et al., arXiv:2109.01903), then a gentler run.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any, Protocol

import msgspec
import numpy as np

from dsconvert.base import fidelity
from dsconvert.base.errors import InputError, require
from dsconvert.base.finite import check_answers
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Advance, Progress, silent

from ..evaluation.keras_predictor import KerasPredictor
from .batches import augmentation_of_few, epoch_batches
from .distill import Objective, objectives
from .network import Network, answering
from .soap import relative_soap
from .step import Steps
from .step_sizes import feature_weight, share_of_rate
from .teacher import Share, TeacherAnswers, Watched, compares_features

log = logging.getLogger(__name__)

WAYS = (1.0, 0.75, 0.5, 0.25)
"""Shares of the way from the fitted weights to the trained ones: the first that is better is taken.

Not the best of them: of 20 held-out images chance would choose.
"""
GENTLER = 0.25
"""Of the rate: for a second run of half as many steps, where nothing on the way was better."""
TIMED = 20
"""Steps that are timed to find how many fit into the seconds."""


class RefineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to refine.

    Attributes:
        seconds: How long; 20 steps are timed, and as many are taken as fit.
        steps: How many steps instead, which gives the same weights each time.
        batch_size: Images per step.
        learning_rate: The highest rate, a share of each tensor's root mean square.
        temperature: Of the soft targets of classes.
        seed: Seeds the order, the augmentation and the mixtures.

    Raises:
        InputError: If a value is out of range.
    """

    seconds: float = 60.0
    steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 4e-3
    temperature: float = 4.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no time."""
        if not (0 < self.seconds < math.inf) or (self.steps is not None and self.steps < 1):
            raise InputError(
                f"cannot refine for {self.seconds:g} s or {self.steps} steps.",
                "Give a positive number; --refine 0 leaves the refinement out.",
                code="out-of-range",
            )


class Refinement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a refinement came to.

    Attributes:
        steps: How many were taken.
        seconds: How long all of it took.
        error_before: Output error on the held-out images: KL of class distributions in nats,
            squared relative error of other outputs, summed.
        error_after: The same of the weights that were taken, or, where none were, of those after
            the last step; None if it was not finite or not reached.
        kept: Whether the new weights were kept.
        way: The share of the way from the fitted weights to those after the last step at which the
            taken ones lie.
        gentler: Whether they are those of a second run, at a quarter of the rate.
        held_out_images: How many images decided that.
        interrupted: Whether it was stopped before its end.
    """

    steps: int
    seconds: float
    error_before: float
    error_after: float | None
    kept: bool
    held_out_images: int
    interrupted: bool = False
    way: float = 1.0
    gentler: bool = False


class Trainable(Network, Protocol):
    """A network that is trained in its place."""

    @property
    def model(self) -> Any:
        """The Keras model, whose weights are trained."""

    @property
    def variables(self) -> Sequence[Any]:
        """Return what may be trained."""


def refine(
    student: Trainable,
    teacher: Trainable,
    inputs: Sequence[Array],
    held_out: int,
    settings: RefineSettings | None = None,
    *,
    progress: Progress = silent,
) -> Refinement:
    """Train the student on its teacher's answers; keep that only if held-out images say so.

    The weights of the student's model change, or are what they were. An interrupt from the keyboard
    ends the training and leaves them as they were. What is trained in rounded form is judged so.

    Args:
        student: The rewritten network.
        teacher: The network it was made from.
        inputs: One array per input, (n, ...).
        held_out: How many of the last samples are kept out of the training, at least 1.
        settings: See `RefineSettings`.
        progress: Told of each step.

    Raises:
        InputError: If the teacher gives NaN or infinity.
    """
    require("tensorflow", "keras", "to refine")
    settings = settings or RefineSettings()
    started = time.perf_counter()
    fitted = len(inputs[0]) - held_out
    unseen = [array[fitted:] for array in inputs]
    original = KerasPredictor(teacher.model)
    expected = original.predict(unseen)
    check_answers(original.output_names, expected, who="the model", on="the samples given")

    judged = answering(student.model, student)

    def judge() -> float:
        return fidelity.output_error(expected, judged.predict(unseen))

    before, begun = judge(), student.model.get_weights()
    goals = objectives(teacher.model, expected, settings.temperature, 0.0)
    training = _Training(student, teacher, goals, [array[:fitted] for array in inputs], settings)
    after, way, gentler, kept, interrupted, steps = math.inf, 1.0, False, False, False, 0
    try:
        steps = settings.steps or training.steps_within(settings.seconds)
        with progress("Refining", steps) as advance:
            training.take(steps, advance)
        after, way = first_better(student.model, begun, before, judge)
        if not after < before:
            again, gentler = max(steps // 2, 1), True
            with progress("Refining in smaller steps", again) as advance:
                training.take(again, advance, GENTLER)
            after, way = first_better(student.model, begun, before, judge)
        kept = after < before
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if not kept:
            student.model.set_weights(begun)
    log.info(
        "refined for %d steps%s: output error %.4g, then %.4g at %g of the way",
        steps, " and again in smaller ones" if gentler else "", before, after, way,
    )  # fmt: skip
    return Refinement(
        steps=steps,
        seconds=time.perf_counter() - started,
        error_before=before,
        error_after=after if math.isfinite(after) else None,
        kept=kept,
        held_out_images=held_out,
        interrupted=interrupted,
        way=way,
        gentler=gentler,
    )


def first_better(
    model: Any, begun: Sequence[Array], before: float, judge: Callable[[], float]
) -> tuple[float, float]:
    """Go back from the weights that a model has to those at the start until they are better.

    Args:
        model: A Keras model; gets the weights that are returned about.
        begun: Its weights at the start.
        before: Their error.
        judge: Returns the error of the weights that the model has.

    Returns:
        The error of the first weights that are better than those at the start, and their share of
        the way; if there are none, of those at the end.
    """
    ended, errors = model.get_weights(), []
    for way in WAYS:
        model.set_weights([_between(a, b, way) for a, b in zip(begun, ended, strict=True)])
        errors.append(judge())
        if errors[-1] < before:
            return errors[-1], way
    model.set_weights(ended)
    return errors[0], WAYS[0]


def _between(begun: Array, ended: Array, way: float) -> Array:
    """Return what lies at a share of the way; what is no fraction, as a count, is the end's."""
    if way == 1 or not np.issubdtype(ended.dtype, np.floating):
        return ended
    between: Array = begun + np.asarray(way, ended.dtype) * (ended - begun)
    return between


class _Training:
    """The steps: what they do depends on the settings and on their number alone."""

    def __init__(
        self,
        student: Trainable,
        teacher: Trainable,
        goals: Sequence[Objective],
        inputs: Sequence[Array],
        settings: RefineSettings,
    ) -> None:
        self._inputs, self._settings = inputs, settings
        fixed = student.model.inputs[0].shape[0]
        self._batch_size = fixed or min(settings.batch_size, len(inputs[0]))
        self._augment = augmentation_of_few(inputs)
        self._variables = student.variables
        self._optimizer = relative_soap(self._variables)
        self._begun = [np.asarray(variable) for variable in self._state()]
        self._steps = Steps(student, goals, self._optimizer, self._variables)
        if compares_features(inputs, goals):
            self._teacher: Watched | TeacherAnswers = Watched(teacher, teacher.model, goals)
        else:
            self._teacher = TeacherAnswers(teacher.model, goals, self._batch_size)

    def steps_within(self, seconds: float) -> int:
        """Take some steps, which count for nothing, and tell how many more fit."""
        begun = time.perf_counter()
        self._run(2, lambda: None)  # traced now
        traced = time.perf_counter()
        self._run(TIMED, lambda: None)
        now = time.perf_counter()
        each = (now - traced) / TIMED
        return max(int((seconds - (now - begun)) / each), TIMED)

    def take(self, steps: int, advance: Advance, share: float = 1.0) -> None:
        """Begin anew, and take all steps at a share of the rate."""
        self._run(steps, advance, share)

    def _state(self) -> list[Any]:
        return [*self._variables, *self._optimizer.variables]

    def _run(self, steps: int, advance: Advance, share: float = 1.0) -> None:
        for variable, value in zip(self._state(), self._begun, strict=True):
            variable.assign(value)
        for number, (index, inputs) in enumerate(islice(self._batches(), steps)):
            now = share_of_rate(number, steps)
            rate = share * self._settings.learning_rate * now
            lessons = self._teacher.lessons([Share(index, inputs)])
            self._steps.take(lessons, rate, feature_weight(steps) * now)
            advance()

    def _batches(self) -> Iterator[tuple[Array, tuple[Array, ...]]]:
        for epoch in count(1):
            yield from epoch_batches(
                self._inputs,
                self._batch_size,
                self._augment,
                seed=self._settings.seed,
                epoch=epoch,
            )
