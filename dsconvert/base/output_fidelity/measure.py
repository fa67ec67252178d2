"""How close an output is to the reference's, each group of its channels at its own scale.

One SQNR over an output that holds boxes in pixels and scores of 0 … 1 says 51 dB where every score
is zero. Here the channels of the last axis (or another) are grouped by their scale, each group has
its own SQNR, and the error is searched for traces of known defects. Nothing is decided here: what
an exported file may lose, `findings` says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from ..predictor import Array
from . import defects
from .channel_axis import channel_axis
from .channel_groups import (
    UNIT,
    Ranges,
    as_ranges,
    channels_last,
    scale_groups,
)
from .channel_sums import ChannelSums, Mask
from .class_counts import ClassCounts, ClassFidelity, are_shares
from .defect import Channels, Defect

_STILL = 1e-6
"""Standard deviation over mean up to which a channel is called constant."""


class GroupFidelity(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Channels of the same scale compared with the reference's.

    Attributes:
        channels: Which, as first and last of each run.
        peak: max |r| on these data.
        sqnr_db: 10·log10(Σ r² / Σ (r − y)²); None where all are equal.
        variation_db: The same of what changes, 10·log10(Σ (r − E r)² / Σ (r − y)²), E r the mean of
            each channel; None where all are equal or nothing changes.
        change_db: The same of what the model changes in its input x, with Σ (r − x)², for outputs
            of an input's shape: a denoiser hands most of it on, whatever becomes of its weights.
        spread: √E (r − E r)², in the unit of the output.
        noise: √E (r − y)², in the unit of the output.
        probabilities: Whether all of the reference's values lie in 0 … 1, but for rounding.
    """

    channels: Ranges
    peak: float
    sqnr_db: float | None
    variation_db: float | None
    spread: float
    noise: float
    probabilities: bool
    change_db: float | None = None


