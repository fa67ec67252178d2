"""Which stored array belongs to an input: a file's names are not always the model's.

A Keras input "left image" is "left_image" in a .tflite file, and "image:0" of TensorFlow is
"image" elsewhere; one set of data is for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dsconvert.base.errors import InputError

_OTHERS = re.compile(r"[^A-Za-z0-9]+")


def find_arrays(keys: Iterable[str], wanted: Sequence[Sequence[str]]) -> list[str | None]:
    """Return the names under which the arrays of several inputs are stored.

    Args:
        keys: The names that there are.
        wanted: For each input the names that its array may have, the likeliest first.

    Returns:
        For each input one of ``keys``: the first of its names that is there; else the only one
        that differs from a name of it in signs alone, and is no other input's. None if there is
        none, or are several.

    Example:
        >>> find_arrays(["left image", "right image"], [["left_image"], ["right image"]])
        ['left image', 'right image']
    """
    keys = list(keys)
    found = [next((name for name in names if name in keys), None) for names in wanted]
    for place, names in enumerate(wanted):
        if found[place] is None:
            found[place] = _alike([key for key in keys if key not in found], names)
    return found


def arrays_by_name(arrays: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    """Return the arrays of a model's inputs, in their order.

    Args:
        arrays: The arrays by their names.
        names: The names of the inputs.

    Raises:
        InputError: With the names that are missing.
    """
    found = dict(zip(names, find_arrays(arrays, [[name] for name in names]), strict=True))
    missing = [name for name, key in found.items() if key is None]
    if missing:
        raise InputError(
            f"got inputs named {', '.join(map(str, arrays))}; {', '.join(missing)} are missing.",
            code="inputs-missing",
        )
    return [arrays[key] for key in found.values() if key is not None]


def _alike(keys: Sequence[str], names: Sequence[str]) -> str | None:
    for name in names:
        alike = [key for key in keys if _plain(key) == _plain(name)]
        if len(alike) == 1 and _plain(name):
            return alike[0]
    return None


def _plain(name: str) -> str:
    return _OTHERS.sub("_", name.removesuffix(":0")).strip("_")
