"""The checksum of TFRecord files, CRC-32C, of many bytes at once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_POLYNOMIAL = 0x82F63B78
_LANE = 64
"""Bytes that are taken one after the other; all pieces of so many are taken at once."""
_MASK = 0xA282EAD8

Words = NDArray[np.uint32]


def _table() -> list[int]:
    table = list(range(256))
    for _ in range(8):
        table = [(one >> 1) ^ (_POLYNOMIAL if one & 1 else 0) for one in table]
    return table


_TABLE = _table()
_WORDS: Words = np.array(_TABLE, np.uint32)


def masked_crc32c(content: bytes) -> int:
    """Return the checksum that a TFRecord file stores beside this content.

    Example:
        >>> hex(masked_crc32c(b"123456789"))
        '0xc78ab0e5'
    """
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    """Return the CRC-32C.

    Example:
        >>> hex(crc32c(b"123456789"))
        '0xe3069283'
    """
    if len(content) <= _LANE:
        crc = 0xFFFFFFFF
        for byte in content:
            crc = _TABLE[(crc ^ byte) & 255] ^ crc >> 8
        return crc ^ 0xFFFFFFFF
    # Zeros in front change nothing once what the checksum begins with is in the first four bytes.
    lanes = 1 << (-(-len(content) // _LANE) - 1).bit_length()
    padded = np.zeros(lanes * _LANE, np.uint8)
    start = padded.size - len(content)
    padded[start:] = np.frombuffer(content, np.uint8)
    padded[start : start + 4] ^= 255
    crcs: Words = np.zeros(lanes, np.uint32)
    for column in np.ascontiguousarray(padded.reshape(lanes, _LANE).T):
        crcs = _WORDS[(crcs ^ column) & 255] ^ crcs >> 8
    size = _LANE
    while crcs.size > 1:  # (first, second), (first, second), …
        crcs = _times(_zeros(size), crcs[::2]) ^ crcs[1::2]
        size *= 2
    return int(crcs[0]) ^ 0xFFFFFFFF


@lru_cache(maxsize=64)
def _zeros(size: int) -> Words:
    """Return what ``size`` zero bytes, a power of two, make of each bit of a checksum, (32,)."""
    if size == 1:
        bits: Words = np.uint32(1) << np.arange(32, dtype=np.uint32)
        return np.asarray(_WORDS[bits & 255] ^ bits >> 8)
    half = _zeros(size // 2)
    return _times(half, half)


def _times(matrix: Words, crcs: Words) -> Words:
    """Return what a map, given by what it makes of each bit, makes of checksums."""
    bits = crcs[:, None] >> np.arange(32, dtype=np.uint32) & 1
    found: Any = np.bitwise_xor.reduce(bits * matrix, axis=1)
    return np.asarray(found, np.uint32)
