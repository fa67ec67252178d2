"""Which way each weight of an int8 file is rounded: as the outputs want it, not to the nearest.

AdaRound (Nagel et al., arXiv:2004.10568) showed that rounding to the nearest is not best. Here the
rounded network is trained on the calibration images by the answers of the float one, all layers
together, and no weight leaves the two steps around what it was. Each channel keeps its scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.keras_weights import give_weights
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent
from dsconvert.converter.backends.keras.composed import ComposedModel
from dsconvert.converter.backends.keras.copying import copy_layer
from dsconvert.converter.backends.keras.fake_quantized import FakeQuantized
from dsconvert.converter.backends.keras.quantizable import has_kernel
from dsconvert.converter.backends.keras.read import is_depthwise
from dsconvert.converter.calibration import split
from dsconvert.models.training.refine import RefineSettings, refine
from dsconvert.models.training.student_copy import bare

from .keras_source import KerasSource

if TYPE_CHECKING:
    import keras

RATE = 3e-4
"""Highest learning rate, a share of each kernel's root mean square; a step of int8 is about a
hundred times as large. At 5e-3 the int8 error of trained networks rose."""
_LARGEST = 127


@dataclass(frozen=True)
class RoundingSearch:
    """Finds how to round the weights of a Keras model.

    Attributes:
        settings: How long, and the seed.
        progress: Told of each step.
    """

    settings: RefineSettings
    progress: Progress = silent

    def __call__(
        self, source: KerasSource, calibration: Sequence[Array]
    ) -> tuple[KerasSource | None, str]:
        """Return the source with weights that round so; its reference stays what it was.

        Args:
            source: The model.
            calibration: One array per input, (n, ...): the ranges of activations come from them,
                and a fifth of them decides whether the result is kept.

        Returns:
            The new source, or None where nothing was gained, and what was done.

        Raises:
            InputError: If the model has layers whose rounding is not known, or there is but one
                image.
        """
        import keras

        if len(calibration[0]) < 2:
            raise InputError(
                "one calibration image cannot both choose how weights are rounded and judge it.",
                "Give more images, or leave --refine-int8 out.",
                code="no-images-to-refine-on",
            )
        names = source.output_names
        model = keras.models.clone_model(source.model, clone_function=copy_layer, recursive=True)
        give_weights(model, source.model.get_weights())
        model(list(model.inputs))  # Keras exports no model that was never called
        student = _Rounded(_flat(model, names), calibration)
        reference = _flat(source.reference, names)
        teacher = ComposedModel(reference, reference)  # as it is: it has no blocks of its own
        images = split(calibration, self.settings.seed)
        done = refine(
            student, teacher, images.inputs, images.held_out, self.settings, progress=self.progress
        )
        after = "not finite" if done.error_after is None else f"{done.error_after:.4g}"
        told = (
            f"rounding of weights found by {done.steps} steps on the calibration images (output "
            f"error in int8 {done.error_before:.4g}, then {after})"
        )
        return (replace(source, model=model), told) if done.kept else (None, f"{told} not kept")


def _flat(model: Any, names: Sequence[str]) -> Any:
    """Return the model with a list of outputs in the place of the dictionary; its layers are it."""
    import keras

    return keras.Model(bare(model.inputs), bare([model.output[name] for name in names]))


class _Rounded:
    """A model in int8 whose kernels are trained, each weight within a step of what it was."""

    def __init__(self, model: Any, calibration: Sequence[Array]) -> None:
        self.model = model
        self._network = FakeQuantized(model, calibration)
        operations = {id(step.operation): step.operation for step in self._network.graph.steps}
        layers = [layer for layer in operations.values() if has_kernel(layer)]
        for layer in layers:
            layer.kernel.constraint = _within_a_step(layer)
        self.variables = [layer.kernel for layer in layers]
        self.states, self.calibrate = self._network.states, self._network.calibrate
        self.run, self.answer = self._network.run, self._network.answer


def _within_a_step(layer: Any) -> keras.constraints.Constraint:
    """Return what brings a kernel back to within a step of int8 of what it is now.

    The largest weight of each output channel, which gives the channel its scale, stays.
    """
    import keras

    start = np.asarray(layer.kernel)
    inner = (0, 1) if is_depthwise(layer) else tuple(range(start.ndim - 1))
    largest = np.abs(start).max(axis=inner, keepdims=True)
    step = np.where(np.abs(start) < largest, largest / _LARGEST, 0)
    low, high = np.maximum(start - step, -largest), np.minimum(start + step, largest)

    class WithinAStep(keras.constraints.Constraint):  # type: ignore[misc]
        def __call__(self, kernel: Any) -> Any:
            return keras.ops.clip(kernel, low, high)

    return WithinAStep()
