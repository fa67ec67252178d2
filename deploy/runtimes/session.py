"""A file that is loaded in a runtime: what all runtimes have in common.

Every file looks the same from outside: real-valued arrays of any batch in, float32 out, inputs
and outputs in the order of the file.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.in_batches import InBatches, output_kinds, samples_first
from dsconvert.base.label_agreement import LABEL_TYPES, OutputKind
from dsconvert.base.predictor import Array, Shape
from dsconvert.base.quiet import captured

from .runtime import Runtime
from .samples import check_inputs, count_samples, shape_text
from .tensor_info import TensorInfo

_FREE_BATCH = 32
"""Samples per invocation where the batch is free: bounds the memory of large predictions."""
_MOST_VALUES = 1 << 40
"""Values that one sample may have: 4 TiB in float32."""


class Prepared(NamedTuple):
    """An invocation with its inputs in place.

    Attributes:
        run: Invokes once; nothing is converted or copied in.
        read: The outputs of the last run as float32 arrays.
    """

    run: Callable[[], Any]
    read: Callable[[], tuple[Array, ...]]


def _check_size(path: Path, info: TensorInfo) -> None:
    """Refuse an input that no memory holds: its sizes are damaged.

    Raises:
        InputError: If one sample has too many values.
    """
    values = math.prod(int(size) for size in info.shape if size is not None)
    if values > _MOST_VALUES:
        raise InputError(
            f"{path}: its input {info.name} has the shape {shape_text(info.shape)}, "
            f"which is {values:,} values a sample.",
            "Copy or download the file again: it is damaged.",
            code="damaged-file",
        )


class Session(ABC):
    """A loaded model file; a `dsconvert.base.predictor.Predictor`.

    Args:
        path: The file.
        threads: Threads for one invocation.

    Attributes:
        runtime: The runtime that it is loaded in.
        path: The file.
        inputs: The file's inputs.
        outputs: The file's outputs.
    """

    runtime: ClassVar[Runtime]
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]

    def __init__(self, path: Path, threads: int) -> None:
        self.path = path
        try:
            with captured():
                self.inputs, self.outputs = self._load(path, threads)
            for info in self.inputs:
                _check_size(path, info)
            if not self.outputs:
                raise InputError(
                    f"{path} has no outputs: nothing of it can be run.",
                    "Write it again from the model that it was made from.",
                    code="damaged-file",
                )
        except (InputError, ImportError):
            raise
        except Exception as error:  # the runtimes raise anything, RuntimeError subclasses mostly
            raise InputError(
                f"{path} cannot be loaded by {self.runtime.title}: {first_line(error)}",
                self._remedy(),
                code="does-not-load",
            ) from error

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in the order in which they are given."""
        return tuple(info.name for info in self.inputs)

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """Their shapes with the batch axis first; None where a size is free."""
        return tuple(info.shape for info in self.inputs)

    @property
    def input_types(self) -> tuple[str, ...]:
        """Return what they hold; float32 for what is quantized on its way in."""
        return tuple("float32" if info.scale is not None else info.dtype for info in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in the order in which they are returned."""
        return tuple(info.name for info in self.outputs)

    @property
    def batch(self) -> int | None:
        """Samples per invocation; None where any number goes.

        Raises:
            InputError: If the inputs have different fixed batches.
        """
        fixed = {shape[0] for shape in self.input_shapes if shape and shape[0] is not None}
        if len(fixed) > 1:
            raise InputError(
                f"{self.path}: its inputs have different first sizes: {sorted(fixed)}.",
                code="batches-differ",
            )
        return fixed.pop() if fixed else None

    def predict(self, inputs: Sequence[Array]) -> tuple[Array, ...]:
        """Run on a batch of any size; see `Predictor.predict` and `InBatches`.

        Inputs without a common batch are those of one invocation.

        Raises:
            InputError: If the arrays do not fit the inputs, or the file does not run on them.
        """
        arrays = check_inputs(inputs, self.inputs, str(self.path))
        if not self.has_batch:
            return tuple(np.atleast_1d(output) for output in self._invoked(arrays))
        count_samples(arrays, str(self.path))
        return self._in_batches.run(arrays)

    @property
    def has_batch(self) -> bool:
        """Tell whether the first axis of every input is the batch; see `samples_first`."""
        return samples_first(self.input_shapes)

    @cached_property
    def _in_batches(self) -> InBatches:
        return InBatches(
            self._invoked,
            str(self.path),
            self.output_names,
            [info.shape for info in self.outputs],
            batch=self.batch,
            most=_FREE_BATCH,
            fills=[-1 if is_label(info) else 0 for info in self.outputs],
            largest=self._largest,
        )

    def _largest(self, shapes: tuple[Shape, ...]) -> int:
        """Bytes of the largest tensor computed of inputs of these shapes; 0 where not known."""
        return 0

    @property
    def output_kinds(self) -> tuple[OutputKind, ...]:
        """The kind of each output, once `predict` has run."""
        forms = self._in_batches.forms if self.has_batch else ()
        return output_kinds(map(is_label, self.outputs), forms)

    def _invoked(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Run once on real values, and give real values."""
        with self._blaming_inputs(arrays):
            return self._decoded(self._run(self._encoded(arrays)))

    def prepare(self, inputs: Sequence[Array]) -> Prepared:
        """Set the inputs once, for timing invocations alone.

        It holds until the next `prepare` or `predict`.

        Args:
            inputs: One real-valued array per input, of the batch of one invocation.

        Raises:
            InputError: If the arrays do not fit the inputs.
        """
        arrays = check_inputs(inputs, self.inputs, str(self.path))
        with self._blaming_inputs(arrays):
            return self._prepare(self._encoded(arrays))

    @contextmanager
    def _blaming_inputs(self, arrays: Sequence[Array]) -> Iterator[None]:
        """Turn whatever the runtime raises for inputs it cannot run on into an InputError."""
        try:
            yield
        except Exception as error:  # the runtimes raise anything
            shapes = ", ".join(shape_text(array.shape) for array in arrays)
            raise InputError(
                f"{self.path} cannot run on inputs of shape {shapes}: {first_line(error)}",
                code="does-not-run",
            ) from error

    @abstractmethod
    def _prepare(self, arrays: Sequence[Array]) -> Prepared:
        """Set arrays of the stored types; see `prepare`."""

    @abstractmethod
    def _load(
        self, path: Path, threads: int
    ) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        """Load the file and describe its inputs and outputs."""

    @abstractmethod
    def _run(self, arrays: Sequence[Array]) -> Sequence[Array]:
        """Invoke once on arrays of the stored types; give copies of the outputs."""

    def _remedy(self) -> str:
        """Tell what to do with a file that the runtime cannot load; empty if nothing is known."""
        return ""

    def _encoded(self, arrays: Sequence[Array]) -> list[Array]:
        """Real values as the inputs store them, contiguous."""
        return [encode(array, info) for array, info in zip(arrays, self.inputs, strict=True)]

    def _decoded(self, arrays: Sequence[Array]) -> tuple[Array, ...]:
        """Stored outputs as real float32 values."""
        return tuple(decode(array, info) for array, info in zip(arrays, self.outputs, strict=True))


_ORT_PREFIX = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : \w+ : (Load model from .*? failed:)?"
    r"(/onnxruntime_src/\S+ .*?\) )?"
)
_WRAPPED = re.compile(r"Exception encountered when calling (\S+?)\.\s+", re.DOTALL)
"""What Keras puts before the reason, in lines of its own."""
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_TRACED = "in user code:"
"""How TensorFlow begins what a layer raised while it was traced, before the traceback."""
_TRACED_CAUSE = re.compile(r"^\s*\w+(Error|Exception): .+", re.MULTILINE)


def first_line(error: BaseException) -> str:
    """An error's first line, cut at 300 characters, without what runtimes put before it."""
    text = _WRAPPED.sub(r"\1: ", _COLOURS.sub("", _ORT_PREFIX.sub("", str(error))))
    cause = _TRACED_CAUSE.search(text) if text.startswith(_TRACED) else None
    lines = (cause[0] if cause else text).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def is_label(info: TensorInfo) -> bool:
    """Tell whether a tensor holds names of things: the indices of ArgMax, TopK or NMS."""
    return info.scale is None and info.dtype in LABEL_TYPES


def encode(array: Array, info: TensorInfo) -> Array:
    """Real values as the tensor stores them: q = round(x / s) + z, saturated, if quantized."""
    dtype = np.dtype(info.dtype)
    if info.scale is not None and info.zero_point is not None:
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array / info.scale) + info.zero_point, limits.min, limits.max)
    return np.ascontiguousarray(array, dtype)


def decode(array: Array, info: TensorInfo) -> Array:
    """Stored values as real ones, float32: x = s · (q − z) if quantized."""
    values = np.asarray(array, np.float32)
    if info.scale is not None and info.zero_point is not None:
        values = (values - np.float32(info.zero_point)) * np.float32(info.scale)
    return values
