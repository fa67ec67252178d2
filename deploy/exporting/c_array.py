"""A .tflite file as a C array, for programs on microcontrollers.

The header is for TensorFlow Lite for Microcontrollers (TFLM): beside the bytes it has what a
program has to say of a model, its operators, the size of the tensor arena, and how numbers are
stored in its inputs and outputs. C11, C++11 and GCC's older C read it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dsconvert.base.errors import InputError, require
from dsconvert.formats.tflite.compiled import ETHOS_U

from ..profiling.tflm_arena import ALIGNMENT, arena_of

_ADDED = """
    ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND
    BROADCAST_ARGS BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM
    DEPTH_TO_SPACE DEPTHWISE_CONV_2D DEQUANTIZE DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL
    EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD FULLY_CONNECTED GATHER GATHER_ND GREATER
    GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU LESS LESS_EQUAL LOG
    LOG_SOFTMAX LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC MAX_POOL_2D MAXIMUM MEAN MINIMUM
    MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_MAX REDUCE_MIN
    RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2
    SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE
    SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM SVDF TANH TRANSPOSE TRANSPOSE_CONV
    UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
"""The operators that MicroMutableOpResolver has a method for (micro_mutable_op_resolver.h)."""
_SPELLED = {
    "BATCH_MATMUL": "BatchMatMul",
    "CUMSUM": "CumSum",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
}
"""Where the method's name is not the operator's."""
_KEPT = 4096
_KEPT_PER_OPERATOR = 256
"""What TFLM keeps at the end of the arena, beside the multipliers: more than it did with each of
the six files in `tflm_arena`, at pointers of 64 bits."""


class _Tensor(NamedTuple):
    """One input or output: its name, shape and type, and how its integers are meant."""

    name: str
    shape: tuple[int, ...]
    type: str
    scale: float | None
    zero_point: int


class _Contents(NamedTuple):
    """What the header tells of a file."""

    operators: list[str]
    steps: int
    inputs: list[_Tensor]
    outputs: list[_Tensor]


def header_of(
    path: Path,
    name: str,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    sram_bytes: int | None = None,
) -> str:
    """Return the text of a header that holds a .tflite file.

    Args:
        path: The file.
        name: What the array is called; what is no letter, digit or _ becomes _.
        preprocessing: What was done to the stored images: ``scale``, ``mean`` and ``std``.
        sram_bytes: The memory for activations where another program planned it, as Vela does;
            by default TFLM's own plan is computed.

    Raises:
        InputError: If TFLM has no kernel for an operator, or the file's memory cannot be planned.
        MissingExtra: If what reads .tflite files is not installed.
    """
    data = path.read_bytes()
    contents = _read(path, data)
    symbol = re.sub(r"\W", "_", name, flags=re.ASCII)
    symbol = f"_{symbol}" if symbol[:1].isdigit() else symbol
    guard = f"{symbol.upper()}_H_"
    lines = [
        f"/* {_comment(path.name)}: {len(data):,} bytes,",
        f" * SHA-256 {hashlib.sha256(data).hexdigest()}.",
        " * Written by dsconvert. Include it in one source file. */",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        *_memory(path, symbol.upper(), contents.steps, sram_bytes),
        *_resolver(symbol.upper(), contents.operators),
        *_tensors(symbol.upper(), "INPUT", contents.inputs),
        *_preprocessing(symbol, preprocessing),
        *_tensors(symbol.upper(), "OUTPUT", contents.outputs),
        *_array(symbol, data),
        f"#endif /* {guard} */",
    ]
    return "\n".join(lines) + "\n"


