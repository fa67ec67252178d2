"""What convolutions and their replacements cost on a target, one block at a time."""

from .model import MeasuredCosts, measured_costs
from .target import Target
from .vela import NpuEstimate, estimate

__all__ = [
    "MeasuredCosts",
    "NpuEstimate",
    "Target",
    "estimate",
    "measured_costs",
]
