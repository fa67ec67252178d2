"""Cycles of Ethos-U NPUs as Arm's compiler Vela estimates them; no hardware is needed."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import msgspec
from dsconvert.converter.core.blocks import Block, BlockCosts
from dsconvert.converter.core.errors import InputError, MissingExtra, require
from dsconvert.converter.core.types import Choice, Figure

from .forms import form_of
from .measuring import cannot
from .target import NPUS, Target
from .tflite_block import tflite_block

PACKAGE = "ethos-u-vela"
_AT_ONCE = 2
_FASTER = 0.99
"""An estimate has no noise, but a difference of one percent of it says nothing."""
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
    """The version of Vela.

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
    path = Path(path)
    if accelerator not in NPUS:
        raise InputError(f"unknown accelerator {accelerator!r}; allowed: {', '.join(NPUS)}.")
    if not path.is_file():
        raise InputError(f"{path} does not exist or is no file.")
    vela = vela_version()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "ethosu.vela", str(path.resolve())]
        options = ["--accelerator-config", accelerator, "--output-dir", folder]
        done = subprocess.run(
            [*command, *options], cwd=folder, capture_output=True, text=True, check=False
        )
        tables = list(Path(folder).glob("*_summary_*.csv"))
        if done.returncode != 0 or len(tables) != 1:
            lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise InputError(
                f"{path} cannot be compiled for {accelerator} by Vela {vela}: "
                f"{lines[-1][:300] if lines else f'exit code {done.returncode}'}"
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


def estimate_block(block: Block, choices: Sequence[Choice], target: Target) -> BlockCosts:
    """The cycles of a block and of what may replace it.

    A choice that Vela leaves on the CPU, even in part, gets None and a line in the log.

    Raises:
        InputError: If that is so of the convolution itself.
        MissingExtra: If Vela, or what writes .tflite files, is not installed.
    """
    forms: list[Choice | None] = [None, *choices]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(_AT_ONCE) as pool:
        paths = [Path(folder, f"{number}.tflite") for number in range(len(forms))]
        found = list(
            pool.map(lambda choice, path: _cycles(block, choice, target, path), forms, paths)
        )
    original = found[0]
    assert original is not None, "refused before"
    return BlockCosts(
        original=Figure(value=original),
        choices=tuple(None if one is None else _figure(one, original) for one in found[1:]),
    )


def _figure(cycles: int, original: int) -> Figure:
    ratio = cycles / original
    return Figure(value=cycles, ratio_low=ratio, ratio_high=ratio, faster=ratio < _FASTER)


def _cycles(block: Block, choice: Choice | None, target: Target, path: Path) -> int | None:
    """The cycles of one form, if all of it runs on the NPU."""
    try:
        path.write_bytes(tflite_block(form_of(block, choice), target.precision))
        figures = estimate(path, target.device)
    except MissingExtra:
        raise
    except InputError as error:
        cannot(block, choice, error.message.removeprefix(f"{path} "), error)
        return None
    if figures.npu_share < 1:
        cannot(block, choice, f"{target.device} leaves a part of it to the CPU")
        return None
    return figures.cycles
