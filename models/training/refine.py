"""A minute of label-free distillation on the calibration images themselves.

A rewritten network was fitted layer by layer. Here all layers are moved together, by the original's
answers (Hinton et al., arXiv:1503.02531) and by what it computes inside, on mixtures (Zhang et al.,
arXiv:1710.09412), flips, crops and changes of brightness of the same images. Two things decide:

- Adam's step is scaled by each tensor's size at the start. Steps of one size for all first damage
  what was fitted.
- Images that nothing was fitted to decide whether the result is kept.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np

from dsconvert.base import fidelity
from dsconvert.base.errors import InputError, require
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Advance, Progress, silent

from ..evaluation.keras_predictor import KerasPredictor
from .batches import augmentation, moved
from .distill import Objective, objectives

log = logging.getLogger(__name__)

TIMED = 20
"""Steps that are timed to find how many fit into the seconds."""
_WARMUP = 0.05
_SMALLEST = 1e-3
"""A tensor of zeros would otherwise not move at all."""


class RefineSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to refine.

    Attributes:
        seconds: How long; 20 steps are timed, and as many are taken as fit.
        steps: How many steps instead, which gives the same weights each time.
        batch_size: Images per step.
        learning_rate: The highest rate, a share of each tensor's root mean square.
        temperature: Of the soft targets of classes.
        feature_weight: How much the values inside count beside the outputs, for photographs.
        seed: Seeds the order, the augmentation and the mixtures.

    Raises:
        InputError: If a value is out of range.
    """

    seconds: float = 60.0
    steps: int | None = None
    batch_size: int = 32
    learning_rate: float = 2e-3
    temperature: float = 4.0
    feature_weight: float = 2.5
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
        error_after: The same after the last step; None if it was not finite or not reached.
        kept: Whether the new weights were kept.
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


