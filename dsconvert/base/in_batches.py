"""Running a model on any number of samples, whatever form its outputs have.

An output may have its batch in front, on another axis, or nowhere: a text recogniser gives
(time, n, classes), and a detector with NMS inside as many rows as it finds. Outputs of every form
come out samples first, and stand beside those of another model. Rows whose number depends on the
values are filled up to the sample that has most of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .errors import InputError
from .label_agreement import OutputKind
from .predictor import Array, Shape, at_once
from .size_bounds import samples_at_once

_PROBES = (2, 3)
"""Batches that show which axis of an output is the batch, where it is free."""


@dataclass(frozen=True)
class OutputForm:
    """The axes of an output that are not those of one sample.

    Attributes:
        batch: The axis of the batch; None for an output that has none, which belongs to a whole
            invocation.
        free: Of an output without a batch: the axes whose size depends on the values.
    """

    batch: int | None = 0
    free: tuple[int, ...] = ()

    @property
    def ragged(self) -> int | None:
        """The axis of the joined results along which samples are filled up; None for none."""
        return None if self.batch is not None or not self.free else self.free[0] + 1

    def joined(self, parts: Sequence[Array], count: int, fill: int = 0) -> Array:
        """Put the results of several invocations together.

        Args:
            parts: The output of each invocation.
            count: How many samples there were; a last batch that was filled up gives more.
            fill: What stands where an invocation gives less than another.

        Returns:
            With a batch (count, ...), without one (invocations, ...).

        Raises:
            ValueError: If the sizes of two invocations do not fit.
        """
        if self.batch is not None:
            moved = [np.moveaxis(part, self.batch, 0) for part in parts]
            return np.concatenate(moved)[:count]
        if not self.free:
            return np.stack(parts)
        return np.concatenate(filled([part[None] for part in parts], fill))


def filled(parts: Sequence[Array], fill: int = 0) -> list[Array]:
    """Return arrays, (n, ...), with all axes but the first as long as the longest of them.

    Args:
        parts: The arrays.
        fill: What is put at the end of the others.

    Raises:
        ValueError: If they have different numbers of axes.
    """
    sizes = [max(found) for found in zip(*(part.shape[1:] for part in parts), strict=True)]
    return [
        np.pad(
            part,
            [(0, 0), *((0, most - own) for most, own in zip(sizes, part.shape[1:], strict=True))],
            constant_values=fill,
        )
        for part in parts
    ]


def form_of_fixed(declared: Shape, shapes: Sequence[Sequence[int]], batch: int) -> OutputForm:
    """Find the form of an output of a model with a fixed batch.

    Args:
        declared: The shape that the model declares; None where a size is free.
        shapes: The shapes that the invocations gave.
        batch: The fixed batch.
    """
    first = shapes[0]
    if all(shape[:1] == (batch,) for shape in map(tuple, shapes)):
        return OutputForm()
    return _elsewhere(declared, first, [axis for axis, size in enumerate(first) if size == batch])


def form_of_free(
    declared: Shape, shapes: Sequence[Sequence[int]], sizes: Sequence[int] = _PROBES
) -> OutputForm:
    """Find the form of an output of a model with a free batch.

    Args:
        declared: The shape that the model declares; None where a size is free.
        shapes: The shapes that two invocations gave.
        sizes: The batches of these invocations.
    """
    first, second = shapes
    if len(first) != len(second):
        return OutputForm(None, _free(declared, first))
    moving = [axis for axis in range(len(first)) if (first[axis], second[axis]) == tuple(sizes)]
    return _elsewhere(declared, first, moving[:1] if moving[:1] == [0] else moving)


def _elsewhere(declared: Shape, shape: Sequence[int], axes: Sequence[int]) -> OutputForm:
    """Return the form of an output whose batch is on one of some axes, if on any."""
    if len(axes) == 1:
        return OutputForm(axes[0])
    return OutputForm(None, _free(declared, shape))


def _leads(declared: Shape) -> bool:
    """Tell whether a shape's first size, and no other, is free: that of the batch, most likely."""
    return declared[:1] == (None,) and None not in declared[1:]


