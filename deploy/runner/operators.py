"""The times of a file's operators, as the runtimes' own profilers tell them.

Both count whole microseconds and drop the rest.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple


class OperatorMedian(NamedTuple):
    """An operator's time.

    Attributes:
        name: As the runtime calls it.
        type: As the runtime calls it.
        p50_ms: The median over the invocations.
    """

    name: str
    type: str
    p50_ms: float


def median_ms(whole_us: Sequence[int]) -> float:
    """Return the median of durations that were cut to whole microseconds, in milliseconds.

    The median of grouped data: the durations that read 3 µs lie somewhere between 3 and 4, so the
    median is where half of all would be if they were spread evenly there. The median of the cut
    values would be half a microsecond too small on average, for every operator.
    """
    ordered = sorted(whole_us)
    middle = ordered[len(ordered) // 2]
    below = sum(value < middle for value in ordered)
    within = sum(value == middle for value in ordered)
    return (middle + (len(ordered) / 2 - below) / within) / 1e3


def parse_ort_profile(text: str, skipped: int) -> list[OperatorMedian]:
    """Return the operators in the profile that ONNX Runtime wrote, in the order of their first run.

    Args:
        text: The JSON of one session that only invoked one file, always in the same way.
        skipped: Invocations at its beginning that do not count.

    Raises:
        ValueError: If it is not such a profile: what is wrong with it.
    """
    events = json.loads(text)
    if not isinstance(events, list):
        raise ValueError("ONNX Runtime's profile is no list of events")
    runs = sum(isinstance(e, dict) and e.get("name") == "model_run" for e in events)
    if runs <= skipped:
        raise ValueError(f"ONNX Runtime's profile has {runs} runs, more than {skipped} are needed")
    found: dict[tuple[str, str], list[int]] = {}
    types: dict[tuple[str, str], str] = {}
    for event in events:
        if not isinstance(event, dict) or event.get("cat") != "Node":
            continue
        name = str(event.get("name", ""))
        if not name.endswith("_kernel_time"):  # a fence, of old versions
            continue
        place, type_, duration = _node(event, name)
        found.setdefault(place, []).append(duration)
        types[place] = type_
    if not found:
        raise ValueError("ONNX Runtime's profile names no operator")
    for (name, _), durations in found.items():
        if len(durations) != runs:
            raise ValueError(
                f"ONNX Runtime's profile has {len(durations)} times of {name} in {runs} runs"
            )
    return [
        OperatorMedian(place[0], types[place], median_ms(durations[skipped:]))
        for place, durations in found.items()
    ]


def _node(event: dict[str, Any], name: str) -> tuple[tuple[str, str], str, int]:
    """Return a node's name and index, its type and its duration."""
    args, duration = event.get("args"), event.get("dur")
    if not isinstance(args, dict) or not isinstance(args.get("op_name"), str):
        raise ValueError(f"ONNX Runtime's profile has no operator type at {name}")
    if not isinstance(duration, int) or duration < 0:
        raise ValueError(f"ONNX Runtime's profile has the duration {duration!r} at {name}")
    return (name[: -len("_kernel_time")], str(args.get("node_index"))), args["op_name"], duration
