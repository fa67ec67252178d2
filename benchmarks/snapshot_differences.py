"""Where two snapshots of dsconvert's answers differ; snapshot.py makes and compares them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatch
from typing import Any

TOLERANCES = (
    ("*", "size_bytes", 0.02, 0),  # files name the versions that wrote them
    ("*", "correct", 0, 2),  # of 5,000 images
    ("*", "predicted", 0, 2),
    ("*int8*", "relative_error", 0, 1e-4),  # a weight may round to the next step
    ("*int8*", "kl_nats", 0, 1e-4),
    ("*", "*_error", 0, 1e-6),
    ("*", "harm", 0, 1e-6),
    ("*", "kl_nats", 0, 1e-6),
    ("*", "scale", 1e-6, 0),
)
"""Case, key, the share and the amount by which a number may differ. All else must be equal."""


def print_differences(
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    names: Mapping[str, str],
    ignored: Collection[str],
) -> int:
    """Print each difference, and at the end how many each key has.

    Args:
        old: Answers by case and command.
        new: The same of another version.
        names: The old name of each key that has a new one.
        ignored: Keys that are not compared, nor what is under them.

    Returns:
        How many differences were printed.
    """
    keys: Counter[str] = Counter()
    for case, path, line in differences(old, new, names):
        if not set(ignored) & set(keys_of(path)):
            print(f"{case}: {path}: {line}")
            keys[keys_of(path)[-1]] += 1
    told = ", ".join(f"{key} {count}" for key, count in keys.most_common()) or "none"
    print(f"{len(old.keys() | new.keys())} cases; {keys.total()} differences: {told}")
    return keys.total()


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], names: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Case, path, and the values where they differ; names gives the old names of new keys."""
    for case in sorted(old.keys() | new.keys()):
        if case not in old or case not in new:
            yield case, "case", f"only in {'OLD' if case in old else 'NEW'}"
            continue
        before, after = dict(leaves(old[case], {})), dict(leaves(new[case], names))
        for path in dict.fromkeys([*before, *after]):
            a, b = before.get(path, "absent"), after.get(path, "absent")
            if not same(case, keys_of(path)[-1], a, b):
                yield case, path, f"{a} → {b}"


def leaves(value: Any, names: Mapping[str, str], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each number, word or null, with its path; items of a list go by their names."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, names, f"{path}.{names.get(key, key)}".lstrip("."))
    elif isinstance(value, list) and value:
        for place, item in enumerate(value):
            name = item.get("name", item.get("recipe", place)) if isinstance(item, dict) else place
            yield from leaves(item, names, f"{path}[{name}]")
    else:
        yield path, value


def keys_of(path: str) -> list[str]:
    """Return the keys in a path: verify, answer, finite of verify.answer[dense].finite."""
    return re.sub(r"\[.*?\]", "", path).split(".")


def same(case: str, key: str, a: Any, b: Any) -> bool:
    """Say if two values are equal, or as close as the first fitting row of TOLERANCES allows."""
    for cases_like, keys_like, share, amount in (
        TOLERANCES if {type(a), type(b)} <= {int, float} else ()
    ):
        if fnmatch(case, cases_like) and fnmatch(key, keys_like):
            return math.isclose(a, b, rel_tol=share, abs_tol=amount)
    return bool(a == b)
