"""The times of a .tflite file's operators, by LiteRT's profiler, inside XNNPACK too.

Its Python package offers no profiler, but the library that it brings does, as C functions. They are
called in a process of its own: a library of another version that crashes on these calls takes
nothing else down. The kernels and their order are those of the interpreter.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .operators import OperatorMedian, median_ms

WARMUP = 3
_LIBRARIES = ("libLiteRt.so", "libLiteRt.dylib", "libLiteRt.dll")
_CPU = 1  # kLiteRtHwAcceleratorCpu
_WRITE = 1  # kLiteRtTensorBufferLockModeWrite
_TYPE_BYTES = 1024
"""More than a LiteRtRankedTensorType of any version."""
_WORDS = 13
"""Of a ProfiledEventData: tag, type, start, duration, memory before and after (3 each), two words
of metadata, source."""
_OPERATOR, _IN_DELEGATE, _AS_OPERATOR = 2, 4, 8
"""Types of events."""


class Unavailable(Exception):
    """LiteRT's profiler cannot be used; the message says why."""


def library() -> Path:
    """Return the library with LiteRT's C functions.

    Raises:
        Unavailable: If the installed package brings none.
    """
    spec = importlib.util.find_spec("ai_edge_litert")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in map(Path, folders):
        for name in _LIBRARIES:
            if (folder / name).exists():
                return folder / name
    raise Unavailable("the installed LiteRT brings no library with a profiler")


def measure(path: str, inputs: Mapping[str, Any], threads: int, runs: int) -> list[OperatorMedian]:
    """Time the operators of a file, in this process, which may die of it.

    Args:
        path: The file, with all sizes fixed.
        inputs: One array per input, as the file stores them, by the names of its signature.
        threads: Of XNNPACK.
        runs: Invocations that count.

    Raises:
        Unavailable: If the profiler cannot be used.
    """
    return _Profiled(path, threads).times(inputs, runs)