def _free(declared: Shape, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the axes of free size; all where the model does not say how many axes there are."""
    if len(declared) != len(shape):
        return tuple(range(len(shape)))
    return tuple(axis for axis, size in enumerate(declared) if size is None)


def samples_first(shapes: Sequence[Shape]) -> bool:
    """Tell whether the first axis of every input is the batch.

    A recurrent network may take its state, (layers, n, units), and a sampling rate beside the
    signal: such inputs are those of one invocation.

    Args:
        shapes: The shapes of the inputs; None where a size is free.
    """
    first = {shape[:1] for shape in shapes}
    return () not in first and (len(first) <= 1 or first == {(None,), (1,)})


def first_size(shapes: Sequence[Shape]) -> int | None:
    """Return the size of the batch, by the first input that has axes; None where it is free.

    A rate or a threshold, which has none, may stand before the images.

    >>> first_size([(), (4, 8, 8, 3)])
    4
    """
    return next((shape[0] for shape in shapes if shape), None)


def output_kinds(labels: Iterable[bool], forms: Sequence[OutputForm]) -> tuple[OutputKind, ...]:
    """Return the kind of each output.

    Args:
        labels: Whether each holds labels.
        forms: Its form; none where the model never ran.
    """
    rows = [form.ragged for form in forms]
    told = list(labels)
    return tuple(map(OutputKind, told, rows or [None] * len(told)))


class InBatches:
    """Runs a model on any number of samples.

    Args:
        invoke: Runs it once, on one array per input; gives copies of its outputs.
        what: What to call the model in an error, e.g. its path.
        names: The names of its outputs.
        shapes: The shapes that they declare; None where a size is free.
        batch: The batch that it takes; None where any goes.
        most: Samples at once where the batch is free.
        traced: Whether a free first size of an output is the batch for certain.
        fills: What each output is filled up with where a sample gives less than another; by
            default zeros.
        largest: Tells bytes of the largest tensor that is computed of one sample, by the shapes
            of the inputs; 0 where that is not known.

    Attributes:
        forms: Of the outputs of the last run.
    """

    def __init__(
        self,
        invoke: Callable[[Sequence[Array]], Sequence[Array]],
        what: str,
        names: Sequence[str],
        shapes: Sequence[Shape],
        *,
        batch: int | None,
        most: int,
        traced: bool = False,
        fills: Sequence[int] = (),
        largest: Callable[[tuple[Shape, ...]], int] = lambda shapes: 0,
    ) -> None:
        self._invoke = invoke
        self._what, self._names, self._shapes = what, names, shapes
        self._batch, self._most = batch, most
        self._fills = fills or [0] * len(names)
        self._largest = lru_cache(maxsize=4)(largest)
        self.forms: tuple[OutputForm, ...] = ()
        self._forms: tuple[OutputForm, ...] | None = None
        if traced and all(shape[:1] == (None,) for shape in shapes):
            self._forms = tuple(OutputForm() for _ in shapes)

    def run(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Run on all samples.

        Where an output has no batch, each sample runs alone and its results are stacked, (n, ...).

        Args:
            arrays: One per input, (n, ...).

        Returns:
            One array per output, samples first.

        Raises:
            InputError: If the results of the samples cannot be put together.
        """
        count = len(arrays[0])
        forms = self._free_forms(arrays) if self._batch is None else None
        forms = None if self._batch else forms  # it may be found to be fixed
        alone = forms is not None and any(form.batch is None for form in forms)
        size = self._batch or (1 if alone else min(self._at_once(arrays), count))
        runs = []
        for start in range(0, count, size):
            part = [array[start : start + size] for array in arrays]
            if self._batch and len(part[0]) < size:  # fill up a fixed batch, cut off below
                part = [np.concatenate([a, np.repeat(a[-1:], size - len(a), 0)]) for a in part]
            runs.append(self._invoke(part))
        self.forms = forms or self._fixed_forms(runs, size)
        if self._batch is None and not all(
            form.batch is None or sum(run[i].shape[form.batch] for run in runs) == count
            for i, form in enumerate(self.forms)
        ):  # two and three rows looked like a batch, and are what the first sample has
            self._forms = tuple(
                OutputForm(None, _free(declared, output.shape))
                for declared, output in zip(self._shapes, runs[0], strict=True)
            )
            return self.run(arrays)
        outputs = []
        for i, form in enumerate(self.forms):
            outputs.append(self._joined(i, form, [run[i] for run in runs], count, size))
        return tuple(outputs)

    def _at_once(self, arrays: Sequence[Array]) -> int:
        """Tell how many samples run at once, by their size and that of what is computed of them."""
        return samples_at_once(self._largest_of(arrays), at_once(arrays, self._most))

    def _one_is_large(self, arrays: Sequence[Array]) -> bool:
        """Tell whether what is computed of two samples is too much to run only to see shapes."""
        return samples_at_once(self._largest_of(arrays), min(_PROBES)) == 1

    def _largest_of(self, arrays: Sequence[Array]) -> int:
        return self._largest(tuple((1, *array.shape[1:]) for array in arrays))

    def _fixed_forms(self, runs: Sequence[Sequence[Array]], batch: int) -> tuple[OutputForm, ...]:
        return tuple(
            form_of_fixed(declared, [output.shape for output in outputs], batch)
            for declared, outputs in zip(self._shapes, zip(*runs, strict=True), strict=True)
        )

    def _free_forms(self, arrays: Sequence[Array]) -> tuple[OutputForm, ...]:
        """Return the forms of a model with a free batch, which two runs show."""
        if self._forms is None:
            if self._one_is_large(arrays) and all(map(_leads, self._shapes)):
                return tuple(OutputForm() for _ in self._shapes)  # else it is seen from the rows
            try:
                runs = [
                    self._invoke([np.resize(a[:1], (size, *a.shape[1:])) for a in arrays])
                    for size in _PROBES
                ]
            except InputError:  # a batch that is called free, and is not
                try:
                    only = self._invoke([array[:1] for array in arrays])
                except InputError:  # which the run itself will say of all samples
                    return tuple(OutputForm() for _ in self._names)
                self._batch = 1
                return self._fixed_forms([only], 1)
            else:
                self._forms = tuple(
                    form_of_free(declared, [output.shape for output in outputs])
                    for declared, outputs in zip(self._shapes, zip(*runs, strict=True), strict=True)
                )
        return self._forms

    def _joined(
        self, index: int, form: OutputForm, parts: Sequence[Array], count: int, size: int
    ) -> Array:
        """Return one output of several invocations, samples first.

        Raises:
            InputError: If its shapes do not fit.
        """
        try:
            return form.joined(parts, count, self._fills[index])
        except (ValueError, IndexError) as error:  # other sizes or axes from sample to sample
            shapes = list(dict.fromkeys(part.shape for part in parts))
            raise InputError(
                f"{self._what}: the output {self._names[index]} has the shapes "
                f"{' and '.join(map(str, shapes[:3]))} for inputs of one shape in batches of "
                f"{size}: its results cannot be put together.",
                "Leave that output out of the model.",
                code="outputs-not-joined",
            ) from error
