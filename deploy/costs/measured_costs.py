"""The cost model: what is known from the cache, and what is measured when it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from dsconvert.base.errors import require
from dsconvert.base.progress import Progress, silent
from dsconvert.converter.core.fitting.styles import block_style
from dsconvert.converter.core.planning.cost_model import Block, BlockCosts
from dsconvert.converter.core.types import Choice

from ..devices.registry import open_device
from ..devices.vela import vela_version
from ..runtimes.registry import find_runtime
from .cache import Cache
from .on_device import SECONDS, described, measure_blocks, usable
from .target import Target
from .vela import estimate_block

Measure = Callable[[Block, Sequence[Choice]], BlockCosts]
"""Measures a block and what may replace it."""
MeasureMany = Callable[[Sequence[tuple[Block, Sequence[Choice]]]], list[BlockCosts]]
"""Measures several blocks at once, each as `Measure` does."""
_AT_ONCE = 8
"""Blocks that are measured in one visit to a device: what an interruption may lose."""


@dataclass(frozen=True)
class MeasuredCosts:
    """A `CostModel` that asks a measurement for what its cache does not know.

    Attributes:
        unit: "ms" or "cycles".
        target: The target in words.
        measure: Measures one block with choices as they are written down.
        cache: What is known.
        progress: Told of one step per block that is measured.
        measure_many: Measures several at once, where one by one takes longer.
    """

    unit: str
    target: str
    measure: Measure
    cache: Cache
    progress: Progress = silent
    measure_many: MeasureMany | None = None

    def costs(self, blocks: Sequence[tuple[Block, Sequence[Choice]]]) -> list[BlockCosts]:
        """The costs of each block and of its choices; see `CostModel`.

        Equal blocks are measured once. A known block that is asked for with other choices is
        measured anew with all of them, so that its figures were always taken together.

        Raises:
            InputError: If a choice cannot be written down, or a convolution itself cannot be run.
        """
        asked: dict[Block, list[Choice]] = {}
        for block, choices in blocks:
            asked.setdefault(block, []).extend(map(_written, choices))
        found: dict[Block, dict[Choice, int]] = {}
        costs: dict[Block, BlockCosts] = {}
        missing: dict[Block, tuple[Choice, ...]] = {}
        for block, wanted in asked.items():
            known = self.cache.load(block)
            before = known.choices if known else ()
            if known and set(wanted) <= set(before):
                found[block], costs[block] = _places(before), known.costs
            else:
                missing[block] = tuple(dict.fromkeys([*before, *wanted]))
        if missing:
            with self.progress("Measuring blocks", len(missing)) as advance:
                for block, choices, measured in self._measured(list(missing.items())):
                    self.cache.save(block, choices, measured)
                    found[block], costs[block] = _places(choices), measured
                    advance()
        return [
            BlockCosts(
                original=costs[block].original,
                choices=tuple(costs[block].choices[found[block][_written(c)]] for c in choices),
            )
            for block, choices in blocks
        ]

    def _measured(
        self, missing: Sequence[tuple[Block, tuple[Choice, ...]]]
    ) -> Iterator[tuple[Block, tuple[Choice, ...], BlockCosts]]:
        """Measure blocks, several at once if that is wanted, and give each as it is known."""
        if self.measure_many is None:
            for block, choices in missing:
                yield block, choices, self.measure(block, choices)
            return
        for start in range(0, len(missing), _AT_ONCE):
            part = missing[start : start + _AT_ONCE]
            for (block, choices), costs in zip(part, self.measure_many(part), strict=True):
                yield block, choices, costs


def _written(choice: Choice) -> Choice:
    """The one choice that stands for all that are written down alike."""
    return block_style(choice.block).written(choice)


def _places(choices: Sequence[Choice]) -> dict[Choice, int]:
    return {choice: place for place, choice in enumerate(choices)}


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
            partial(estimate_block, target=target),
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
    many = partial(measure_blocks, device=device, target=target, seconds=seconds)
    return MeasuredCosts(
        "ms",
        f"{runtime.title} {target.precision}, {threads}, {where}",
        lambda block, choices: many([(block, choices)])[0],
        Cache(cache, conditions),
        progress,
        many,
    )


def _npu_name(device: str) -> str:
    """As Arm writes it: Ethos-U55-128."""
    return device.replace("ethos-u", "Ethos-U")
