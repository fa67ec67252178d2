"""The cost model: what is known from the cache, and what is measured when it is not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from dsconvert.base.errors import require
from dsconvert.base.predictor import Array
from dsconvert.base.progress import Progress, silent
from dsconvert.converter.core.fitting.styles import block_style
from dsconvert.converter.core.planning.cost_model import Block, BlockCosts
from dsconvert.converter.core.types import Choice

from ..devices.registry import open_device
from ..devices.vela import vela_version
from ..runtimes.registry import find_runtime
from .cache import Cache, KnownCosts
from .on_device import SECONDS, DeviceBench, described, usable
from .relative import Measured, scaled
from .target import Target
from .vela import VelaBench

logger = logging.getLogger(__name__)

Asked = Sequence[tuple[Block, Sequence[Choice]]]
"""Blocks, each with what may replace it."""
_AT_ONCE = 8
"""Blocks that are measured in one visit to a device: what an interruption may lose."""


_TOGETHER, _START = 1.25, 0.25
"""How much of their network blocks may seem to cost, and, for being started, each of them of the
reference block. Those of ten networks cost 0.02 to 1.16 of it without that; more comes from a
moment when the machine was busy."""


class Bench(Protocol):
    """What measures blocks on a target, or estimates them."""

    def measure(self, asked: Asked) -> list[Measured]:
        """Measure blocks, with choices as they are written down: all forms of one in turns."""

    def reference(self) -> float | None:
        """Measure the reference block: its time now; None where costs need none."""

    def network(self, path: Path, inputs: Sequence[Array]) -> tuple[float, float | None]:
        """Measure a whole file and, in turns with it, the reference block."""


@dataclass(frozen=True)
class MeasuredCosts:
    """A `CostModel` that asks a measurement for what its cache does not know.

    Costs are kept relative to a reference block (see `relative`). They are given as of one moment:
    of the measurement of a whole network, or of the first time that costs are asked for.

    Attributes:
        unit: "ms" or "cycles".
        target: The target in words.
        bench: What measures.
        cache: What is known.
        progress: Told of one step per block that is measured.
        present: What the reference block takes at the moment that the costs are of; None to
            measure it when it is needed.
        whole: What the network that holds the blocks costs at that moment; None if it is not known.
    """

    unit: str
    target: str
    bench: Bench
    cache: Cache
    progress: Progress = silent
    present: float | None = None
    whole: float | None = None

    def beside(self, network: Path, inputs: Sequence[Array]) -> tuple[float, MeasuredCosts]:
        """Measure a whole network, and give the costs that blocks have at the same moment.

        Args:
            network: Its file, in the target's format and precision.
            inputs: One array per input, (n, ...), of which the first sample is run on.

        Returns:
            What the network costs, and the cost model whose figures can be set against that.

        Raises:
            InputError: If the file does not run on the target.
        """
        cost, present = self.bench.network(network, inputs)
        return cost, replace(self, present=present, whole=cost)

    def costs(self, blocks: Asked) -> list[BlockCosts]:
        """Return the costs of each block and of its choices; see `CostModel`.

        Equal blocks are measured once. A known block that is asked for with other choices is
        measured anew with all of them, so that its figures were always taken together. So is one
        where the blocks together would cost more than the network that holds them.

        Raises:
            InputError: If a choice cannot be written down, or a convolution itself cannot be run.
        """
        answers = self._asked(blocks)
        if self._excess(answers) > 1:
            logger.info("blocks seem to cost more than their network: measured again")
            answers = self._asked(blocks, anew=True)
        excess = self._excess(answers)
        # What is still too much was measured at a moment unlike the network's: shares stay right.
        return answers if excess <= 1 else [scaled(one, 1 / excess) for one in answers]

    def _excess(self, answers: Sequence[BlockCosts]) -> float:
        """Return what blocks cost together as a share of the most that they can; 0 for estimates.

        Estimates are the same at any time, and of a whole network they hold what is done at once.
        """
        if self.whole is None or self.present is None:
            return 0.0
        most = _TOGETHER * self.whole + _START * self.present * len(answers)
        return sum(one.original.value for one in answers) / most

    def _asked(self, blocks: Asked, *, anew: bool = False) -> list[BlockCosts]:
        """Return the costs of blocks, from the cache where they are there unless asked for anew."""
        asked: dict[Block, list[Choice]] = {}
        for block, choices in blocks:
            asked.setdefault(block, []).extend(map(_written, choices))
        known: dict[Block, KnownCosts] = {}
        missing: dict[Block, tuple[Choice, ...]] = {}
        for block, wanted in asked.items():
            found = self.cache.load(block)
            before = found.choices if found else ()
            if found and set(wanted) <= set(before) and not anew:
                known[block] = found
            else:
                missing[block] = tuple(dict.fromkeys([*before, *wanted]))
        if missing:
            with self.progress("Measuring blocks", len(missing)) as advance:
                for fresh in self._measured(list(missing.items())):
                    self.cache.save(fresh)
                    known[fresh.block] = fresh
                    advance()
        return [self._picked(known[block], choices) for block, choices in blocks]

    def _measured(
        self, missing: Sequence[tuple[Block, tuple[Choice, ...]]]
    ) -> Iterator[KnownCosts]:
        """Measure several blocks at once, and give each as it is known."""
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            for (block, choices), found in zip(part, self.bench.measure(part), strict=True):
                yield KnownCosts(
                    conditions=self.cache.conditions,
                    block=block,
                    choices=choices,
                    costs=found.shares,
                    reference=found.reference,
                )

    def _picked(self, known: KnownCosts, choices: Sequence[Choice]) -> BlockCosts:
        """Return the costs of some choices, as of the moment that all are of."""
        costs = known.costs
        if known.reference is not None:
            costs = scaled(costs, self._present)
        places = {choice: place for place, choice in enumerate(known.choices)}
        picked = tuple(costs.choices[places[_written(choice)]] for choice in choices)
        return BlockCosts(original=costs.original, choices=picked)

    @cached_property
    def _present(self) -> float:
        present = self.bench.reference() if self.present is None else self.present
        assert present is not None, "what has shares has a reference"
        return present


def _written(choice: Choice) -> Choice:
    """Return the one choice that stands for all that are written down alike."""
    return block_style(choice.block).written(choice)


def measured_costs(
    target: Target,
    *,
    cache: Path | None = None,
    progress: Progress = silent,
    seconds: float = SECONDS,
) -> MeasuredCosts:
    """The costs of blocks on a target: timed on this machine or a board, or estimated for an NPU.

    Args:
        target: Where the network shall run.
        cache: Folder of what is known; None for `cache_folder`.
        progress: Told of one step per block that is measured.
        seconds: Time to spend on one block, unless 30 invocations of each form take longer.

    Raises:
        InputError: If the device cannot be reached, lacks the runtime, or is emulated.
        MissingExtra: If the runtime, Vela, or what reaches the device is not installed.
    """
    if target.estimated:
        vela = vela_version()
        return MeasuredCosts(
            "cycles",
            f"{_npu_name(target.device)} int8, estimated by Vela {vela}",
            VelaBench(target),
            Cache(cache, {"vela": vela, "device": target.device}),
            progress,
        )
    runtime = find_runtime(target.runtime)
    if target.on_host:
        require(runtime.module, runtime.extra, f"to measure blocks in {runtime.title}")
    threads = "1 thread" if target.threads == 1 else f"{target.threads} threads"
    device = open_device(target.device)
    info = usable(device, target)
    conditions = {
        "runtime": runtime.title,
        "threads": str(target.threads),
        "precision": target.precision,
        "device": target.device,
        **described(info, target),
    }
    where = info.cpu if target.on_host else f"{info.cpu} ({info.name})"
    return MeasuredCosts(
        "ms",
        f"{runtime.title} {target.precision}, {threads}, {where}",
        DeviceBench(device, target, seconds),
        Cache(cache, conditions),
        progress,
    )


def _npu_name(device: str) -> str:
    """As Arm writes it: Ethos-U55-128."""
    return device.replace("ethos-u", "Ethos-U")
