"""Traces of known defects: what was done to an output, found by undoing it.

A sound file's error is noise, and no simple change makes it smaller. Where exchanging two
channels, moving an image by a cell or removing an offset takes away three quarters of the error,
that change is what the file does wrong, even if its SQNR is high: RGB and BGR of a photograph are
20 dB apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import changed_values, rearranged
from .channel_sums import ChannelSums
from .defect import FEWEST, Channels, Defect

_VISIBLE = 0.02
"""Errors below that share of a channel's standard deviation are not looked at."""


def find(sums: ChannelSums, grouped: Sequence[Channels]) -> tuple[Defect, ...]:
    """Look for all known defects.

    Args:
        sums: Of a reference and another model's output.
        grouped: Its channels, by their scale.
    """
    if not grouped or not sums.samples:
        return ()
    r, y = sums.kept
    whole = r.shape[-1]
    visible = np.sqrt(sums.noise) > _VISIBLE * np.sqrt(sums.var_r)
    if not visible.any():
        return ()
    found = list(changed_values.constant(sums, grouped))
    visible &= ~changed_values.still(sums)  # what is constant is told as that
    for group in grouped:
        if visible[group].any():
            found += rearranged.mixed(group, r[..., group], y[..., group])
            found += changed_values.affine(sums, group)
            found += changed_values.saturated(sums, group, r[..., group], y[..., group])
    if sums.count.max() >= FEWEST:
        found += changed_values.affine_each(sums, visible)
        found += changed_values.saturated_each(sums, visible, r, y)
        if 1 < whole <= rearranged.CHANNELS:
            found += rearranged.swapped(r, y, visible)
        found += rearranged.moved(r, y, visible)
    return tuple(found)