class FeatureNetwork(Protocol):
    """A Keras model as it is trained."""

    @property
    def model(self) -> Any:
        """The model, whose weights are trained."""

    @property
    def variables(self) -> Sequence[Any]:
        """Return what may be trained."""

    def run(self, inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Compute the outputs and the features, which all such networks have in common."""


def refine(
    student: FeatureNetwork,
    teacher: FeatureNetwork,
    inputs: Sequence[Array],
    held_out: int,
    settings: RefineSettings | None = None,
    *,
    progress: Progress = silent,
) -> Refinement:
    """Train the student on its teacher's answers; keep that only if held-out images say so.

    The weights of the student's model change, or are what they were. An interrupt from the keyboard
    ends the training and leaves them as they were.

    Args:
        student: The rewritten network.
        teacher: The network it was made from.
        inputs: One array per input, (n, ...).
        held_out: How many of the last samples are kept out of the training, at least 1.
        settings: See `RefineSettings`.
        progress: Told of each step.
    """
    require("tensorflow", "keras", "to refine")
    settings = settings or RefineSettings()
    started = time.perf_counter()
    fitted = len(inputs[0]) - held_out
    unseen = [array[fitted:] for array in inputs]
    expected = KerasPredictor(teacher.model).predict(unseen)

    def judge() -> float:
        return fidelity.output_error(expected, KerasPredictor(student.model).predict(unseen))

    before, begun = judge(), student.model.get_weights()
    goals = objectives(teacher.model, expected, settings.temperature, 0.0)
    training = _Training(student, teacher, goals, [array[:fitted] for array in inputs], settings)
    after, kept, interrupted, steps = math.inf, False, False, 0
    try:
        steps = settings.steps or training.steps_within(settings.seconds)
        with progress("Refining", steps) as advance:
            training.take(steps, advance)
        after = judge()
        kept = after < before
    except KeyboardInterrupt:
        interrupted = True
    finally:
        if not kept:
            student.model.set_weights(begun)
    log.info("refined for %d steps: output error %.4g, then %.4g", steps, before, after)
    return Refinement(
        steps=steps,
        seconds=time.perf_counter() - started,
        error_before=before,
        error_after=after if math.isfinite(after) else None,
        kept=kept,
        held_out_images=held_out,
        interrupted=interrupted,
    )


class _Training:
    """The steps: what they do depends on the settings and on their number alone."""

    def __init__(
        self,
        student: FeatureNetwork,
        teacher: FeatureNetwork,
        goals: Sequence[Objective],
        inputs: Sequence[Array],
        settings: RefineSettings,
    ) -> None:
        self.inputs, self.settings = inputs, settings
        fixed = student.model.inputs[0].shape[0]
        self.batch_size = fixed or min(settings.batch_size, len(inputs[0]))
        self.images = _Images(inputs)
        self.optimizer = _RelativeAdam(student.variables)
        weight = settings.feature_weight if self.images.photographs else 0.0
        self._step = _compiled(student, teacher, goals, weight, self.optimizer)

    def steps_within(self, seconds: float) -> int:
        """Take some steps, which count for nothing, and tell how many more fit."""
        begun = time.perf_counter()
        self._run(2, 2, lambda: None)  # traced now
        traced = time.perf_counter()
        self._run(TIMED, TIMED, lambda: None)
        now = time.perf_counter()
        each = (now - traced) / TIMED
        return max(int((seconds - (now - begun)) / each), TIMED)

    def take(self, steps: int, advance: Advance) -> None:
        """Begin anew, and take all steps."""
        self._run(steps, steps, advance)

    def _run(self, steps: int, total: int, advance: Advance) -> None:
        self.optimizer.restart()
        rng = np.random.default_rng(self.settings.seed)
        order = np.empty(0, np.int64)
        for number in range(steps):
            while len(order) < self.batch_size:
                order = np.concatenate([order, rng.permutation(len(self.inputs[0]))])
            rows, order = order[: self.batch_size], order[self.batch_size :]
            rate = self.settings.learning_rate * _share(number, total)
            self._step(self.images.batch(rows, rng), np.float32(rate))
            advance()


def _share(number: int, total: int) -> float:
    """The share of the highest rate: a linear rise, then a cosine to zero."""
    warm = max(int(_WARMUP * total), 1)
    if number < warm:
        return (number + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (number - warm) / max(total - warm, 1)))


class _Images:
    """Draws batches of changed images.

    Attributes:
        photographs: Whether they are photographs, by their three channels. Only these are flipped,
            cropped and made darker. Of what is always centred, as digits are, the network would
            learn what it never sees: on these the held-out error rose.
    """

    def __init__(self, inputs: Sequence[Array]) -> None:
        self.inputs = inputs
        self.mixes = all(np.issubdtype(array.dtype, np.floating) for array in inputs)
        self.photographs = "flip" in augmentation(inputs, None)
        self.spread = [float(array.std()) if self.mixes else 0.0 for array in inputs]

    def batch(self, rows: Array, rng: np.random.Generator) -> tuple[Array, ...]:
        """Return some of the samples: moved, of other brightness and contrast, and mixed."""
        count = len(rows)
        found = tuple(array[rows] for array in self.inputs)
        if not self.mixes:
            return found
        if self.photographs:
            found = moved(found, ("flip", "crop"), rng)
        gain, shift = rng.uniform(0.8, 1.2, count), rng.uniform(-0.2, 0.2, count)
        share, other = rng.uniform(0, 0.5, count), rng.permutation(count)

        def change(array: Array, spread: float) -> Array:
            def each(values: Array) -> Array:
                return values.reshape(-1, *[1] * (array.ndim - 1)).astype(np.float32)

            if array.ndim == 4 and self.photographs:
                array = array * each(gain) + each(shift * spread)
            return np.asarray(array + each(share) * (array[other] - array), np.float32)

        return tuple(map(change, found, self.spread))


class _RelativeAdam:
    """Adam whose step is a share of the root mean square that each tensor had at the start."""

    def __init__(self, variables: Sequence[Any]) -> None:
        import tensorflow as tf

        self.variables = variables
        values = [np.asarray(variable) for variable in variables]
        self.sizes = [max(float(np.sqrt(np.mean(v**2))), _SMALLEST) for v in values]
        self.first = [tf.Variable(np.zeros_like(v), trainable=False) for v in values]
        self.second = [tf.Variable(np.zeros_like(v), trainable=False) for v in values]
        self.count = tf.Variable(0.0, trainable=False)
        self.begun = values

    def restart(self) -> None:
        """Forget all steps, and go back to where they began."""
        for variable, value in zip(self.variables, self.begun, strict=True):
            variable.assign(value)
        for moment in (*self.first, *self.second):
            moment.assign(np.zeros(moment.shape, np.float32))
        self.count.assign(0.0)

    def apply(self, gradients: Sequence[Any], rate: Any) -> None:
        """Take one step; traced into a graph."""
        import tensorflow as tf

        self.count.assign_add(1.0)
        fade = [1 - tf.pow(beta, self.count) for beta in (0.9, 0.999)]
        for variable, gradient, size, first, second in zip(
            self.variables, gradients, self.sizes, self.first, self.second, strict=True
        ):
            if gradient is None:
                continue
            first.assign(0.9 * first + 0.1 * gradient)
            second.assign(0.999 * second + 0.001 * tf.square(gradient))
            step = (first / fade[0]) / (tf.sqrt(second / fade[1]) + 1e-8)
            variable.assign(variable - rate * size * step)


def _compiled(
    student: FeatureNetwork,
    teacher: FeatureNetwork,
    goals: Sequence[Objective],
    feature_weight: float,
    optimizer: _RelativeAdam,
) -> Callable[[tuple[Array, ...], Any], Any]:
    """Return one training step as a graph of TensorFlow."""
    import tensorflow as tf

    ask = tf.function(teacher.run, autograph=False, jit_compile=False)

    def step(images: Any, targets: Any, inside: Any, rate: Any) -> None:
        with tf.GradientTape() as tape:
            outputs, features = student.run(images)
            loss = tf.add_n(
                [
                    tf.reduce_mean(goal.loss(target, output))
                    for goal, target, output in zip(goals, targets, outputs, strict=True)
                ]
            )
            for ours, theirs in zip(features, inside, strict=True):
                size = tf.reduce_mean(tf.square(theirs)) + 1e-12
                gap = tf.reduce_mean(tf.square(ours - theirs)) / size
                loss += feature_weight * gap
        variables = [variable.value for variable in optimizer.variables]
        optimizer.apply(tape.gradient(loss, variables), rate)

    train = tf.function(step, autograph=False, jit_compile=False)

    def run(images: tuple[Array, ...], rate: Any) -> None:
        given = [tf.constant(image) for image in images]
        answers, inside = ask(given)
        targets = [
            tf.constant(goal.targets(answer.numpy(), None))
            for goal, answer in zip(goals, answers, strict=True)
        ]
        train(given, targets, inside, tf.constant(rate))

    return run
