"""Estimates for Ethos-U NPUs by Vela, Arm's compiler, without the device."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import msgspec

from dsconvert.base.errors import InputError, require

from .accelerators import NPUS

PACKAGE = "ethos-u-vela"


_OPERATORS = re.compile(r"^(CPU|NPU) operators = (\d+)", re.MULTILINE)


class NpuEstimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What Vela says of one file, with its default system configuration for the accelerator.

    Attributes:
        cycles: Of one inference, those on the NPU only.
        inference_ms: The same at the configuration's clock.
        sram_kib: Peak use of SRAM.
        flash_kib: Use of flash, on and off the chip: the weights, compressed.
        dram_kib: Peak use of DRAM, where an accelerator has it.
        npu_share: The part of the operators that run on the NPU; the others stay on the CPU.
        version: Vela's.
        configuration: The system and the memory mode that it assumes.
    """

    cycles: int
    inference_ms: float
    sram_kib: float
    flash_kib: float
    dram_kib: float
    npu_share: float
    version: str
    configuration: str = ""


def vela_version() -> str:
    """Return the version of Vela.

    Raises:
        MissingExtra: If it is not installed.
    """
    require("ethosu.vela", "ethosu", "to estimate the cycles of Ethos-U NPUs")
    return version(PACKAGE)


def estimate(path: str | Path, accelerator: str) -> NpuEstimate:
    """Compile an int8 .tflite file for an NPU in a process of its own; give Vela's estimate.

    Args:
        path: The file.
        accelerator: Vela's name, e.g. "ethos-u55-128".

    Raises:
        InputError: If there is no such file or accelerator, or Vela cannot compile the file.
        MissingExtra: If Vela is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        return _run(Path(path), accelerator, Path(folder))


def compile_file(path: Path, accelerator: str, output: Path) -> NpuEstimate:
    """Compile an int8 .tflite file for an NPU, and keep what the NPU's driver runs.

    Args:
        path: The file.
        accelerator: Vela's name, e.g. "ethos-u55-128".
        output: Where the compiled .tflite file goes; it is replaced.

    Returns:
        What Vela estimates for the compiled file.

    Raises:
        InputError: If there is no such file or accelerator, Vela cannot compile the file, or no
            operator of the file runs on the NPU.
        MissingExtra: If Vela is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        found = _run(path, accelerator, Path(folder))
        (compiled,) = Path(folder).glob("*_vela.tflite")
        if found.npu_share == 0:
            raise InputError(
                f"no operator of {path.name} runs on {accelerator}, says Vela {found.version}.",
                "Export with --quantize int8.",
                code="nothing-on-the-npu",
            )
        shutil.copyfile(compiled, output)
    return found


def check_accelerator(accelerator: str) -> None:
    """Refuse what is no accelerator of Vela's.

    Raises:
        InputError: With the accelerators.
    """
    if accelerator not in NPUS:
        raise InputError(
            f"unknown accelerator {accelerator!r}; allowed: {', '.join(NPUS)}.",
            code="unknown-device",
        )


def _run(path: Path, accelerator: str, folder: Path) -> NpuEstimate:
    """Let Vela write into a folder, and read its summary."""
    check_accelerator(accelerator)
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file.", code="file-not-found")
    vela = vela_version()
    command = [sys.executable, "-m", "ethosu.vela", str(path.resolve())]
    options = ["--accelerator-config", accelerator, "--output-dir", str(folder)]
    done = subprocess.run(
        [*command, *options], cwd=folder, capture_output=True, text=True, check=False
    )
    tables = list(folder.glob("*_summary_*.csv"))
    if done.returncode != 0 or len(tables) != 1:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise InputError(
            f"{path} cannot be compiled for {accelerator} by Vela {vela}: "
            f"{lines[-1][:300] if lines else f'exit code {done.returncode}'}",
            code="vela-failed",
        )
    with tables[0].open(newline="") as file:
        (row,) = csv.DictReader(file)
    counts = {name: int(count) for name, count in _OPERATORS.findall(done.stdout)}
    operators = sum(counts.values())
    return NpuEstimate(
        cycles=round(float(row["cycles_total"])),
        inference_ms=1e3 * float(row["inference_time"]),
        sram_kib=float(row["sram_memory_used"]),
        flash_kib=sum(float(row[f"{on}_chip_flash_memory_used"]) for on in ("on", "off")),
        dram_kib=float(row["dram_memory_used"]),
        npu_share=counts.get("NPU", 0) / operators if operators else 0.0,
        version=vela,
        configuration=f"{row['system_config']}, {row['memory_mode']}",
    )
