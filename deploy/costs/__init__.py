"""What convolutions and their replacements cost on a target, one block at a time."""

from ..devices.vela import NpuEstimate, estimate
from .measured_costs import MeasuredCosts, measured_costs
from .target import Target, target_for

__all__ = [
    "MeasuredCosts",
    "NpuEstimate",
    "Target",
    "estimate",
    "measured_costs",
    "target_for",
]
