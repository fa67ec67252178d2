"""Recognising bytecode that computes scale·x + offset, by following it with symbols.

Nothing is run: the instructions are read as data, and whatever is not on the short list below
ends the reading.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .marshal_data import Code, NotReadable, read_code

_CLASSIC = {
    9: "NOP", 11: "NEGATE", 20: "*", 23: "+", 24: "-", 27: "/",
    83: "RETURN", 100: "CONST", 124: "ARGUMENT",
}  # fmt: skip
_BINARY_OP = {0: "+", 5: "*", 10: "-", 11: "/"}
_OPCODES: dict[str, tuple[dict[int, str], ...]] = {
    "2.7": (_CLASSIC | {21: "/"},),  # BINARY_DIVIDE: with a float tensor, the true division
    "3.0": (_CLASSIC,),
    "3.8": (_CLASSIC,),
    "3.11": (
        {  # 3.11 and 3.12
            0: "NOP", 9: "NOP", 11: "NEGATE", 83: "RETURN", 100: "CONST", 122: "BINARY",
            124: "ARGUMENT", 151: "NOP",
        },
        {  # 3.13
            0: "NOP", 30: "NOP", 36: "RETURN", 42: "NEGATE", 45: "BINARY", 83: "CONST",
            85: "ARGUMENT", 149: "NOP",
        },
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Affine:
    """scale·x + offset, and how it was written.

    ``scale`` is 0 for a constant. ``atom`` says whether ``text`` needs no brackets in a product.
    """

    scale: float
    offset: float
    text: str
    atom: bool = True


def read_affine(data: bytes) -> Affine | None:
    """Return the affine function of one argument that marshalled code computes, or None.

    Args:
        data: A marshalled code object of Python 2.7 or 3.5 to 3.13.
    """
    try:
        code = read_code(data)
    except NotReadable:
        return None
    if code.fields["argcount"] != 1:
        return None
    # Pythons of one layout differ in their opcodes: a reading counts if it is the only one.
    readings = {
        _follow(code, instructions(code.fields["code"]), names)
        for names in _OPCODES[code.age]
        for instructions in (_pairs, _words)
    } - {None}
    return readings.pop() if len(readings) == 1 else None


def _pairs(code: bytes) -> Iterator[tuple[int, int]]:
    """Instructions of Python 3.6 and later: always two bytes."""
    yield from zip(code[::2], code[1::2], strict=False)


def _words(code: bytes) -> Iterator[tuple[int, int]]:
    """Instructions up to Python 3.5: one byte, or three from opcode 90 on."""
    position = 0
    while position < len(code):
        wide = code[position] >= 90
        argument = int.from_bytes(code[position + 1 : position + 3], "little") if wide else 0
        yield code[position], argument
        position += 3 if wide else 1


def _follow(
    code: Code, instructions: Iterator[tuple[int, int]], names: dict[int, str]
) -> Affine | None:
    """The value that the instructions return, if they are all on the list and it depends on x."""
    stack: list[Affine] = []
    consts = code.fields["consts"]
    try:
        for opcode, argument in instructions:
            action = names.get(opcode)
            if action == "BINARY":
                action = _BINARY_OP.get(argument)
            match action:
                case "NOP":
                    pass
                case "ARGUMENT" if argument == 0:
                    stack.append(Affine(1.0, 0.0, "x"))
                case "CONST":
                    stack.append(_constant(consts[argument]))
                case "NEGATE":
                    value = stack.pop()
                    stack.append(
                        Affine(-value.scale, -value.offset, f"-{_bracketed(value)}", False)
                    )
                case "+" | "-" | "*" | "/":
                    right, left = stack.pop(), stack.pop()
                    stack.append(_ARITHMETIC[action](left, right))
                case "RETURN":
                    result = stack.pop()
                    finite = math.isfinite(result.scale) and math.isfinite(result.offset)
                    return result if finite and result.scale and not stack else None
                case _:
                    return None
    except (IndexError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return None


def _constant(value: object) -> Affine:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("not a number")
    return Affine(0.0, float(value), repr(value))


def _bracketed(value: Affine) -> str:
    return value.text if value.atom else f"({value.text})"


def _add(a: Affine, b: Affine) -> Affine:
    return Affine(a.scale + b.scale, a.offset + b.offset, f"{a.text} + {b.text}", False)


def _subtract(a: Affine, b: Affine) -> Affine:
    text = f"{a.text} - {_bracketed(b)}"
    return Affine(a.scale - b.scale, a.offset - b.offset, text, False)


def _multiply(a: Affine, b: Affine) -> Affine:
    if a.scale and b.scale:
        raise ValueError("a square is not affine")
    factor, other = (b.offset, a) if a.scale else (a.offset, b)
    text = f"{_bracketed(a)} * {_bracketed(b)}"
    return Affine(factor * other.scale, factor * other.offset, text)


def _divide(a: Affine, b: Affine) -> Affine:
    if b.scale or not a.scale:  # also: Python 2 divides two integers in its own way
        raise ValueError("not affine")
    text = f"{_bracketed(a)} / {_bracketed(b)}"
    return Affine(a.scale / b.offset, a.offset / b.offset, text)


_ARITHMETIC: dict[str, Callable[[Affine, Affine], Affine]] = {
    "+": _add,
    "-": _subtract,
    "*": _multiply,
    "/": _divide,
}
