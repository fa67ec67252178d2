"""The record of a task metric: what it is called, what it needs, and how it is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array

Indices = NDArray[np.intp]
Unit = Literal["share", "dB", ""]
"""Of a value: a share of 1, decibels, or that of the labels."""
Need = Literal["labels", "reference"]


class NoValue(Exception):
    """These data give no value; the text says why."""


@dataclass(frozen=True)
class Answers:
    """What a model gave for some samples, and what is right.

    Attributes:
        inputs: One array per input, (n, ...), as the model takes them.
        outputs: One array per output, (n, ...).
        labels: Classes (n,), targets (n, ...) or boxes (n, m, 5); None where there are none.
        references: The outputs of the reference; None without one.
        source: Where the samples come from.
    """

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    labels: Array | None = None
    references: tuple[Array, ...] | None = None
    source: str = "memory"

    @property
    def truth(self) -> Array:
        """The labels.

        Raises:
            InputError: If there are none.
        """
        if self.labels is None:
            raise InputError(
                f"{self.source} has no labels, and this metric needs them.",
                "Name them y or y_test in the .npz file; for boxes without labels: --metric boxes "
                "--reference MODEL.",
                code="needs-labels",
            )
        return self.labels


class Statistic(Protocol):
    """A metric on all samples of some data, ready to be computed on any draw of them."""

    @property
    def resamples(self) -> int:
        """Tell how many draws an interval takes."""

    def of(self, index: Indices) -> float:
        """Compute the metric.

        Args:
            index: The samples, (n,); each may come several times.

        Returns:
            The value; NaN where these samples have none.
        """


Settings = Mapping[str, str]
Measure = Callable[[Answers, Settings], Statistic]


@dataclass(frozen=True)
class Metric:
    """A metric; `registry.METRICS` holds all that have a name.

    Attributes:
        name: What ``--metric`` calls it, e.g. "miou".
        title: Its name for people, e.g. "mIoU".
        unit: Of its values.
        needs: What it is computed from beside the outputs.
        measure: Looks at all samples once.
        about: What it is, in one line.
        larger_is_better: Whether it is.
        known: The settings that may follow the name, each with what it says.
        settings: Those that were given.
    """

    name: str
    title: str
    unit: Unit
    needs: tuple[Need, ...]
    measure: Measure
    about: str = ""
    larger_is_better: bool = True
    known: Mapping[str, str] = field(default_factory=dict)
    settings: Settings = field(default_factory=dict)

    def with_settings(self, words: list[str]) -> Metric:
        """Return the metric with settings such as "cxcywh" or "peak=255".

        Raises:
            InputError: If it knows no such setting.
        """
        parts = [word.partition("=") for word in words]
        given = {name: value for name, _, value in parts}
        unknown = [name for name in given if name not in self.known]
        if unknown:
            known = ", ".join(self.known) or "none"
            raise InputError(
                f"the metric {self.name} has no setting {unknown[0]!r}; allowed: {known}.",
                f"Write settings behind a slash: {self.name}/{next(iter(self.known), 'NAME')}",
                code="unknown-metric-setting",
            )
        return replace(self, settings=given)

    @property
    def told(self) -> str:
        """The name with its settings, as ``--metric`` takes it."""
        given = (f"{name}={value}" if value else name for name, value in self.settings.items())
        return "/".join((self.name, *given))


class MetricValue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A metric on some samples, with its 95 % interval.

    Attributes:
        name: The metric with its settings.
        title: Its name for people.
        unit: "share" of 1, "dB", or "" where it is that of the labels.
        larger_is_better: Whether it is.
        value: The figure; None where there is none.
        low: Lower end of the interval; None where there is no value, or a single sample.
        high: The upper end.
        interval: How it was found: resampled samples (bootstrap), or Wilson's for shares of
            samples that are right.
        samples: How many.
        reason: Why there is no value.
    """

    name: str
    title: str
    unit: Unit
    larger_is_better: bool
    value: float | None
    low: float | None = None
    high: float | None = None
    interval: Literal["bootstrap", "wilson"] | None = None
    samples: int
    reason: str = ""
