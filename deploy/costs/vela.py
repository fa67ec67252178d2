"""Cycles of Ethos-U NPUs as Arm's compiler Vela estimates them; no hardware is needed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from dsconvert.base.errors import InputError, MissingExtra
from dsconvert.base.predictor import Array
from dsconvert.converter.core.planning.cost_model import Block, BlockCosts
from dsconvert.converter.core.types import Choice, Figure

from ..devices.vela import estimate
from ..runtimes.session import first_line
from .block_files import block_files
from .on_device import cannot
from .relative import Measured
from .target import Target

_AT_ONCE = 2
_FASTER = 0.99
"""An estimate has no noise, but a difference of one percent of it says nothing."""


@dataclass(frozen=True)
class VelaBench:
    """Estimates for an NPU, the same at any time: a `Bench` that needs no reference.

    Attributes:
        target: The NPU.
    """

    target: Target

    def measure(self, asked: Sequence[tuple[Block, Sequence[Choice]]]) -> list[Measured]:
        """Estimate blocks; see `estimate_block`."""
        return [
            Measured(costs=estimate_block(block, choices, self.target)) for block, choices in asked
        ]

    def reference(self) -> None:
        """None: an estimate is always the same."""

    def network(self, path: Path, inputs: Sequence[Array]) -> tuple[float, None]:
        """Estimate a whole file.

        Raises:
            InputError: If Vela cannot compile it.
        """
        return float(estimate(path, self.target.device).cycles), None


def estimate_block(block: Block, choices: Sequence[Choice], target: Target) -> BlockCosts:
    """Return the cycles of a block and of what may replace it.

    A choice that Vela leaves on the CPU, even in part, gets None and a line in the log.

    Raises:
        InputError: If that is so of the convolution itself.
        MissingExtra: If Vela, or what writes .tflite files, is not installed.
    """
    forms: list[Choice | None] = [None, *choices]
    files = block_files(block, forms, target.suffix, target.precision)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(_AT_ONCE) as pool:
        paths = [Path(folder, f"{number}.tflite") for number in range(len(forms))]
        found = list(
            pool.map(
                lambda choice, file, path: _cycles(block, choice, file, target, path),
                forms,
                files,
                paths,
            )
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


def _cycles(
    block: Block, choice: Choice | None, file: bytes | Exception, target: Target, path: Path
) -> int | None:
    """Return the cycles of one form, if all of it runs on the NPU."""
    if isinstance(file, Exception):
        cannot(block, choice, first_line(file), file)
        return None
    try:
        path.write_bytes(file)
        figures = estimate(path, target.device)
    except MissingExtra:
        raise
    except InputError as error:
        cannot(block, choice, error.words.message.removeprefix(f"{path} "), error)
        return None
    if figures.npu_share < 1:
        cannot(block, choice, f"{target.device} leaves a part of it to the CPU")
        return None
    return figures.cycles
