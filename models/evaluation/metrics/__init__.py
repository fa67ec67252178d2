"""What models are judged by on their task: accuracy, overlap, image quality, boxes."""

from .metric import Answers, Metric, MetricValue
from .registry import METRICS, find_metric
from .value import value_of

__all__ = ["METRICS", "Answers", "Metric", "MetricValue", "find_metric", "value_of"]
