"""A metric of the user's own, named as "module:function"."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsconvert.base.errors import InputError

from ...user_code import import_named, users_code
from .metric import Answers, Indices, Metric, Settings, Statistic
from .statistics import Mean


def user_metric(text: str) -> Metric:
    """Import a function (inputs, outputs, labels) → number, and make a metric of it.

    The function gets one array (n, ...) per input and per output, in tuples, and the labels or
    None. A number is the metric itself, an array (n,) the figure of each sample, whose mean is
    meant. Larger is better unless the function has an attribute ``larger_is_better = False``.

    Args:
        text: "module:function".

    Raises:
        InputError: If it cannot be imported or called.
    """
    try:
        with users_code():
            function = import_named(text)
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"--metric {text}: {type(error).__name__}: {error}",
            "Write a function (inputs, outputs, labels) that returns a number.",
            code="metric-not-imported",
        ) from error
    if not callable(function):
        raise InputError(
            f"--metric {text} names a {type(function).__name__}, a function is required.",
            code="metric-not-imported",
        )

    def measure(answers: Answers, settings: Settings) -> Statistic:
        del settings
        return _measured(text, function, answers)

    return Metric(
        name=text,
        title=text.partition(":")[2],
        unit="",
        needs=(),
        measure=measure,
        about="a function of the user's",
        larger_is_better=bool(getattr(function, "larger_is_better", True)),
    )


def _measured(text: str, function: Callable[..., Any], answers: Answers) -> Statistic:
    """Call the function on all samples once, to see whether it gives one figure or n."""
    given = _call(text, function, answers, None)
    if given.shape == (len(answers.inputs[0]),):
        return Mean(given)
    if given.shape != ():
        raise InputError(
            f"--metric {text} returned an array of shape {given.shape}; allowed: a number, or one "
            f"for each of the {len(answers.inputs[0])} samples.",
            code="metric-not-a-number",
        )
    return _Calls(text, function, answers, float(given))


@dataclass(frozen=True)
class _Calls:
    """A function that is called anew for each draw."""

    text: str
    function: Callable[..., Any]
    answers: Answers
    value: float
    resamples: int = 100

    def of(self, index: Indices) -> float:
        """Call the function on these samples."""
        if np.array_equal(index, np.arange(len(self.answers.inputs[0]))):
            return self.value
        return float(_call(self.text, self.function, self.answers, index))


def _call(text: str, function: Callable[..., Any], answers: Answers, index: Any) -> Any:
    """Return what the function gives for some samples as an array of float64.

    It gets copies: what it computes in place would be the next model's inputs and answers.
    """
    chosen = slice(None) if index is None else index
    labels = answers.labels
    try:
        with users_code():
            given = function(
                tuple(np.array(array[chosen]) for array in answers.inputs),
                tuple(np.array(array[chosen]) for array in answers.outputs),
                None if labels is None else np.array(labels[chosen]),
            )
        return np.asarray(given, np.float64)
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"--metric {text} failed: {type(error).__name__}: {error}",
            "The function takes (inputs, outputs, labels) and returns a number.",
            code="metric-failed",
        ) from error
