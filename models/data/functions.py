"""Samples from the user's own function, named as "module:function"."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.image_layout import fits
from dsconvert.base.predictor import Array, Shape

from ..user_code import import_named, users_code
from .array_names import arrays_by_name
from .sources import Raw, Request, numeric


class _Part(NamedTuple):
    """A batch, or all samples: one array per input, (n, ...), and labels (n, ...) or None."""

    inputs: tuple[Array, ...]
    labels: Array | None


def is_function(source: str) -> bool:
    """Tell whether the source reads "module:function"."""
    return re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", source) is not None


def read_function(source: str, request: Request) -> Raw:
    """Call the function, with ``split=`` if it takes that, and collect what it gives.

    An array, a dictionary of arrays or a tuple (x, y) of them is all the data; anything else is
    iterated over, and each element is a batch or, if its shape says so, one sample.

    Raises:
        InputError: If it cannot be imported, fails, or gives something else.
    """
    try:
        with users_code():
            function = import_named(source)
            given = _call(function, request)
            if _is_element(given):
                raw = _parts(given, request)
                index = request.draw(len(raw.inputs[0]))
            else:
                raw = _joined(_batches(given, request), request.samples)
                index = slice(request.samples)
            labels = request.labels(
                lambda: None if raw.labels is None else numeric(raw.labels, "y")[index]
            )
    except InputError as error:
        said = error.words
        raise InputError(f"{source}: {said.message}", said.hint, code=error.code) from error
    except Exception as error:  # the user's code may raise anything
        raise InputError(
            f"{source} failed: {type(error).__name__}: {error}", code="function-failed"
        ) from error
    return Raw(tuple(array[index] for array in raw.inputs), labels, drawn=True)


def _call(function: Callable[..., Any], request: Request) -> Any:
    takes_split = "split" in inspect.signature(function).parameters
    return function(split=request.split) if takes_split else function()


def _is_element(given: Any) -> bool:
    """Tell whether this is x or (x, y) rather than a series of them."""
    return isinstance(given, tuple | Mapping) or hasattr(given, "__array__")


def _parts(element: Any, request: Request) -> _Part:
    """Take x or (x, y) apart."""
    x, y = element, None
    if isinstance(element, tuple):
        if len(element) not in (1, 2):
            raise InputError(
                f"got a tuple of {len(element)}, allowed are x and (x, y).",
                "Give several inputs as a dictionary by name.",
                code="not-a-sample",
            )
        x, y = element[0], element[1] if len(element) == 2 else None
    if isinstance(x, Mapping):
        names = request.names or tuple(x)
        found = zip(names, arrays_by_name(x, names), strict=True)
        inputs = tuple(numeric(array, f"the input {name}") for name, array in found)
    else:
        inputs = (numeric(x, "x"),)
    return _Part(inputs, None if y is None else np.asarray(y))


def _batches(elements: Iterable[Any], request: Request) -> Iterator[_Part]:
    for element in elements:
        raw = _parts(element, request)
        if request.shapes and _is_sample(raw, request.shapes[0]):
            label = None if raw.labels is None else raw.labels[None]
            raw = _Part(tuple(array[None] for array in raw.inputs), label)
        yield raw


def _is_sample(raw: _Part, shape: Shape) -> bool:
    """Tell whether this is one sample of a model's input ``shape`` instead of a batch of them.

    Args:
        raw: A sample, or a batch.
        shape: Batch axis first, channels last.
    """
    array = raw.inputs[0]
    if shape[-1] != 1 or array.ndim != len(shape) - 1:
        return array.ndim < len(shape)
    # A sample, or a batch without channels. (1, H, W) may be either; what a label of one sample
    # does not decide is the same in the end.
    single = raw.labels is not None and raw.labels.ndim == 0
    kinds = [shape[1:], (1, *shape[1:-1])] if single else [shape[1:]]
    return any(fits((1, *array.shape), (None, *sizes)) for sizes in kinds)


def _joined(batches: Iterable[_Part], samples: int | None) -> _Part:
    """Return all batches, or as many as hold the first ``samples`` samples."""
    parts, count = [], 0
    for part in batches:
        parts.append(part)
        count += len(part.inputs[0])
        if samples is not None and count >= samples:
            break
    if not parts:
        raise InputError("it gave no samples.", code="no-samples")
    labels = [part.labels for part in parts if part.labels is not None]
    if 0 < len(labels) < len(parts):
        raise InputError(
            "some of its elements have labels and some have none.", code="labels-incomplete"
        )
    inputs = zip(*(part.inputs for part in parts), strict=True)
    return _Part(
        tuple(np.concatenate(arrays) for arrays in inputs),
        np.concatenate(labels) if labels else None,
    )
