"""How much of a task metric may be lost."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dsconvert.base.messages import note
from dsconvert.base.number_words import real_number
from dsconvert.base.progress import Progress, silent

from . import formatting
from .data_for import data_for

if TYPE_CHECKING:
    from dsconvert.base.predictor import Predictor
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.data.preprocess import Preprocessing
    from dsconvert.models.evaluation.metrics import Metric, MetricValue

    from .data_for import DataSource
    from .model_files import ModelFile


@dataclass(frozen=True)
class AllowedDrop:
    """The most that may be lost of a metric.

    Attributes:
        amount: A part of the original's value, or in the metric's own unit.
        relative: Whether it is a part.
    """

    amount: float
    relative: bool

    def of(self, original: float) -> float:
        """Return the drop in the metric's unit.

        Args:
            original: The value of the original model.
        """
        return self.amount * abs(original) if self.relative else self.amount


def allowed_drop(drop: str | float, metric: Metric) -> AllowedDrop:
    """Read "1%" or "0.5".

    Of a metric that is a share, such as top-1 or mAP, 1% is a point: 0.01. Of others 1% is that
    part of the original's value, and a plain number is in the metric's unit: 0.5 dB of PSNR.

    Raises:
        InputError: If it is no drop.
    """
    from dsconvert.base.errors import InputError

    text = str(drop)
    percent = text.endswith("%")
    limited = percent or metric.unit == "share"
    found = real_number(text.removesuffix("%"))
    if found is not None and percent:
        found /= 100
    if found is None or not 0 <= found < (1 if limited else math.inf):
        raise InputError(
            f"{drop!r} is no drop of {metric.title}.",
            "Write it as 1% (a point of top-1; 1 % of what is no share).",
            code="not-a-drop",
        )
    return AllowedDrop(found, percent and metric.unit != "share")


class GoalJudge:
    """Measures models of one origin on the same data.

    Args:
        metric: What is measured.
        data: The samples.
        original: The model that the others are made from.
        progress: Told of each chunk of samples.

    Attributes:
        original: The original's value.

    Raises:
        InputError: If the original has no value on these data.
    """

    def __init__(
        self, metric: Metric, data: Data, original: Predictor, progress: Progress = silent
    ) -> None:
        from dsconvert.base.errors import InputError
        from dsconvert.models.evaluation.compare import predict_reference

        self.metric = metric
        self._data = data
        self._progress = progress
        self._references = predict_reference(original, data, progress)
        found = self.measure(original)
        if found.value is None:
            raise InputError(
                f"{data.source} gives no {metric.title} of the original: {found.reason}.",
                "Give other data, or another --metric.",
                code="no-accuracy",
            )
        self.original: float = found.value

    def measure(self, model: Predictor, *, interval: bool = False) -> MetricValue:
        """Measure a model.

        Args:
            model: The model.
            interval: Whether to compute the 95 % interval.
        """
        from dsconvert.models.evaluation.compare import predict_all
        from dsconvert.models.evaluation.metrics import Answers, value_of

        data = self._data.laid_out(model.input_shapes)
        outputs = predict_all(model, data.inputs, self._progress, "Evaluating")
        answers = Answers(data.inputs, outputs, data.labels, self._references, data.source)
        return value_of(self.metric, answers, interval=interval)

    def lost(self, found: MetricValue) -> float:
        """Tell how much worse a value is than the original's; infinite without a value."""
        if found.value is None:
            return math.inf
        change = self.original - found.value
        # Rounded: a point of 1 % must not fail by 1e-17.
        return round(change if self.metric.larger_is_better else -change, 9)


def judge(
    source: ModelFile,
    metric_name: str,
    data: DataSource,
    seed: int,
    preprocessing: Preprocessing | None,
    progress: Progress = silent,
) -> GoalJudge:
    """Load test samples, and make what measures an opened model's offspring on them.

    Args:
        source: The model.
        metric_name: As ``--metric`` takes it.
        data: Test samples, with labels where the metric needs them.
        seed: Of their draw.
        preprocessing: What is done to stored images.
        progress: Told of each chunk of samples.

    Raises:
        InputError: If the data give no value.
    """
    from dsconvert.models.evaluation.metrics import find_metric

    from .predictors import runnable

    metric = find_metric(metric_name)
    samples = data_for(
        source,
        data,
        split="test",
        labels="labels" in metric.needs,
        seed=seed,
        preprocessing=preprocessing,
    )
    with runnable(source) as predictor:
        return GoalJudge(metric, samples, predictor, progress)


def within(judging: GoalJudge, drop: str | float) -> Callable[[Predictor], bool]:
    """Make a check of whether a file loses at most so much against the original.

    Args:
        judging: What measures files.
        drop: The most that may be lost; see `allowed_drop`.

    Raises:
        InputError: If it is no drop.
    """
    metric = judging.metric
    most = allowed_drop(drop, metric).of(judging.original)
    first = formatting.amount(judging.original, metric.unit)

    def check(file: Predictor) -> bool:
        found = judging.measure(file)
        told = formatting.amount(found.value, metric.unit)
        note(f"{metric.title} {told}, the model's is {first}")
        return judging.lost(found) <= most + 1e-9

    return check
