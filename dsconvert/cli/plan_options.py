"""What `plan` and `sweep` share: their options, and the search_space that plans are chosen from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dsconvert.deploy.runtimes.registry import RUNTIMES
from dsconvert.workflows import data_for, model_files

from . import options, terminal

if TYPE_CHECKING:
    from dsconvert.converter.core.planning.search_space import Goals, SearchSpace
    from dsconvert.converter.core.types import Plan
    from dsconvert.converter.rewrite import Rewritten
    from dsconvert.models.data.datasets import Data
    from dsconvert.workflows.target_files import TargetFiles

target = options.stack(
    click.option(
        "--runtime",
        type=click.Choice(list(RUNTIMES)),
        help="Measure in this runtime; by default litert for Keras, ort for .onnx.",
    ),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True),
    click.option("--precision", type=click.Choice(["float32", "int8"]), help="float32 by default."),
    click.option(
        "--device",
        default="host",
        show_default=True,
        help="host, a board or phone (ssh:pi@board, adb), or an NPU: ethos-u55-128, …",
    ),
)

goals = options.stack(
    click.option("--target-latency", metavar="LIMIT", help="0.5x of the original, or 3ms."),
    click.option("--target-macs", metavar="LIMIT", help="0.4x of the original, or 6.25M."),
    click.option("--target-params", metavar="LIMIT", help="0.3x of the original, or 50k."),
    click.option("--target-size", metavar="LIMIT", help="Of the weights: 0.3x, or 200KB."),
    click.option(
        "--max-error",
        type=float,
        metavar="HARM",
        help="The most output error, summed over the layers.",
    ),
)

search = options.stack(
    click.option(
        "--calibration", metavar="DATA", help="Unlabelled images to measure output error on."
    ),
    click.option("--samples", type=click.IntRange(1), default=1000, show_default=True),
    click.option("--max-pairs", type=click.IntRange(1), default=4, show_default=True, metavar="T"),
    click.option("--include", multiple=True, metavar="GLOB", help="Only these layers may change."),
    click.option("--exclude", multiple=True, metavar="GLOB", help="Leave these layers alone."),
    click.option("--memory", type=options.Memory(), default="2GiB", show_default=True),
)


def as_goals(
    target_latency: str | None,
    target_macs: str | None,
    target_params: str | None,
    target_size: str | None,
    max_error: float | None,
) -> Goals:
    """The five options as one value.

    Raises:
        InputError: If one of them is no limit.
    """
    import math

    from dsconvert.base.errors import InputError
    from dsconvert.converter.core.planning.limits import parse_limit
    from dsconvert.converter.core.planning.search_space import Goals

    if max_error is not None and not 0 <= max_error < math.inf:
        raise InputError(
            f"--max-error {max_error:g} is no output error.",
            "Give a number from 0 on; dsconvert sweep shows what output error buys.",
        )

    def limit(text: str | None, resource: str) -> Any:
        return None if text is None else parse_limit(text, resource)

    return Goals(
        latency=limit(target_latency, "latency"),
        macs=limit(target_macs, "macs"),
        params=limit(target_params, "params"),
        size=limit(target_size, "size"),
        max_error=max_error,
    )


@dataclass(frozen=True)
class PlanSession:
    """A model with its data and its target, ready to be planned for.

    Attributes:
        opened: The model.
        data: The calibration images.
        settings: `search_space`'s and `rewrite`'s: memory, seed.
        workshop: Makes files for the target; None to plan without measuring.
        original: The original's file for the target.
        search_space: What plans are chosen from.
    """

    opened: model_files.ModelFile
    data: Data
    settings: dict[str, Any]
    target_files: TargetFiles | None
    original: Path | None
    search_space: SearchSpace

    def rewrite(self, plan: Plan, *, fitted: bool = True) -> Rewritten:
        """The network rewritten by a plan, fitted to the data or, only to be timed, not."""
        from dsconvert.converter.rewrite import rewrite

        return rewrite(
            self.opened.model,
            folder=self.opened.folder,
            plan=plan,
            calibration=self.data.inputs if fitted else None,
            progress=terminal.progress,
            **self.settings,
        )


@contextmanager
def plan_session(
    model: Path,
    goals: Goals | None,
    *,
    runtime: Any,
    threads: int,
    precision: Any,
    device: str,
    calibration: str | None,
    samples: int,
    max_pairs: int,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    memory: int,
    seed: int,
    trust: bool,
    custom_objects: str | None,
    prepare: dict[str, Any],
) -> Iterator[PlanSession]:
    """Open the model, measure its blocks where that is wanted, and try its choices.

    Nothing is measured if there are goals, none of them is latency, and no target was named.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.converter.calibration import as_inputs

    prepared = options.as_preprocessing(**prepare)
    if calibration is None:
        raise InputError(
            "a plan needs calibration images to measure what each choice harms.",
            "Add --calibration DATA; labels are not needed.",
        )
    timeless = goals is not None and goals.latency is None and bool(goals.words())
    measures = runtime is not None or precision is not None or device != "host" or not timeless
    chosen = None
    if measures:
        from dsconvert.deploy.costs import target_for

        chosen = target_for(
            ".onnx" if model_files.kind_of(model) == "onnx" else ".tflite",
            runtime=runtime,
            precision=precision,
            threads=threads,
            device=device,
        )
    opened = model_files.open_model(model, trust, custom_objects)
    data = data_for.calibration_for(opened, calibration, samples, seed, prepared)
    assert data is not None, "a source was given"
    as_inputs(data.inputs, opened.input_shapes)  # refused before anything is measured
    settings: dict[str, Any] = {"memory": memory, "seed": seed}
    with tempfile.TemporaryDirectory(prefix="dsconvert-") as folder:
        target_files, original, costs, whole = None, None, None, None
        if chosen is not None:
            from dsconvert.deploy.costs import measured_costs
            from dsconvert.workflows.target_files import TargetFiles

            target_files = TargetFiles(
                chosen, opened.kind, opened.folder, data.inputs, Path(folder), terminal.progress
            )
            original = target_files.build(opened.model, "original")
            costs = measured_costs(chosen, progress=terminal.progress)
            (whole,) = target_files.cost(original)
        from dsconvert.converter.plan import search_space

        found = search_space(
            opened.model,
            calibration=data.inputs,
            folder=opened.folder,
            costs=costs,
            network_cost=whole,
            bytes_per_weight=1 if chosen is not None and chosen.precision == "int8" else 4,
            most_pairs=max_pairs,
            include=include,
            exclude=exclude,
            source_sha256=opened.sha256,
            progress=terminal.progress,
            **settings,
        )
        yield PlanSession(opened, data, settings, target_files, original, found)


