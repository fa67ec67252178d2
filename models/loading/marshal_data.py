"""Reading Python's marshal format as data.

Keras stores the function of a Lambda layer as a marshalled code object. ``marshal.loads`` would
build that code object, and only for the very Python that wrote it; this reader builds nothing but
numbers, strings and tuples, for Python 2.7 and every Python since 3.5.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_MAX_DEPTH = 20
_REFERENCED = 0x80  # set on a type byte whose value is referred to again later

# The fields of a code object in the order of the stream, by age; the ages differ in what a field
# must be, so that a stream has only one reading that fits. "#" is a 32-bit integer, "*" a value.
_HEADS = {
    "2.7": "argcount# nlocals# stacksize# flags#",
    "3.0": "argcount# kwonly# nlocals# stacksize# flags#",
    "3.8": "argcount# posonly# kwonly# nlocals# stacksize# flags#",
    "3.11": "argcount# posonly# kwonly# stacksize# flags#",
}
_VARIABLES = {
    "2.7": "varnames* freevars* cellvars*",
    "3.0": "varnames* freevars* cellvars*",
    "3.8": "varnames* freevars* cellvars*",
    "3.11": "varnames* kinds*",
}
_TAILS = {
    "2.7": "filename* name* line# lines*",
    "3.0": "filename* name* line# lines*",
    "3.8": "filename* name* line# lines*",
    "3.11": "filename* name* qualname* line# lines* exceptions*",
}
LAYOUTS: dict[str, tuple[str, ...]] = {
    age: tuple(f"{_HEADS[age]} code* consts* names* {_VARIABLES[age]} {_TAILS[age]}".split())
    for age in _HEADS
}
_TYPES: dict[str, type] = {
    "code": bytes,
    "consts": tuple,
    "names": tuple,
    "varnames": tuple,
    "freevars": tuple,
    "cellvars": tuple,
    "kinds": bytes,
}


class NotReadable(ValueError):
    """The bytes are not a marshalled value that this reader knows."""


@dataclass(frozen=True)
class Code:
    """What a code object says, as plain data.

    Attributes:
        age: The first Python whose code objects are laid out this way, a key of ``LAYOUTS``.
        fields: The other fields by name, e.g. ``argcount``, ``code`` and ``consts``.
    """

    age: str
    fields: dict[str, Any]


def read_code(data: bytes) -> Code:
    """Read a marshalled code object, of whatever Python, as data.

    Raises:
        NotReadable: If no known layout fits all of the bytes.
    """
    for age in LAYOUTS:
        try:
            reader = _Reader(data, age)
            value = reader.value()
        except (NotReadable, IndexError, struct.error, UnicodeDecodeError):
            continue
        if isinstance(value, Code) and reader.position == len(data):
            return value
    raise NotReadable("no code object of a known Python")


class _Reader:
    """A cursor over marshalled bytes, reading code objects in the layout of one age."""

    def __init__(self, data: bytes, age: str) -> None:
        self.data = data
        self.age = age
        self.position = 0
        self.references: list[Any] = []
        self.depth = 0

    def take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise NotReadable("the bytes end early")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def integer(self) -> int:
        return int(struct.unpack("<i", self.take(4))[0])

    def value(self) -> Any:
        """Return the next value. A reference counts from before its contents, as in CPython."""
        self.depth += 1
        if self.depth > _MAX_DEPTH:
            raise NotReadable("nested too deeply")
        byte = self.take(1)[0]
        kind = chr(byte & ~_REFERENCED)
        # Python 2 numbers its interned strings, Python 3 whatever is flagged.
        numbered = byte & _REFERENCED or (self.age == "2.7" and kind == "t")
        index = len(self.references)
        if numbered:
            self.references.append(None)
        value = self.contents(kind)
        if numbered:
            self.references[index] = value
        self.depth -= 1
        return value

    def contents(self, kind: str) -> Any:
        match kind:
            case "N":
                return None
            case "T" | "F":
                return kind == "T"
            case "i":
                return self.integer()
            case "g":
                return struct.unpack("<d", self.take(8))[0]
            case "y":
                return complex(*struct.unpack("<dd", self.take(16)))
            case "l":
                return self.long()
            case ".":
                return ...
            case "<" | ">":  # sets, whose members are compared with nothing here
                return tuple(self.values(self.integer()))
            case "s" | "t" if self.age == "2.7":
                return self.take(self.integer())
            case "s":
                return self.take(self.integer())
            case "u" | "t" | "a" | "A":
                return self.take(self.integer()).decode("utf-8", "surrogatepass")
            case "z" | "Z":
                return self.take(self.take(1)[0]).decode("latin-1")
            case "(":
                return tuple(self.values(self.integer()))
            case ")":
                return tuple(self.values(self.take(1)[0]))
            case "r" | "R":
                return self.references[self.integer()]
            case "c":
                return self.code()
        raise NotReadable(f"a value of type {kind!r}")

    def long(self) -> int:
        """Return an integer of more than 32 bits, stored in digits of 15 bits."""
        count = self.integer()
        digits = struct.unpack(f"<{abs(count)}H", self.take(2 * abs(count)))
        size: int = sum(digit << 15 * place for place, digit in enumerate(digits))
        return size if count >= 0 else -size

    def values(self, count: int) -> Iterator[Any]:
        if not 0 <= count <= len(self.data):
            raise NotReadable("a tuple longer than the data")
        return (self.value() for _ in range(count))

    def code(self) -> Code:
        fields: dict[str, Any] = {}
        for field in LAYOUTS[self.age]:
            name = field[:-1]
            fields[name] = self.integer() if field.endswith("#") else self.value()
            if not isinstance(fields[name], _TYPES.get(name, object)):
                raise NotReadable(f"{name} is a {type(fields[name]).__name__}")
        return Code(self.age, fields)
