"""Values and bytes that readers trip over, and how they get into what was sound."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 7, 255, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, 2**63, -(2**63),
    10**30, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), float("-inf"),
    "", " ", "x", "0", "nan", "-1", "1e400", "x" * 255, "x" * 20_000, "a\nb", "a\x00b", "\x1b[2J",
    "[/b]", "[red]x", "ünï\u202ecode", "\ud7ff", "/", "..", "../../outside", "/dev/zero",
    "/etc/passwd",
    "%s%n", "{0}", "a:b", "module:function", "Lambda", "float64",
    (), [], {}, [[]], [None], {"": None}, {"class_name": "Lambda", "config": {}}, [0] * 1000,
)  # fmt: skip
INTEGERS = (0, 1, -1, 2, 3, 7, 8, 255, 256, 65535, 65536, 2**31 - 1, -(2**31), 2**40, 2**62)


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    found: Any = 1
    for _ in range(depth):
        found = [found]
    return found


def value(random: Random) -> Any:
    """An odd value of any kind."""
    if random.random() < 0.04:
        return nested(random.choice((50, 400, 3000)))
    found = copy.deepcopy(random.choice(VALUES))
    return list(found) if isinstance(found, tuple) else found


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every place of a tree of dicts and lists: what holds it, and the key."""
    found, waiting = [], [tree]
    while waiting:
        holder = waiting.pop()
        keys = (
            holder if isinstance(holder, dict)
            else range(len(holder)) if isinstance(holder, list) else ()
        )  # fmt: skip
        for key in keys:
            found.append((holder, key))
            waiting.append(holder[key])
    return found


def change_tree(random: Random, tree: Any) -> Any:
    """The tree with one to three odd changes; the given one stays."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        found = places(tree)
        if not found:
            return value(random)
        holder, key = random.choice(found)
        kind = random.randrange(8)
        if kind < 4:
            holder[key] = value(random)
        elif kind == 4:
            del holder[key]
        elif kind == 5 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif kind == 5:
            holder[str(value(random))[:300]] = copy.deepcopy(holder[key])
        elif kind == 6:
            other, there = random.choice(found)
            holder[key] = copy.deepcopy(other[there]) if there in _keys(other) else None
        else:
            old = holder[key]
            holder[key] = (
                old * random.choice((-1, 0, 1000, 2**31)) if isinstance(old, int | float)
                else old[: len(old) // 2] if isinstance(old, str | list)
                else value(random)
            )  # fmt: skip
    return tree


def _keys(holder: Any) -> Any:
    return holder if isinstance(holder, dict) else range(len(holder))


def change_bytes(random: Random, content: bytes, other: bytes = b"") -> bytes:
    """The content with one to four damages; ``other`` is what pieces are taken from."""
    found = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        if len(found) < 8:
            break
        random.choice(_DAMAGES)(random, found, other or content)
    return bytes(found)


def _flip(random: Random, found: bytearray, other: bytes) -> None:
    found[random.randrange(len(found))] ^= 1 << random.randrange(8)


def _number(random: Random, found: bytearray, other: bytes) -> None:
    size = random.choice((1, 2, 4, 8))
    place = random.randrange(max(1, len(found) - size))
    number = random.choice(INTEGERS) % (1 << 8 * size)
    found[place : place + size] = number.to_bytes(size, random.choice(("little", "big")))


def _cut(random: Random, found: bytearray, other: bytes) -> None:
    del found[random.randrange(len(found)) :]


def _remove(random: Random, found: bytearray, other: bytes) -> None:
    place = random.randrange(len(found))
    del found[place : place + random.choice((1, 4, 100))]


def _fill(random: Random, found: bytearray, other: bytes) -> None:
    place, size = random.randrange(len(found)), random.choice((4, 16, 64))
    size = len(found[place : place + size])
    found[place : place + size] = bytes([random.choice((0, 255))]) * size


def _repeat(random: Random, found: bytearray, other: bytes) -> None:
    place = random.randrange(len(found))
    found[place:place] = found[place : place + random.choice((1, 16, 500))]


def _splice(random: Random, found: bytearray, other: bytes) -> None:
    place, size = random.randrange(len(found)), random.choice((8, 64, 512))
    start = random.randrange(len(other))
    piece = other[start : start + size]
    found[place : place + len(piece)] = piece


Damage = Callable[[Random, bytearray, bytes], None]
_DAMAGES: tuple[Damage, ...] = (
    _flip,
    _flip,
    _number,
    _number,
    _cut,
    _remove,
    _fill,
    _repeat,
    _splice,
)
