"""A model with its data and its target, ready to be planned for."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dsconvert.base.messages import note

from .data_for import check_sources, data_for
from .finite_weights import check_weights
from .model_files import Kind, ModelFile, kind_of_source, open_model

if TYPE_CHECKING:
    from dsconvert.base.progress import Progress
    from dsconvert.converter.core.planning.goals import Goals
    from dsconvert.converter.core.planning.search_space import SearchSpace
    from dsconvert.converter.core.types import Plan
    from dsconvert.converter.rewrite import Rewritten
    from dsconvert.deploy.costs import Target
    from dsconvert.models.data.datasets import Data
    from dsconvert.models.data.preprocess import Preprocessing
    from dsconvert.models.evaluation.metrics import MetricValue
    from dsconvert.models.training.refine import Refinement

    from .accuracy_goal import GoalJudge
    from .data_for import DataSource
    from .model_files import Model, ModelSource
    from .plan_memory import PlanMemory
    from .target_files import TargetFiles


@dataclass(frozen=True, kw_only=True)
class PlanOptions:
    """What a plan is chosen from, and how carefully.

    Attributes:
        samples: How many calibration images are drawn of a file.
        max_pairs: The largest T to try.
        include: Glob patterns of the layers that may change; empty means all.
        exclude: Glob patterns of the layers to leave alone.
        memory: Bytes of activations held in memory at most.
        metric: What whole networks are judged by on test data: as in `evaluate`.
        seed: Seeds every draw.

    Example:
        >>> import dsconvert as ds
        >>> ds.PlanOptions(max_pairs=2, exclude=("stem",)).samples
        1000
    """

    samples: int = 1000
    max_pairs: int = 4
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    memory: int = 2 << 30
    metric: str = "top1"
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class TargetWish:
    """A target of which only some is said; the model's kind says the rest.

    Attributes:
        runtime: "litert" or "ort"; by default LiteRT for Keras, ONNX Runtime for ONNX.
        precision: "float32" or "int8"; by default what the device runs.
        threads: Of the runtime.
        device: As in `Target`, or "mcu": any microcontroller, on which nothing is timed.
    """

    runtime: str | None = None
    precision: Literal["float32", "int8"] | None = None
    threads: int = 1
    device: str = "host"

    @property
    def says_where(self) -> bool:
        """Tell whether anything but the number of threads was asked for."""
        return (self.runtime, self.precision, self.device) != (None, None, "host")

    def complete(self, kind: Kind) -> Target:
        """Fill in what the model's kind and the device decide.

        Args:
            kind: What the model is.

        Raises:
            InputError: If there is no such target.
        """
        from dsconvert.deploy.costs import target_for

        return target_for(
            ".onnx" if kind == "onnx" else ".tflite",
            runtime=self.runtime,
            precision=self.precision,
            threads=self.threads,
            device=self.device,
        )


def wanted_target(
    wanted: Target | TargetWish | None, goals: Goals | None, kind: Kind
) -> Target | None:
    """Decide where blocks are measured, if they are.

    Nothing is measured if there are goals, none of them is latency, and no target was named.

    Args:
        wanted: What was asked for.
        goals: What the plan must keep; None where the question is the whole curve.
        kind: What the model is.
    """
    if wanted is not None and not isinstance(wanted, TargetWish):
        return wanted
    wish = wanted or TargetWish()
    if goals is not None and goals.latency is None:
        from dsconvert.deploy.devices.accelerators import MCU

        if wish.device == MCU or (goals.words() and not wish.says_where):
            return None
    return wish.complete(kind)


def wanted_precision(
    wanted: Target | TargetWish | None, target: Target | None
) -> Literal["float32", "int8"]:
    """Return what the planned network computes in: int8 on a microcontroller, unless it is said."""
    from dsconvert.deploy.devices.accelerators import MCU

    if target is not None:
        return target.precision
    if isinstance(wanted, TargetWish):
        return wanted.precision or ("int8" if wanted.device == MCU else "float32")
    return "float32"


@dataclass(frozen=True)
class PlanSession:
    """A model with its data and its target, ready to be planned for.

    Attributes:
        opened: The model.
        data: The calibration images.
        settings: `search_space`'s and `rewrite`'s: memory, seed.
        target_files: Makes files for the target; None to plan without measuring.
        original: The original's file for the target.
        memory: Tells what plans need on a microcontroller; None where nobody asked.
        search_space: What plans are chosen from.
        progress: Told of the work.
    """

    opened: ModelFile
    data: Data
    settings: dict[str, Any]
    target_files: TargetFiles | None
    original: Path | None
    memory: PlanMemory | None
    search_space: SearchSpace
    progress: Progress

    def rewrite(self, plan: Plan, *, fitted: bool = True) -> Rewritten:
        """Rewrite the network by a plan: fitted to the data or, only to be timed, with any weights.

        Factors of the weights alone take longer than the timing: minutes for 17 blocks of 64
        channels.
        """
        from dsconvert.converter.rewrite import rewrite

        return rewrite(
            self.opened.model,
            folder=self.opened.folder,
            plan=plan,
            calibration=self.data.inputs if fitted else None,
            method=None if fitted else "random",
            progress=self.progress,
            **self.settings,
        )


@contextmanager
def plan_session(
    model: ModelSource,
    goals: Goals | None,
    *,
    calibration: DataSource | None,
    target: Target | TargetWish | None = None,
    preprocessing: Preprocessing | None = None,
    options: PlanOptions,
    progress: Progress,
) -> Iterator[PlanSession]:
    """Open the model, measure its blocks where that is wanted, and try its choices.

    Args:
        model: The model.
        goals: What plans must keep.
        calibration: The images.
        target: Where to measure.
        preprocessing: What is done to stored images.
        options: See `PlanOptions`.
        progress: Told of the work.

    Raises:
        InputError: If the model, the data or the target cannot be used.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.converter.calibration import as_inputs

    if calibration is None:
        raise InputError(
            "a plan needs calibration images to measure what each choice harms.",
            "Add --calibration DATA; labels are not needed.",
            code="needs-calibration",
        )
    check_sources(calibration)
    chosen = wanted_target(target, goals, kind_of_source(model))
    precision = wanted_precision(target, chosen)
    opened = open_model(model)
    check_weights(opened)
    data = data_for(
        opened,
        calibration,
        split="train",
        samples=options.samples,
        seed=options.seed,
        preprocessing=preprocessing,
    )
    as_inputs(data.inputs, opened.input_shapes)  # refused before anything is measured
    if any(None in shape[1:] for shape in opened.input_shapes):
        size = ", ".join("×".join(map(str, array.shape[1:])) for array in data.inputs)
        note(f"figures are of the calibration images' size, {size}: --input-size names another")
    settings: dict[str, Any] = {"memory": options.memory, "seed": options.seed}
    with tempfile.TemporaryDirectory(prefix="dsconvert-") as folder:
        target_files, original, costs, whole, memory = None, None, None, None, None
        if chosen is not None:
            from dsconvert.deploy.costs import measured_costs

            from .target_files import TargetFiles

            target_files = TargetFiles(
                chosen, opened.kind, opened.folder, data.inputs, Path(folder), progress
            )
            original = target_files.build(opened.model, "original")
            costs = measured_costs(chosen, progress=progress)
            whole, costs = costs.beside(original, data.inputs)
        if goals is not None and (goals.memory or _on_microcontroller(target)):
            memory = _memory(opened, data, precision, Path(folder, "memory"), progress)
        from dsconvert.converter.plan import search_space

        found = search_space(
            opened.model,
            calibration=data.inputs,
            folder=opened.folder,
            costs=costs,
            network_cost=whole,
            bytes_per_weight=1 if precision == "int8" else 4,
            memory_model=None if memory is None else memory.model,
            most_pairs=options.max_pairs,
            include=options.include,
            exclude=options.exclude,
            source_sha256=opened.sha256,
            progress=progress,
            **settings,
        )
        yield PlanSession(opened, data, settings, target_files, original, memory, found, progress)


