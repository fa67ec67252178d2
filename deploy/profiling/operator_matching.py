"""Which operator of a file a runtime means by what its profiler reports.

Runtimes rename, fuse and replace operators. What multiplies survives that: each convolution and
each product of a file is one operator of the runtime, and they run in the order of the file or
under the file's names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from dsconvert.formats.stats import Op

from ..devices.records import OperatorTime

_HEAVY = re.compile(r"conv(?!ert)|gemm|mat_?mul|fully.?connected|matrix multiply", re.IGNORECASE)
_DEPTHWISE = re.compile(r"dwconv|depthwise", re.IGNORECASE)
_PLACE = re.compile(r"^\[.+\]:(\d+)$")
"""LiteRT's "[Builtin]:7", or the tensors that it writes instead: the place in the file."""
_ADDED = re.compile(r"_(nchwc|token_\d+)$")
"""What ONNX Runtime's optimizer puts behind a name."""


def matched(times: Sequence[OperatorTime], ops: Sequence[Op]) -> tuple[OperatorTime, ...]:
    """Return the operators with their kinds, and the file's names where that is sure.

    Args:
        times: As the device reports them, in the order of execution.
        ops: The file's.

    Returns:
        As many; the kind is "unknown" for an operator that multiplies and that could be several.
    """
    if not ops:
        return tuple(times)
    found: dict[int, Op] = {}
    left = dict(enumerate(ops))
    for i, time in enumerate(times):
        j = _same(time, left)
        if j is not None:
            found[i] = left.pop(j)
    heavy = [i for i, t in enumerate(times) if i not in found and _HEAVY.search(t.type)]
    rest = [op for op in left.values() if op.kind != "other"]
    if len(heavy) == len(rest) and all(
        _can_be(times[i], op) for i, op in zip(heavy, rest, strict=True)
    ):
        found |= dict(zip(heavy, rest, strict=True))
    named = []
    for i, time in enumerate(times):
        op = found.get(i)
        if op is not None:
            named.append(msgspec.structs.replace(time, name=op.name, kind=op.kind))
        else:
            named.append(msgspec.structs.replace(time, kind=_alone(time)))
    return tuple(named)


def _same(time: OperatorTime, ops: dict[int, Op]) -> int | None:
    """Return the operator that goes by this name, or has this place in the file."""
    said = _PLACE.match(time.name)
    if said:
        place = int(said[1])
        return place if place in ops and ops[place].type == time.type else None
    name = _ADDED.sub("", time.name)
    for i, op in ops.items():
        if op.name == name and bool(_HEAVY.search(time.type)) == (op.kind != "other"):
            return i
    return None


def _can_be(time: OperatorTime, op: Op) -> bool:
    """Tell whether nothing speaks against it: XNNPACK calls depthwise kernels so."""
    return not _DEPTHWISE.search(time.type) or op.kind in ("depthwise", "convolution")


def _alone(time: OperatorTime) -> str:
    """Return the kind of an operator that is none of the file's, as far as its type tells."""
    if _DEPTHWISE.search(time.type):
        return "depthwise"
    return "unknown" if _HEAVY.search(time.type) else "other"