def labelled(plan_session: PlanSession, source: str, seed: int, prepare: dict[str, Any]) -> Data:
    """Test images with labels, to judge whole networks by."""
    return data_for.data_for(
        plan_session.opened,
        source,
        split="test",
        seed=seed,
        labels=True,
        preprocessing=options.as_preprocessing(**prepare),
    )


def top1(model: Any, opened: model_files.ModelFile, images: Data) -> float:
    """The accuracy of a model of the opened one's kind."""
    from dsconvert.base.errors import InputError
    from dsconvert.models.evaluation.evaluate import evaluate

    with tempfile.TemporaryDirectory(prefix="dsconvert-") as folder:
        if opened.kind == "onnx":
            from dsconvert.deploy.runtimes.registry import open_runtime
            from dsconvert.formats.onnx.save import save

            path = Path(folder) / "model.onnx"
            save(model, opened.folder, path, overwrite=True)
            predictor: Any = open_runtime(path)
        else:
            from dsconvert.models.evaluation.keras_predictor import KerasPredictor

            predictor = KerasPredictor(model)
        result = evaluate(predictor, images, progress=terminal.progress)
    if result.top1 is None:
        raise InputError(
            "the data have no class labels for this model.", "Give images with labels: --data."
        )
    return result.top1.value


def write_json(record: Any, path: Path, overwrite: bool) -> None:
    """Write a record where it takes its place at once."""
    import msgspec

    from dsconvert.base.files import replacing

    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