def _memory(path: Path, prefix: str, steps: int, sram_bytes: int | None) -> Iterator[str]:
    """Yield the sizes of the activations and of the arena."""
    if sram_bytes is None:
        arena = arena_of(path)
        activations, multipliers = arena.planned, arena.multipliers
        yield "/* Bytes that TFLM's greedy planner takes for the activations. */"
    else:
        activations, multipliers = sram_bytes, 0
        yield "/* Bytes of SRAM that Vela planned for the activations. */"
    yield f"#define {prefix}_ACTIVATION_BYTES {activations}"
    kept = _KEPT + _KEPT_PER_OPERATOR * steps + multipliers
    total = -(-(activations + kept) // 1024) * 1024
    yield "/* The arena to begin with: the activations, and an estimate of what TFLM and its"
    yield " * reference kernels keep there; optimized kernels may need more."
    yield " * interpreter.arena_used_bytes() tells the size to end with. */"
    yield f"#define {prefix}_ARENA_BYTES {total}"
    yield ""


def _resolver(prefix: str, operators: Sequence[str]) -> Iterator[str]:
    """Yield the list of operators."""
    yield f"/* tflite::MicroMutableOpResolver<{prefix}_OPERATORS> resolver;"
    yield f" * {prefix}_ADD_OPERATORS(resolver); */"
    yield f"#define {prefix}_OPERATORS {len(operators)}"
    yield f"#define {prefix}_ADD_OPERATORS(resolver) \\"
    yield "  do { \\"
    for method in operators:
        yield f"    (resolver).{method}(); \\"
    yield "  } while (0)"
    yield ""


def _tensors(prefix: str, kind: str, tensors: Sequence[_Tensor]) -> Iterator[str]:
    """Yield how the numbers of the inputs or of the outputs are stored."""
    for number, one in enumerate(tensors):
        shape = " x ".join(map(str, one.shape))
        yield f"/* {kind.lower()} {number}, {_comment(one.name)}: {one.type.lower()}, {shape}."
        if one.scale is None:
            yield " * The numbers are stored as they are. */"
        else:
            yield " * real = SCALE * (stored - ZERO_POINT) */"
            yield f"#define {prefix}_{kind}{number}_SCALE {one.scale:.9g}f"
            yield f"#define {prefix}_{kind}{number}_ZERO_POINT ({one.zero_point})"
        yield ""


def _preprocessing(symbol: str, preprocessing: Mapping[str, Any] | None) -> Iterator[str]:
    """Yield what is to be done to an image before it is stored in the input."""
    if preprocessing is None:
        yield "/* Preprocessing: unavailable, the export was not told. Prepare an image as for the"
        yield " * training. */"
        yield ""
        return
    yield "/* An image is prepared so: real = (pixel * scale - mean[channel]) / std[channel]. Where"
    yield " * input 0 has integers, stored = round(real / SCALE) + ZERO_POINT, within their range."
    yield " * One mean or std is for all channels. */"
    scale = preprocessing.get("scale")
    for name, values in (
        ("scale", 1.0 if scale is None else scale),
        ("mean", preprocessing.get("mean") or 0.0),
        ("std", preprocessing.get("std") or 1.0),
    ):
        numbers = [values] if isinstance(values, int | float) else list(values)
        told = ", ".join(f"{_float(number)}" for number in numbers)
        yield f"static const float {symbol}_{name}[{len(numbers)}] = {{{told}}};"
    yield ""


def _float(number: float) -> str:
    text = f"{float(number):.9g}"
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _array(symbol: str, data: bytes) -> Iterator[str]:
    """Yield the bytes, aligned as TFLM wants them."""
    prefix = symbol.upper()
    yield "#if defined(__cplusplus)"
    yield f"#define {prefix}_ALIGNED alignas({ALIGNMENT})"
    yield "#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L"
    yield f"#define {prefix}_ALIGNED _Alignas({ALIGNMENT})"
    yield "#else"
    yield f"#define {prefix}_ALIGNED __attribute__((aligned({ALIGNMENT})))"
    yield "#endif"
    yield f"static const unsigned int {symbol}_len = {len(data)};"
    yield f"{prefix}_ALIGNED static const unsigned char {symbol}[{len(data)}] = {{"
    for start in range(0, len(data), 16):
        yield "  " + " ".join(f"0x{byte:02x}," for byte in data[start : start + 16])
    yield "};"
    yield ""


def _comment(text: str) -> str:
    """Return a name that does not end a comment, and no control characters."""
    printable = "".join(char if char.isprintable() else "?" for char in text)
    return printable.replace("*/", "* /").replace("/*", "/ *")


def _read(path: Path, data: bytes) -> _Contents:
    """Read the operators, inputs and outputs of a .tflite file of one graph."""
    schema = require("ai_edge_litert.schema_py_generated", "keras", "to read .tflite files")
    if data[4:8] != b"TFL3":
        raise InputError(f"{path} is no TFLite file.", code="not-a-tflite-file")
    model = schema.Model.GetRootAs(data)
    graph = model.Subgraphs(0)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items()}
    types = {value: name for name, value in vars(schema.TensorType).items()}
    methods: list[str] = []
    for number in range(graph.OperatorsLength()):
        code = model.OperatorCodes(graph.Operators(number).OpcodeIndex())
        builtin = names.get(max(code.BuiltinCode(), code.DeprecatedBuiltinCode()), "")
        custom = (code.CustomCode() or b"").decode(errors="replace")
        method = _method(path, builtin, custom)
        if method not in methods:
            methods.append(method)

    def tensor(index: int) -> _Tensor:
        one = graph.Tensors(index)
        quantized = one.Quantization()
        scaled = quantized is not None and quantized.ScaleLength() > 0
        return _Tensor(
            (one.Name() or b"").decode(errors="replace"),
            tuple(int(one.Shape(axis)) for axis in range(one.ShapeLength())),
            types[one.Type()],
            float(quantized.Scale(0)) if scaled else None,
            int(quantized.ZeroPoint(0)) if scaled and quantized.ZeroPointLength() else 0,
        )

    return _Contents(
        sorted(methods),
        graph.OperatorsLength(),
        [tensor(graph.Inputs(i)) for i in range(graph.InputsLength())],
        [tensor(graph.Outputs(i)) for i in range(graph.OutputsLength())],
    )


def _method(path: Path, builtin: str, custom: str) -> str:
    """Return the method of MicroMutableOpResolver that adds an operator."""
    if builtin == "CUSTOM" and custom == ETHOS_U:
        return "AddEthosU"
    if builtin not in _ADDED.split():
        raise InputError(
            f"{path.name} has the operator {custom or builtin}, for which TFLM has no kernel.",
            "Replace the layer that needs it, or leave --c-array out.",
            code="operator-not-in-tflm",
        )
    parts = builtin.split("_")
    spelled = "".join(part if part[0].isdigit() else part.capitalize() for part in parts)
    return f"Add{_SPELLED.get(builtin, spelled)}"
