"""ONNX's own node tests, put to the ONNX import: which of them, how they are run, how they went.

The cases come with the onnx package (``onnx.backend.test``): models of the newest opset with inputs
and expected outputs, one for each behaviour of an operator, and "expanded" ones that spell an
operator out in others. Some feed as inputs what a CNN file holds as constants (shapes, axes, pads,
weights): `bound` makes initialisers of those first.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx

# fmt: off
ALL_INPUTS = frozenset([
    "Add", "And", "Attention", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Concat", "Einsum",
    "Equal", "FlexAttention", "Greater", "GreaterOrEqual", "Less", "LessOrEqual",
    "LinearAttention", "MatMul", "Max", "Mean", "Min", "Mul", "Or", "Pow", "Sub", "Sum", "Where",
    "Xor",
])
# fmt: on
"""Operators that take several activations. Of every other one only the first input is data.

Div and Mod are not here: the import feeds random numbers, 0 among them, and whole numbers cannot be
divided by that.
"""
NEWEST_OPSET, NEWEST_IR = 26, 11
"""The newest that ONNX Runtime runs; cases of newer ones are run as of these."""

FOLDED = frozenset(["Constant", "ConstantOfShape", "EyeLike", "Range", "Shape", "Size"])
"""Operators that need no handler: what they give does not depend on what is in the inputs."""

TYPES = {
    "STRING": "string tensors",
    "BFLOAT16": "bfloat16",
    "COMPLEX64": "complex numbers",
    "COMPLEX128": "complex numbers",
}
"""Element types that the import does not read, and what they are called."""

PATTERNS = {
    r"FLOAT8|FLOAT4|e4m3|e5m2|e8m0|float4": "8-bit and 4-bit floats",
    r"INT4|INT2|int4|int2": "4-bit and 2-bit integers",
    r"training|^test_dropout.*mask": "training mode",
    r"^test_(identity_(sequence|opt)|.*_seq(_|$))": "sequences and optionals",
    r"^test_(sce|nllloss)_": "losses",
    r"^test_(blackman|hamming|hann)window": "the length of a window as an activation",
}
"""Names of cases that are no business of a CNN's inference, and why."""

KNOWN = {
    r"^reduce_log_sum_exp_.*_expanded$": "the original computes eˣ in float64, Keras in float32",
    r"^reduce_(max|min)_empty_set$": "Keras refuses the largest of no values",
    r"^resize_downsample_scales_(linear|cubic)_align_corners$": (
        "where scales give no whole size, ONNX Runtime aligns the corners of the rounded size, and "
        "so does the import"
    ),
    r"^maxunpool_export_with_output_shape$": (
        "ONNX Runtime counts places in the output that is asked for, and so does the import"
    ),
    r"^lstm_with_peepholes$": "Keras' LSTM has no peephole connections",
    r"^sub_uint64$": "Keras computes 64-bit unsigned numbers in 32 bits",
}
"""Cases of covered operators that fail, by name, and why they are let to."""


@dataclass(frozen=True)
class Case:
    """One of ONNX's node tests.

    Attributes:
        name: As onnx calls it, without ``test_``.
        operator: The operator under test; for an expanded case the one that is spelled out.
        model: The graph, its inputs bound as far as a CNN file would have them as constants.
        inputs: What it is fed, in the order of the graph's inputs.
        expected: What it gives.
        rtol: The relative tolerance that onnx asks for.
        atol: The absolute one.
    """

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: tuple[np.ndarray, ...]
    expected: tuple[np.ndarray, ...]
    rtol: float
    atol: float

    @property
    def operators(self) -> set[str]:
        """The operators in its graph."""
        return {node.op_type for node in self.model.graph.node}


@dataclass(frozen=True)
class Outcome:
    """What became of a case: left out with a reason, failed with what went wrong, or passed."""

    case: str
    operator: str
    left_out: str = ""
    failure: str = ""

    @property
    def passed(self) -> bool:
        return not self.left_out and not self.failure


@cache
def cases() -> tuple[tuple[Case, str], ...]:
    """Every case of onnx's default domain with the reason to leave it out, or ""."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # some cases overflow on purpose while they are made
        from onnx.backend.test.loader import load_model_tests

        # Older releases of onnx keep the cases in files, and give no models here.
        found = [test for test in load_model_tests(kind="node") if test.model is not None]
    operators: dict[str, str] = {
        test.name: test.model.graph.node[0].op_type
        for test in found
        if "_expanded" not in test.name and test.model.graph.node
    }
    collected = []
    for test in found:
        base = re.sub(r"_expanded.*", "", test.name)
        domains = {node.domain for node in test.model.graph.node}
        if domains - {"", "ai.onnx"} or base not in operators:
            continue
        collected.append(_case(test, operators[base]))
    return tuple(collected)


def _case(test: Any, operator: str) -> tuple[Case, str]:
    inputs, expected = test.data_sets[0]
    inputs, expected = ([_array(value) for value in values] for values in (inputs, expected))
    name = test.name.removeprefix("test_")
    reason = _reason(test.name, test.model.graph, [*inputs, *expected])
    if reason:
        return Case(name, operator, test.model, (), (), test.rtol, test.atol), reason
    model, data = bound(test.model, inputs, all_inputs=operator in ALL_INPUTS)
    if not data or operator in FOLDED:
        reason = "constant whatever is fed: folded while reading"
    return Case(name, operator, model, data, tuple(expected), test.rtol, test.atol), reason


def _array(value: Any) -> Any:
    """Numbers and tensors as arrays, sequences as they are."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic | float | int) else value


