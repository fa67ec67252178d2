"""Whether the rebuilt model computes what was fitted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.base.finite import check_answers
from dsconvert.base.output_fidelity.group_error import group_noise
from dsconvert.base.predictor import Array

from .backends.backend import Backend
from .core.stages import Stages

IMAGES = 4
TOLERANCE = 1e-3
"""The fit ran each layer as one convolution, the model runs its pairs: float32 rounding differs."""
NARROW_TOLERANCE = 0.1
"""The same where layers compute in 16 bits."""


def check_rebuilt(rebuilt: Backend, inputs: Sequence[Array], expected: Sequence[Array]) -> None:
    """Run a few images through the rewritten model and compare.

    Args:
        rebuilt: The rewritten model.
        inputs: One array per input, (n, ...).
        expected: One array per output, (n, ...): what the fit came to.

    Raises:
        InputError: If the model itself is at fault: what the fit came to is not finite, or what it
            gives for an image depends on the others of a batch.
        GateFailed: If an output differs by more than rounding.
    """
    names = [f"output {number}" for number, _ in enumerate(expected, 1)]
    check_answers(names, expected, who="the model", on="the calibration data")
    stages = rebuilt.stages((), inputs, refit=False)
    count = stages.batch_size or IMAGES
    if len(inputs[0]) < count:
        return
    given = {v: array[:count] for v, array in zip(stages.inputs, inputs, strict=True)}
    outputs = _computed(stages, given)
    echoes = _computed(stages, {v: _nudged(array) for v, array in given.items()})
    for value, wanted in zip(stages.outputs, expected, strict=True):
        error = _error(wanted[:count], outputs[value])
        tolerance = NARROW_TOLERANCE if rebuilt.narrow else TOLERANCE
        # A network that makes much of little, as recurrent ones may, does so with rounding too.
        echo = _error(outputs[value], echoes[value])
        tolerance = max(tolerance, 10 * echo if math.isfinite(echo) else 0.0)
        if not error <= tolerance and _are_places(wanted):
            # Places of a MaxPool's largest values count on from one image of a batch to the next.
            error = _error(_from_zero(wanted[:count]), _from_zero(outputs[value]))
        if not error <= tolerance:
            _refuse_joined(stages, given, outputs, tolerance)
            raise GateFailed(
                f"the rewritten model's output differs by {error:.2g} (relative) from what was "
                f"fitted; at most {tolerance:.2g} is rounding.",
                "Please report this as a bug, with the model. Meanwhile --exclude its layers.",
                code="outputs-differ",
            )


def _computed(stages: Stages, given: Mapping[int, Array]) -> dict[int, Array]:
    """Run the network one image after the other: what is computed of several may be large."""
    count = len(next(iter(given.values())))
    size = stages.batch_size or 1
    parts = []
    for start in range(0, count, size):
        part = {value: array[start : start + size] for value, array in given.items()}
        parts.append(part | stages.run(0, part))
    return {value: np.concatenate([part[value] for part in parts]) for value in parts[0]}


def _refuse_joined(
    stages: Stages, given: Mapping[int, Array], alone: Mapping[int, Array], tolerance: float
) -> None:
    """Refuse a network that gives something else for an image among others.

    Raises:
        InputError: If it does.
    """
    if stages.batch_size:
        return
    together = stages.run(0, given)
    for value in stages.outputs:
        joined = given.get(value, together.get(value))
        if joined is not None and not _error(alone[value], joined) <= tolerance:
            raise InputError(
                "what the model gives for an image depends on the others of its batch, as where a "
                "mean or a softmax is taken over the first axis: nothing can be fitted to images.",
                "Use --method svd, which needs no data, or take the axis of the values instead.",
                code="samples-not-independent",
            )


def _error(wanted: Array, got: Array) -> float:
    """Return the relative error of the worst group of channels of like scale."""
    return math.sqrt(max(group_noise(wanted, got), default=0.0))


def _are_places(values: Array) -> bool:
    """Tell whether an output is of several whole numbers for each image, whatever holds them."""
    return values[0].size > 1 and bool(np.all(values == np.rint(values)))


def _from_zero(places: Array) -> Array:
    """Return whole numbers less the least one of each image."""
    axes = tuple(range(1, places.ndim))
    return np.asarray(places - places.min(axis=axes, keepdims=True))


def _nudged(array: Array) -> Array:
    """Return the same within a few roundings; whole numbers stay."""
    if array.dtype.kind != "f":
        return array
    noise = np.random.default_rng(0).standard_normal(array.shape)
    return np.asarray(array * (1 + 1e-6 * noise), array.dtype)
