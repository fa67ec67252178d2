"""What plans need on a microcontroller: predicted for each, and read off the file of the last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsconvert.base.messages import note

from .results.planned import MemoryUse

if TYPE_CHECKING:
    from dsconvert.converter.core.planning.goals import Goals
    from dsconvert.converter.core.planning.search_space import SearchSpace
    from dsconvert.converter.core.types import Choice, Plan
    from dsconvert.deploy.profiling.rewritten_file import RewrittenFile

    from .model_files import ModelFile
    from .target_files import TargetFiles

_AGAIN = 3
"""Times a plan is made again because its file needs more than was predicted."""


@dataclass(frozen=True)
class PlanMemory:
    """Tells what the .tflite files of plans need.

    Attributes:
        files: Makes them.
        model: Predicts it from the original's file.
    """

    files: TargetFiles
    model: RewrittenFile

    def use(self, rewritten: Any) -> MemoryUse:
        """Write the file of a rewritten network, and read off what it needs."""
        from dsconvert.deploy.profiling.tflm_arena import arena_of

        path = self.files.build(rewritten, "in_memory")
        return MemoryUse(
            precision=self.files.target.precision,
            arena_before=self.model.arena,
            arena_after=arena_of(path).planned,
            flash_before=self.model.flash,
            flash_after=path.stat().st_size,
        )


def plan_memory(opened: ModelFile, files: TargetFiles, original: Path) -> PlanMemory:
    """Make what tells what plans of a model need.

    Args:
        opened: The model.
        files: Makes .tflite files.
        original: The model's own.

    Raises:
        InputError: If its arena cannot be known.
    """
    from dsconvert.converter.backends.backend import backend_for
    from dsconvert.deploy.profiling.rewritten_file import RewrittenFile

    convolutions = backend_for(opened.model, opened.folder).convolutions
    specs = [one.spec for one in convolutions if one.spec is not None]
    return PlanMemory(files, RewrittenFile(original, specs))


def within_memory(
    memory: PlanMemory,
    search_space: SearchSpace,
    goals: Goals,
    chosen: Plan,
    build: Callable[[Plan], Any],
) -> tuple[Plan, MemoryUse]:
    """Choose again while the file of the plan needs more than was predicted.

    Args:
        memory: Tells what files need.
        search_space: What plans are chosen from.
        goals: What was asked for.
        chosen: The plan of the goals.
        build: Rewrites the network by a plan.

    Returns:
        The plan, and what its file needs: more than was asked for if no other was found.
    """
    import msgspec

    from dsconvert.base.errors import DsconvertError

    refused: list[dict[str, Choice]] = []
    tighter = goals
    use = memory.use(build(chosen))
    for _ in range(_AGAIN):
        over = exceeded(goals, use)
        if not over:
            break
        note(f"the file needs more than was predicted ({'; '.join(over)}): planned again")
        refused.append(dict(chosen.chosen))
        limit = tighter.limit("flash")
        most = goals.limit("flash")
        if limit is not None and most is not None:
            share = min(most.of(use.flash_before) / use.flash_after, 1.0)
            limit = msgspec.structs.replace(limit, value=limit.value * share)
            tighter = msgspec.structs.replace(tighter, flash=limit)
        try:
            plan = search_space.plan(tighter, refused)
        except DsconvertError:  # less is not to be had
            break
        chosen = msgspec.structs.replace(plan, goal=goals.words())
        use = memory.use(build(chosen))
    return chosen, use


def exceeded(goals: Goals, use: MemoryUse) -> list[str]:
    """Tell which limits a file does not keep, and by how much."""
    found = []
    for name, before, after in (
        ("arena", use.arena_before, use.arena_after),
        ("flash", use.flash_before, use.flash_after),
    ):
        limit = goals.limit(name)
        if limit is not None and after > limit.of(before):
            found.append(f"{name} ≤ {limit.text} is missed: {after:,} bytes of {before:,}")
    return found
