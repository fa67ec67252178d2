"""Numbers among the settings of a metric."""

from __future__ import annotations

import math

from dsconvert.base.errors import InputError

from .metric import Settings


def number(settings: Settings, name: str, default: float) -> float:
    """Read a setting such as peak=255.

    Raises:
        InputError: If it is no number.
    """
    if name not in settings:
        return default
    try:
        value = float(settings[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(
            f"the setting {name}={settings[name]} of a metric is no number.",
            f"Write {name}={default:g}.",
            code="unknown-metric-setting",
        )
    return value