def _reason(name: str, graph: onnx.GraphProto, values: Iterable[Any]) -> str:
    for pattern, reason in PATTERNS.items():
        if re.search(pattern, name):
            return reason
    for value in [*graph.input, *graph.output]:
        if value.type.WhichOneof("value") != "tensor_type":
            return "sequences and optionals"
        element = onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type)
        if element in TYPES:
            return TYPES[element]
    return "" if all(isinstance(value, np.ndarray) for value in values) else "no array"


def bound(
    model: onnx.ModelProto, inputs: Iterable[Any], *, all_inputs: bool
) -> tuple[onnx.ModelProto, tuple[np.ndarray, ...]]:
    """A copy of a model whose inputs are initialisers, but for the first or for all data.

    Args:
        model: The model.
        inputs: A value for each of its inputs.
        all_inputs: Leave every input what it is.

    Returns:
        The copy, and the values of the inputs that it still has.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = [value.name for value in copy.graph.input]
    data = dict(zip(names, map(np.asarray, inputs), strict=True))
    for name in names[len(names) if all_inputs else 1 :]:
        copy.graph.initializer.append(onnx.numpy_helper.from_array(data.pop(name), name))
    kept = [value for value in copy.graph.input if value.name in data]
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    copy.ir_version = min(copy.ir_version, NEWEST_IR)
    for opset in copy.opset_import:
        opset.version = min(opset.version, NEWEST_OPSET)
    return copy, tuple(data.values())


def run(case: Case) -> str:
    """Import a case's graph and compare what the Keras model gives.

    Returns:
        What went wrong, or "".
    """
    from dsconvert.models.onnx_import import import_onnx

    try:
        imported = import_onnx(case.model)
        got = outputs(imported, case.inputs)
    except Exception as error:  # whatever it is, it is a failure of this case
        return f"{type(error).__name__}: {error}".replace("\n", " ")[:300]
    return differences(got, case)


def outputs(imported: Any, inputs: Iterable[np.ndarray]) -> list[np.ndarray]:
    """What an imported model gives for ONNX inputs, in ONNX's axis order."""
    fed = [
        np.transpose(value, axes) for value, axes in zip(inputs, imported.input_axes, strict=True)
    ]
    given = call(imported.model, fed)
    return [
        np.transpose(np.asarray(value), np.argsort(axes))
        for value, axes in zip(given, imported.output_axes, strict=True)
    ]


def call(model: Any, tensors: Sequence[Any]) -> list[Any]:
    """What a Keras model gives, however its inputs and outputs are packed."""
    import keras

    packed = keras.tree.pack_sequence_as(model.input, list(tensors))
    return keras.tree.flatten(model(packed, training=False))


def differences(got: list[np.ndarray], case: Case) -> str:
    """In what the outputs are not the expected ones, or ""."""
    for mine, expected in zip(got, case.expected, strict=True):
        expected = np.asarray(expected)
        if mine.shape != expected.shape:
            return f"shape {mine.shape}, expected {expected.shape}"
        if _kind(mine) != _kind(expected):
            return f"type {mine.dtype}, expected {expected.dtype}"
        if not expected.size:
            continue
        finite = np.abs(expected[np.isfinite(expected)].astype(float))
        # onnx's own 1e-7 is below the rounding of float32 sums: their order is free.
        step = 1e-3 if expected.dtype == np.float16 else 1e-6
        atol = max(case.atol, step * finite.max(initial=0.0)) if _kind(expected) == "f" else 0
        if not np.allclose(mine, expected, case.rtol if atol else 0, atol, equal_nan=True):
            worst = np.abs(mine.astype(float) - expected.astype(float)).max()
            return f"values differ by up to {worst:.3g}"
    return ""


def _kind(array: np.ndarray) -> str:
    """Signed and unsigned, short and long integers are one: indices are int32 in Keras."""
    return {"u": "i"}.get(array.dtype.kind, array.dtype.kind)


REFUSED = "ONNX Runtime, against which the import holds its result, does not run it"


def covered() -> frozenset[str]:
    """The operators that the import has handlers for."""
    from dsconvert.models.onnx_import import ops
    from dsconvert.models.onnx_import.registry import HANDLERS

    ops.load()
    return frozenset(HANDLERS)


def known(case: str) -> str:
    """Why a case is let to fail, or ""."""
    return next((why for pattern, why in KNOWN.items() if re.search(pattern, case)), "")


def outcomes(covered: frozenset[str]) -> list[Outcome]:
    """Run every case of which all operators are covered.

    Args:
        covered: The names of the operators that the import has handlers for.

    Returns:
        One for each case of a covered operator; the others are no business of the import.
    """
    results = []
    for case, reason in cases():
        if not case.operators <= covered | FOLDED:
            continue
        failure = "" if reason else run(case)
        if "ONNX Runtime refuses" in failure or "does not run in ONNX Runtime" in failure:
            reason, failure = REFUSED, ""
        results.append(Outcome(case.name, case.operator, reason, failure))
    return results