class ConstantChannels(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Channels of one value each in the reference.

    Attributes:
        channels: Which.
        peak: Their largest |r|.
        noise: The largest √E (r − y)² of one of them.
    """

    channels: Ranges
    peak: float
    noise: float


class OutputMeasure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One output compared with the reference's, channel by channel.

    Attributes:
        name: The output's name.
        axis: Which axis holds the channels.
        channels: How many there are.
        samples: On how many samples.
        positions: Values of a channel in each: pixels, anchors; 1 for (n, channels).
        peak: max |r|.
        not_finite: Values that are NaN or infinite where the reference's are not the same.
        bad_channels: The channels of those values.
        groups: By scale, the largest first.
        constant: Channels that never change in the reference; None if there are none.
        classes: For scores of classes only.
        defects: What the error looks like.
        shares: Whether the reference's values are shares of a whole, over the positions.
    """

    name: str
    axis: int
    channels: int
    samples: int
    positions: int
    peak: float
    not_finite: int
    bad_channels: Ranges
    groups: tuple[GroupFidelity, ...]
    constant: ConstantChannels | None
    classes: ClassFidelity | None
    defects: tuple[Defect, ...]
    shares: bool = False

    @property
    def worst(self) -> GroupFidelity | None:
        """The group of the lowest SQNR; None where all are equal or the reference is constant."""
        return min(
            (group for group in self.groups if group.sqnr_db is not None),
            key=lambda group: group.sqnr_db or 0.0,
            default=None,
        )


class OutputComparison:
    """Compares one output batch by batch, in bounded memory.

    Args:
        name: The output's name.
        axis: Which axis holds the channels; by default what the first batch looks like.

    Example:
        >>> comparison = OutputComparison("boxes")
        >>> comparison.add(np.array([[640.0, 0.9], [320.0, 0.1]]), np.array([[641.0, 0], [320, 0]]))
        >>> comparison.result().worst.channels
        ((1, 1),)
    """

    def __init__(self, name: str, axis: int | None = None) -> None:
        self.name = name
        self.axis = axis
        self._sums: ChannelSums | None = None
        self._classes: ClassCounts | None = None
        self._positions = 1
        self._shares = True

    def add(self, reference: Array, other: Array, start: Array | None = None) -> None:
        """Add a batch of both, (n, ...).

        Args:
            reference: What it should be.
            other: What it is.
            start: An input of the model of the same shape, if there is one.

        Raises:
            ValueError: If the shapes differ.
        """
        if reference.shape != other.shape:
            raise ValueError(
                f"{self.name}: shape {other.shape} where the reference has {reference.shape}"
            )
        if not reference.size:
            return
        if self.axis is None:
            self.axis = channel_axis(reference)
        r, y = (channels_last(array, self.axis) for array in (reference, other))
        if math.prod(r.shape[1:-1]) == 1:  # (n, 1, 1, C) are scores as (n, C) are
            r, y = (array.reshape(len(array), -1) for array in (r, y))
        if self._sums is None or self._classes is None:
            self._sums, self._classes = ChannelSums(r.shape[-1]), ClassCounts(r.shape[-1])
        self._positions = math.prod(r.shape[1:-1])
        fed = None if start is None else channels_last(start, self.axis).reshape(r.shape)
        self._sums.add(r, y, fed)
        self._classes.add(r, y)
        self._shares = self._shares and are_shares(r)

    def result(self) -> OutputMeasure:
        """Return what was found.

        Raises:
            ValueError: If nothing was added.
        """
        sums, classes = self._sums, self._classes
        if sums is None or classes is None or self.axis is None:
            raise ValueError(f"{self.name}: there are no samples")
        found = classes.result()
        still = (sums.count > 1) & (sums.var_r <= _STILL**2 * sums.power)
        peak = np.where(still, 0.0, sums.peak)
        distribution = found is not None and found.distribution
        grouped = scale_groups(peak, float(sums.count.max()), self._positions, distribution)
        return OutputMeasure(
            name=self.name,
            axis=self.axis,
            channels=len(sums.count),
            samples=sums.samples,
            positions=self._positions,
            peak=float(sums.peak.max()),
            not_finite=int(sums.not_finite.sum()),
            bad_channels=as_ranges(np.flatnonzero(sums.not_finite)),
            groups=tuple(_group(sums, channels) for channels in grouped),
            constant=_constant(sums, still),
            classes=found,
            defects=defects.find(sums, grouped),
            shares=self._shares,
        )


def measure(
    name: str,
    reference: Array,
    other: Array,
    *,
    axis: int | None = None,
    inputs: Sequence[Array] = (),
) -> OutputMeasure:
    """Compare one output, (n, ...), with the reference's of the same shape.

    Args:
        name: The output's name.
        reference: What it should be.
        other: What it is.
        axis: Which axis holds the channels; by default the last, or axis 1 where the output looks
            like it.
        inputs: What the model was fed; see `GroupFidelity.change_db`.

    Raises:
        ValueError: If the shapes differ or there are no samples.
    """
    comparison = OutputComparison(name, axis)
    start = next((array for array in inputs if array.shape == reference.shape), None)
    comparison.add(reference, other, start)
    return comparison.result()


def measure_all(
    names: Sequence[str],
    references: Sequence[Array],
    others: Sequence[Array],
    inputs: Sequence[Array] = (),
) -> tuple[OutputMeasure, ...]:
    """Compare all outputs of two models, in order; see `measure`."""
    return tuple(
        measure(name, reference, other, inputs=inputs)
        for name, reference, other in zip(names, references, others, strict=True)
    )


def _decibels(signal: float, noise: float) -> float | None:
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else None


def _group(sums: ChannelSums, channels: Channels) -> GroupFidelity:
    weight = sums.count[channels]
    noise = float(weight @ sums.noise[channels])
    power = float(weight @ sums.power[channels])
    low, high = float(sums.low_r[channels].min()), float(sums.high_r[channels].max())
    count = max(float(weight.sum()), 1.0)
    changed = None if sums.changed is None else float(weight @ sums.changed[channels])
    spread = float(weight @ sums.var_r[channels])
    return GroupFidelity(
        channels=as_ranges(channels),
        peak=float(sums.peak[channels].max()),
        sqnr_db=_decibels(power, noise),
        variation_db=_decibels(spread, noise),
        spread=math.sqrt(spread / count),
        noise=math.sqrt(noise / count),
        probabilities=low >= -UNIT * high and high <= 1 + UNIT,  # tiny ones below 0 are none
        change_db=None if changed is None else _decibels(changed, noise),
    )


def _constant(sums: ChannelSums, still: Mask) -> ConstantChannels | None:
    channels = np.flatnonzero(still)
    if not len(channels):
        return None
    return ConstantChannels(
        channels=as_ranges(channels),
        peak=float(sums.peak[channels].max()),
        noise=float(np.sqrt(sums.noise[channels].max())),
    )