def _on_microcontroller(target: Target | TargetWish | None) -> bool:
    from dsconvert.deploy.devices.accelerators import MCU

    return target is not None and target.device == MCU


def _memory(
    opened: ModelFile,
    data: Data,
    precision: Literal["float32", "int8"],
    folder: Path,
    progress: Progress,
) -> PlanMemory:
    """Write the original's .tflite file, from which the memory of plans is predicted."""
    from dsconvert.deploy.costs import Target

    from .plan_memory import plan_memory
    from .target_files import TargetFiles

    folder.mkdir()
    target = Target("litert", precision)
    files = TargetFiles(
        target, opened.kind, opened.folder, data.inputs, folder, progress, as_exported=True
    )
    return plan_memory(opened, files, files.build(opened.model, "original"))


def judge_of(
    session: PlanSession,
    metric: str,
    data: DataSource,
    preprocessing: Preprocessing | None,
) -> GoalJudge:
    """Load test samples, and make what measures whole networks on them."""
    from .accuracy_goal import judge

    seed = session.settings["seed"]
    return judge(session.opened, metric, data, seed, preprocessing, session.progress)


def judged(
    session: PlanSession, judging: GoalJudge, plan: Plan, *, interval: bool = False
) -> MetricValue:
    """Rewrite the network by a plan, and measure it as it was fitted."""
    model = session.rewrite(plan).model if plan.chosen else session.opened.model
    return _measured(session, judging, model, interval=interval)


def judged_refined(
    session: PlanSession, judging: GoalJudge, plan: Plan, wish: float | str | None
) -> tuple[MetricValue, Refinement | None]:
    """Rewrite the network by a plan, refine it as `rewrite` would, and measure it.

    Args:
        session: The model and its calibration images.
        judging: What measures.
        plan: The plan.
        wish: How long to refine: see `refine.refine_settings`.

    Returns:
        The value, and what the refinement came to; None where none was done.

    Raises:
        KeyboardInterrupt: If the refinement was interrupted: the search is, too.
    """
    from .refine import refined

    if not plan.chosen:
        return judged(session, judging, plan), None
    made = session.rewrite(plan)
    model, done = refined(
        made.model,
        session.opened,
        made.report,
        session.data.inputs,
        wish=wish,
        seed=session.settings["seed"],
        progress=session.progress,
    )
    if done is not None and done.interrupted:
        raise KeyboardInterrupt
    return _measured(session, judging, model), done


def _measured(
    session: PlanSession, judging: GoalJudge, model: Model, *, interval: bool = False
) -> MetricValue:
    from .predictors import predictor_of

    with predictor_of(model, session.opened) as predictor:
        return judging.measure(predictor, interval=interval)
