"""Files to be measured, opened here: what they take, and what is known of their outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from dsconvert.base.errors import InputError
from dsconvert.base.image_layout import arrange, choose
from dsconvert.base.input_size import InputSizes, fixed_shapes
from dsconvert.base.predictor import Array

from ..devices.device import Case
from ..runtimes.registry import reference_runtime
from ..runtimes.runtime import Runtime
from ..runtimes.samples import check_inputs, random_count, random_inputs
from ..runtimes.session import Session
from ..runtimes.tensor_info import TensorInfo
from ..runtimes.unknown_files import check_runs_apart
from ..verification.device_outputs import wrong_answer

Inputs = Mapping[str, Array] | Sequence[Array] | Array
"""Arrays by input name, or in the order of the inputs, or the one array of the one input."""


class RandomInputs(NamedTuple):
    """Random numbers to run on.

    Attributes:
        seed: Of them.
        sizes: Where a file leaves sizes free.
    """

    seed: int
    sizes: InputSizes = ()

    def arrays(self, session: Session) -> tuple[Array, ...]:
        """Return one invocation's inputs for a file."""
        return random_inputs(self.infos(session), 1, self.seed)

    def infos(self, session: Session) -> tuple[TensorInfo, ...]:
        """Return a file's inputs with the sizes in them."""
        if not self.sizes:
            return session.inputs
        shapes = fixed_shapes(
            session.input_names,
            session.input_shapes,
            self.sizes,
            channels_first=session.path.suffix == ".onnx",
        )
        return tuple(
            msgspec.structs.replace(info, shape=shape)
            for info, shape in zip(session.inputs, shapes, strict=True)
        )


class ProfiledFile(NamedTuple):
    """A file and the runtime to run it in.

    Attributes:
        case: What a device is asked.
        expected: This machine's outputs; None if this machine is the device, or it cannot run it.
        wrong: Why the runtime computes something else than the default of the format; empty if it
            does not, or if that is not known here.
    """

    case: Case
    expected: tuple[Array, ...] | None
    wrong: str = ""


def open_file(
    path: Path, chosen: Runtime, inputs: Inputs | RandomInputs, threads: int, here: bool
) -> ProfiledFile:
    """Load a file to see that it can be, what it takes and, to compare with, what it gives.

    The default runtime of its format tells this, where it is installed: another one is compared
    with it on this machine, on several samples, and one that only a board has need not be
    installed here.

    Args:
        path: The file.
        chosen: The runtime that is measured.
        inputs: What to run it on.
        threads: Of the runtime.
        here: Whether this machine is the device.

    Raises:
        InputError: If the file, or the inputs, cannot be used.
        MissingExtra: If the runtime is needed here and not installed.
    """
    check_runs_apart(path)
    reference = reference_runtime(path, chosen.name)
    session = reference.open(path, threads)
    arrays = inputs_for(session, inputs)
    case = Case(path, chosen.name, arrays, session.inputs, session.outputs)
    session.prepare(arrays)  # whether they fit
    wrong = ""
    if reference is not chosen and (here or chosen.version):
        other = chosen.open(path, threads)
        wrong = _difference(session, other, arrays, inputs)
        session = other
    if here:
        return ProfiledFile(case, None, wrong)
    try:
        prepared = session.prepare(arrays)
        prepared.run()
    except Exception:  # it may run there all the same, and is not compared
        return ProfiledFile(case, None, wrong)
    return ProfiledFile(case, prepared.read(), wrong)


def inputs_for(session: Session, inputs: Inputs | RandomInputs) -> tuple[Array, ...]:
    """Return one invocation's inputs for a file.

    Args:
        session: The file, opened.
        inputs: What to take them from.

    Raises:
        InputError: If they do not fit.
    """
    if isinstance(inputs, RandomInputs):
        try:
            return inputs.arrays(session)
        except InputError as error:
            said = error.words
            raise InputError(
                f"{session.path}: {said.message}", said.hint, code=error.code
            ) from error
    arrays = _arranged(session, inputs)
    for i, (array, info) in enumerate(zip(arrays, session.inputs, strict=True)):
        if info.shape:
            size = info.shape[0] or 1
            if len(array) < size:
                raise InputError(
                    f"{session.path}: input {info.name} takes {size} samples at once, "
                    f"the array holds {len(array)}.",
                    code="shape-mismatch",
                )
            arrays[i] = array[:size]
    return tuple(arrays)


def _arranged(session: Session, inputs: Inputs) -> list[Array]:
    """Return all of the given samples, in the order and the layout of the file's inputs."""
    if isinstance(inputs, Mapping):
        missing = [name for name in session.input_names if name not in inputs]
        if missing:
            raise InputError(
                f"{session.path}: no array for input {', '.join(missing)}; "
                f"there are arrays for {', '.join(inputs)}.",
                code="inputs-missing",
            )
        inputs = [inputs[name] for name in session.input_names]
    arrays = [inputs] if isinstance(inputs, np.ndarray) else list(inputs)
    if len(arrays) == len(session.inputs):  # one file may take images as NHWC, the next as NCHW
        arrays = [
            arrange(array, choose(array.shape, info.shape, channels_first=False))
            for array, info in zip(map(np.asarray, arrays), session.inputs, strict=True)
        ]
    return list(check_inputs(arrays, session.inputs, str(session.path)))


def _difference(
    reference: Session,
    other: Session,
    arrays: Sequence[Array],
    inputs: Inputs | RandomInputs,
) -> str:
    """Tell why two runtimes do not compute the same of a file; empty if they do.

    In int8 they may round each value to the next step, so that of one sample alone the outputs may
    differ by as much as the quantization costs: they are compared on several.
    """
    infos = [
        msgspec.structs.replace(info, shape=(None, *info.shape[1:])) if info.shape else info
        for info in (
            inputs.infos(reference) if isinstance(inputs, RandomInputs) else reference.inputs
        )
    ]
    try:
        count = random_count(infos, 1)
        samples = (
            list(random_inputs(infos, count, inputs.seed))
            if isinstance(inputs, RandomInputs)
            else [array[:count] for array in _arranged(reference, inputs)]
        )
        expected, got = reference.predict(samples), other.predict(samples)
    except InputError:  # its outputs have no batch axis: one invocation tells what it can
        samples = list(arrays)
        expected, got = (_invoked(session, arrays) for session in (reference, other))
    wrong = wrong_answer(reference.path, reference.outputs, expected, got, samples)
    return f"{wrong} (against {reference.runtime.title})" if wrong else ""


def _invoked(session: Session, arrays: Sequence[Array]) -> tuple[Array, ...]:
    prepared = session.prepare(arrays)
    prepared.run()
    return prepared.read()
