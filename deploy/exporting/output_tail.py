"""Where the tensors of a network begin to mix scales that one integer scale cannot hold.

A detector joins boxes of 0 … 640 and scores of 0 … 1 in its last Concat. In int8 the joined tensor
has one scale, a step of 2.5, in which every score is zero. What comes before the Concat has scales
of its own: the file works if the operators from there on, the tail, stay in float, or if the
tensors before it become the outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from dsconvert.base.output_fidelity.channel_axis import channel_axis
from dsconvert.base.output_fidelity.channel_groups import channels_last
from dsconvert.base.output_fidelity.group_error import judged_groups
from dsconvert.base.predictor import Array

SAMPLES = 8
"""Samples that tensors are looked at on."""
_RATIO = 16.0
"""Between the largest values of two groups of channels: of 8 bits, 4 are left for the smaller."""
_DEEPEST = 64


@dataclass(frozen=True)
class OutputTail:
    """The end of a network.

    Attributes:
        mixed: The tensors that mix scales; what makes them is the tail.
        cuts: The tensors that the tail reads: each of one scale.
        rebuilding: How each output of mixed scales is made of the others, where that was asked for.
    """

    mixed: tuple[str, ...] = ()
    cuts: tuple[str, ...] = ()
    rebuilding: tuple[str, ...] = ()


def is_mixed(values: Array) -> bool:
    """Tell whether a tensor, (n, ...), has groups of channels that one scale cannot hold."""
    if values.ndim < 2 or values.dtype.kind != "f" or not np.isfinite(values).all():
        return False
    axis = channel_axis(values)
    last = channels_last(values, axis)
    peaks = [float(np.abs(last[..., group]).max()) for group in judged_groups(values, axis)]
    return len(peaks) > 1 and max(peaks) > _RATIO * min(peaks)


def find_tail(
    outputs: Sequence[str],
    read_by: Callable[[str], Sequence[str]],
    values: Callable[[Sequence[str]], Mapping[str, Array]],
) -> OutputTail:
    """Walk back from the outputs as long as the tensors mix scales.

    Args:
        outputs: The network's outputs.
        read_by: The tensors, constants left out, that a tensor is computed from.
        values: The values of tensors on some samples.
    """
    mixed: list[str] = []
    cuts: list[str] = []
    level = list(dict.fromkeys(outputs))
    for _ in range(_DEEPEST):
        if not level:
            break
        found = values(level)
        following: list[str] = []
        for name in level:
            if name in found and is_mixed(found[name]):
                mixed.append(name)
                following += read_by(name)
            elif name not in outputs:
                cuts.append(name)
        known = {*mixed, *cuts}
        level = [name for name in dict.fromkeys(following) if name not in known]
    return OutputTail(tuple(mixed), tuple(cuts))


def told_tail(operators: Sequence[str]) -> str:
    """The operators of a tail as people read them: "2 operators in float (Concat, Reshape)"."""
    kinds = ", ".join(sorted(set(operators)))
    plural = "s" if len(operators) != 1 else ""
    return f"{len(operators)} operator{plural} in float ({kinds})"
