"""The value of a metric with its interval."""

from __future__ import annotations

import dataclasses
import math

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import wilson

from .metric import Answers, Metric, MetricValue, NoValue, Statistic
from .statistics import Mean

_SEED = 0
_SHARE = 0.95


def value_of(metric: Metric, answers: Answers, *, interval: bool = True) -> MetricValue:
    """Compute a metric on a model's outputs.

    Args:
        metric: The metric.
        answers: The outputs, and what is right.
        interval: Whether to compute the 95 % interval: Wilson's for shares of right samples, else
            the percentile bootstrap over samples (Efron and Tibshirani, 1993, chapter 13).

    Raises:
        InputError: If labels or outputs are not what the metric takes.
    """
    _check_needs(metric, answers)
    count = len(answers.inputs[0])
    found = MetricValue(
        name=metric.told,
        title=metric.title,
        unit=metric.unit,
        larger_is_better=metric.larger_is_better,
        value=None,
        samples=count,
    )
    replace = msgspec.structs.replace
    outputs = tuple(output for output in answers.outputs if output.shape[:1] == (count,))
    if not outputs:
        return replace(found, reason="no output has one row per sample")
    answers = dataclasses.replace(answers, outputs=outputs)
    try:
        statistic = metric.measure(answers, metric.settings)
        value = statistic.of(np.arange(count))
    except NoValue as error:
        return replace(found, reason=str(error))
    if not math.isfinite(value):
        broken = not all(np.isfinite(output).all() for output in answers.outputs)
        return replace(
            found, reason="some outputs are not finite" if broken else "the value is not finite"
        )
    found = replace(found, value=value)
    if not interval or count < 2:
        return found
    if isinstance(statistic, Mean) and statistic.binary:
        share = wilson(int(statistic.scores.sum()), count)
        return replace(found, low=share.low, high=share.high, interval="wilson")
    low, high = _bootstrap(statistic, count)
    return replace(found, low=low, high=high, interval="bootstrap")


def _bootstrap(statistic: Statistic, count: int) -> tuple[float | None, float | None]:
    """Return the percentiles of the statistic over draws of as many samples, with replacement."""
    generator = np.random.default_rng(_SEED)
    drawn = [statistic.of(generator.integers(0, count, count)) for _ in range(statistic.resamples)]
    values = np.array(drawn)[np.isfinite(drawn)]
    if not len(values):
        return None, None
    tail = (1 - _SHARE) / 2
    return float(np.quantile(values, tail)), float(np.quantile(values, 1 - tail))


def _check_needs(metric: Metric, answers: Answers) -> None:
    if "labels" in metric.needs:
        _ = answers.truth
    if "reference" in metric.needs and answers.references is None:
        raise InputError(
            f"the metric {metric.name} compares a model with a reference, and none is given.",
            "Add --reference MODEL.",
            code="needs-reference",
        )
