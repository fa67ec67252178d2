"""What files would need on devices that are not there: Ethos-U NPUs and microcontrollers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dsconvert.base.errors import InputError
from dsconvert.base.files import sha256
from dsconvert.formats.tflite.compiled import check_not_compiled

from ..devices.accelerators import MCU, NPUS
from ..devices.vela import estimate as ask_vela
from .model_stats import model_stats
from .records import Estimate, Measurement
from .tflm_arena import Arena, arena_of

_PLANNER = "TFLM's greedy plan of the file's tensors"
_QUANTIZED = frozenset(("INT8", "UINT8", "INT16"))


def estimate_measurements(paths: Sequence[str | Path], device: str) -> list[Measurement]:
    """Estimate .tflite files for a device that is not there.

    Args:
        paths: The files.
        device: One of Vela's accelerators, e.g. "ethos-u55-128": cycles, time and memory as Arm's
            compiler estimates them. Or "mcu": the memory that TensorFlow Lite for Microcontrollers
            needs, without any time; see `dsconvert.deploy.profiling.tflm_arena`.

    Returns:
        One measurement per file without latency, whose `Measurement.estimate` says it all.

    Raises:
        InputError: If there is no such device, a file is no .tflite file, was compiled for an NPU
            or cannot be estimated otherwise, or an NPU is asked for a file that is not quantized.
        MissingExtra: If Vela, or what reads .tflite files, is not installed.
    """
    if device != MCU and device not in NPUS:
        raise InputError(
            f"unknown device {device!r}; allowed: {MCU}, {', '.join(NPUS)}.", code="unknown-device"
        )
    files = [Path(path) for path in paths]
    for path in files:
        _check(path, device)
    arenas = [arena_of(path) for path in files]
    if device != MCU:
        for path, arena in zip(files, arenas, strict=True):
            if not arena.types & _QUANTIZED:
                raise _not_quantized(path, device)
    found = []
    for path, arena in zip(files, arenas, strict=True):
        estimate, notes = _mcu(path, arena) if device == MCU else _npu(path, device)
        found.append(_measurement(path, device, arena, estimate, notes))
    return found


def _check(path: Path, device: str) -> None:
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file.", code="file-not-found")
    if path.suffix.lower() != ".tflite":
        raise InputError(
            f"{path}: {device} runs .tflite files only.",
            f"Try: dsconvert export {path} -o {path.with_suffix('.tflite').name} "
            "--quantize int8 --calibration IMAGES",
            code="runtime-not-on-device",
        )
    check_not_compiled(path)


def _not_quantized(path: Path, device: str) -> InputError:
    return InputError(
        f"{path} computes in float: {device} runs int8 files only.",
        f"Export it anew: dsconvert export MODEL -o {path.name} "
        "--quantize int8 --calibration IMAGES",
        code="float-file",
    )


def _npu(path: Path, device: str) -> tuple[Estimate, list[str]]:
    found = ask_vela(path, device)
    notes = ["estimated by a compiler, not measured: as good as its model of the memory"]
    if found.npu_share < 1:
        notes.append(
            f"{1 - found.npu_share:.0%} of the operators stay on the CPU: their time is not in it"
        )
    return Estimate(
        kind="npu",
        method=f"Vela {found.version} for {device} ({found.configuration})",
        cycles=found.cycles,
        inference_ms=found.inference_ms,
        sram_kib=found.sram_kib,
        flash_kib=found.flash_kib,
        dram_kib=found.dram_kib,
        npu_share=found.npu_share,
    ), notes


def _mcu(path: Path, arena: Arena) -> tuple[Estimate, list[str]]:
    notes = [
        "planned from the file, not measured; what the interpreter and its kernels keep in the "
        f"arena comes on top: {arena.multipliers / 1024:.1f} KiB of multipliers and more",
        "flash is the file, without the interpreter's code",
    ]
    if arena.floor < arena.planned:
        notes.append(f"no plan needs less than {arena.floor / 1024:.1f} KiB")
    if arena.kernels & _QUANTIZED and not arena.types & _QUANTIZED:
        notes.append("TFLM has no kernels for weights in int8 with activations in float")
    if "FLOAT16" in arena.kernels | arena.types:
        notes.append("TFLM has no kernels for float16")
    return Estimate(
        kind="mcu",
        method=_PLANNER,
        flash_kib=path.stat().st_size / 1024,
        arena_kib=arena.planned / 1024,
    ), notes


def _measurement(
    path: Path, device: str, arena: Arena, estimate: Estimate, notes: Sequence[str]
) -> Measurement:
    facts = model_stats(path, arena.input_shapes)
    first = arena.input_shapes[0] if arena.input_shapes else ()
    return Measurement(
        path=str(path),
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        runtime="none",
        runtime_version="",
        cpu=device,
        threads=1,
        batch=first[0] if first else 1,
        warmup=0,
        runs=0,
        startup=None,
        latency=None,
        macs=facts.macs,
        weight_bytes=facts.weight_bytes,
        activation_bytes=facts.activation_bytes,
        estimate=estimate,
        notes=tuple(notes),
    )