class _Profiled:
    """A compiled model with its profiler."""

    def __init__(self, path: str, threads: int) -> None:
        self._lib = ctypes.CDLL(str(library()))
        self._environment = self._made("LiteRtCreateEnvironment", 0, None)
        self._model = self._made("LiteRtCreateModelFromFile", self._environment, path.encode())
        options = self._made("LiteRtCreateOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        for kind, text in (
            (b"runtime_options_string", b"enable_profiling = true\n"),
            (b"xnnpack", b"num_threads = %d\n" % threads),
        ):
            self._call("LiteRtAddOpaqueOptions", options, self._opaque(kind, text))
        self._compiled = self._made(
            "LiteRtCreateCompiledModel", self._environment, self._model, options
        )
        first = ctypes.c_size_t(0)
        self._signature = self._made("LiteRtGetModelSignature", self._model, first)
        self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._compiled)

    def times(self, inputs: Mapping[str, Any], runs: int) -> list[OperatorMedian]:
        """Run, and read what the profiler saw."""
        names, given = self._buffers("Input")
        _, taken = self._buffers("Output")
        for name, buffer in zip(names, given):
            if name not in inputs:
                raise Unavailable(f"its signature has an input {name}, there is no array for it")
            self._write(ctypes.c_void_p(buffer), inputs[name])
        call = [
            *(self._compiled, ctypes.c_size_t(0)),
            *(ctypes.c_size_t(len(given)), given, ctypes.c_size_t(len(taken)), taken),
        ]
        seen: dict[tuple[int, int, int], list[int]] = {}
        tags: dict[tuple[int, int, int], str] = {}
        for run in range(WARMUP + runs):
            self._call("LiteRtResetProfiler", self._profiler)
            self._call("LiteRtStartProfiler", self._profiler)
            self._call("LiteRtRunCompiledModel", *call)
            self._call("LiteRtStopProfiler", self._profiler)
            count: Counter[tuple[int, int]] = Counter()
            for kind, index, tag, duration in self._events():
                place = (kind, index, count[kind, index])  # each of several delegates counts from 0
                count[kind, index] += 1
                tags[place] = tag
                if run >= WARMUP:
                    seen.setdefault(place, []).append(duration)
        if not seen or any(len(durations) != runs for durations in seen.values()):
            raise Unavailable("its profiler does not report the same operators in every run")
        return [
            OperatorMedian(
                f"[{'Builtin' if kind == _OPERATOR else 'Delegate'}]:{index}",
                tags[kind, index, part],
                median_ms(durations),
            )
            for (kind, index, part), durations in seen.items()
        ]

    def _events(self) -> list[tuple[int, int, str, int]]:
        """Return the operators of the last run: type of event and index, tag, microseconds."""
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        words = (ctypes.c_uint64 * (count.value * 2 * _WORDS))()  # room, should an event be longer
        self._call("LiteRtGetProfilerEvents", self._profiler, count, words)
        if any(words[count.value * _WORDS :]):
            raise Unavailable("its profiler's events are of another version")
        found = []
        for i in range(count.value):
            event = words[i * _WORDS : (i + 1) * _WORDS]
            kind = event[1] & 0xFFFFFFFF  # an int, beside which there may be anything
            if kind not in (_OPERATOR, _IN_DELEGATE, _AS_OPERATOR):
                continue
            tag = (ctypes.cast(event[0], ctypes.c_char_p).value or b"").decode(errors="replace")
            if kind == _OPERATOR and "delegate" in tag.lower():  # the sum of what it holds
                continue
            found.append((kind, event[10], tag, event[3]))
        return found

    def _buffers(self, side: str) -> tuple[list[str], Any]:
        """Return the names of the inputs or outputs, and a buffer for each."""
        count = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{side}s", self._signature, ctypes.byref(count))
        names, buffers = [], (ctypes.c_void_p * count.value)()
        for i in range(count.value):
            at = ctypes.c_size_t(i)
            name = self._made(f"LiteRtGetSignature{side}Name", self._signature, at)
            names.append((ctypes.cast(name, ctypes.c_char_p).value or b"").decode())
            tensor = self._made(f"LiteRtGetSignature{side}TensorByIndex", self._signature, at)
            kind = ctypes.create_string_buffer(_TYPE_BYTES)
            self._call("LiteRtGetRankedTensorType", tensor, kind)
            needs = self._made(
                f"LiteRtGetCompiledModel{side}BufferRequirements",
                self._compiled,
                ctypes.c_size_t(0),
                at,
            )
            buffers[i] = self._made(
                "LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, needs
            )
        return names, buffers

    def _write(self, buffer: Any, array: Any) -> None:
        """Copy an array into a buffer."""
        content, room = array.tobytes(), ctypes.c_size_t()
        self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(room))
        if room.value != len(content):
            raise Unavailable(f"an input takes {room.value} bytes, the array has {len(content)}")
        place = ctypes.c_void_p()
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(place), _WRITE)
        ctypes.memmove(place, content, len(content))
        self._call("LiteRtUnlockTensorBuffer", buffer)

    def _opaque(self, kind: bytes, text: bytes) -> Any:
        """Options as LiteRT hands them on: TOML, freed by it."""
        libc = ctypes.CDLL(None)
        libc.strdup.restype = ctypes.c_void_p
        free = ctypes.cast(libc.free, ctypes.c_void_p)
        content = ctypes.c_void_p(libc.strdup(text))
        return self._made("LiteRtCreateOpaqueOptions", kind, content, free)

    def _made(self, name: str, *arguments: Any) -> Any:
        """Call a function that gives a pointer through its last argument."""
        pointer = ctypes.c_void_p()
        self._call(name, *arguments, ctypes.byref(pointer))
        return pointer

    def _call(self, name: str, *arguments: Any) -> None:
        function = getattr(self._lib, name, None)
        if function is None:
            raise Unavailable(f"the installed LiteRT has no {name}")
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status != 0:
            raise Unavailable(f"{name} failed with status {status}")
