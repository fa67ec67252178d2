"""The whole way from a trained model to the file to use."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from dsconvert.base.arguments import of_kind
from dsconvert.base.messages import note
from dsconvert.base.progress import as_progress

from ..accuracy_goal import allowed_drop
from ..data_for import check_sources
from ..dequantized import refuse_quantized
from ..finite_weights import check_weights
from ..model_files import ModelFile, open_model, path_of
from .folder_files import write_results
from .images import Images
from .ledger import Ledger, Stage, fingerprint, run_folder
from .options import OptimizeOptions, file_name, split
from .results import summed_up
from .work import PLAN, Work

if TYPE_CHECKING:
    from dsconvert.base.progress import Progress
    from dsconvert.models.data.preprocess import Preprocessing

    from ..accuracy_goal import AllowedDrop
    from ..model_files import ModelSource
    from ..results.inspected import InspectedModel
    from ..results.optimized import OptimizeResult

ORIGINAL, REWRITTEN = "original", "rewritten"


def optimize(
    model: ModelSource,
    data: str | Path,
    folder: str | Path,
    options: OptimizeOptions | None = None,
    *,
    preprocessing: Preprocessing | None = None,
    dry_run: bool = False,
    progress: Progress | bool = False,
) -> OptimizeResult:
    """Plan, rewrite, fine-tune, export, verify, evaluate and profile, and recommend one file.

    What does not pay is left out: a network of depthwise and 1×1 layers is not rewritten, and its
    files are still made, verified and measured. Each stage is kept in the folder under the hash of
    all that it depends on; started again there, a run goes on where it was stopped.

    Args:
        model: A model file, or what `load` returns of one.
        data: Images, with labels or without: an .npz file, a folder or "module:function".
        folder: Of the run; all files, the plan, the report and a program that runs the file.
        options: Formats, device, goals and numbers of images.
        preprocessing: What is done to stored images.
        dry_run: Say what would be done, and do nothing but inspect.
        progress: True for a bar on stderr.

    Returns:
        What was found out, with the file to use. ``passed`` is False if the target was missed.

    Raises:
        InputError: If the model, the data or an option cannot be used, or the folder is no run's.
        GateFailed: If the rewritten model does not compute what was fitted.

    Example:
        >>> import dsconvert as ds
        >>> asked = ds.OptimizeOptions(formats=("onnx-float32",), epochs=0, samples=200)
        >>> run = ds.optimize("model.onnx", "digits.npz", "run", asked, dry_run=True)
        >>> run.potential.convolutions, run.stages[0].stage
        (2, 'inspect')
    """
    from dsconvert.models.data.preprocess import Preprocessing
    from dsconvert.models.evaluation.metrics import find_metric

    preprocessing = preprocessing or Preprocessing()
    options = of_kind(options, OptimizeOptions, "options") or OptimizeOptions()
    path = path_of(model)
    metric = find_metric(options.metric or "top1")
    allowed = allowed_drop(options.max_drop, metric)
    if path is None:
        raise _no_file()
    check_sources(str(data), options.test_data)
    opened = open_model(model)
    check_weights(opened)
    refuse_quantized(opened)
    opened = opened if opened.path is not None else _named(opened, path)
    forms = options.formats_for(opened.kind)
    options.target_of(forms[0]).complete(opened.kind)  # refused before any work
    with run_folder(Path(folder)):
        images = Images(opened, str(data), preprocessing, options)
        ledger = Ledger(Path(folder), note_line(progress))
        work = Work(opened, images, Path(folder), options, as_progress(progress))
        run = _Run(work, ledger, forms, allowed, preprocessing)
        return run.dry() if dry_run else run.through()


def note_line(progress: Progress | bool) -> Any:
    """Return what tells a line as a stage begins: the log, where progress is wanted."""
    import logging

    log = logging.getLogger("dsconvert.optimize")
    return log.info if progress is False else log.warning


class _Run:
    """The stages, one after the other, and what each of them finds."""

    def __init__(
        self,
        work: Work,
        ledger: Ledger,
        forms: tuple[str, ...],
        allowed: AllowedDrop,
        preprocessing: Preprocessing | None,
    ) -> None:
        self._work, self._ledger = work, ledger
        self._forms, self._allowed = forms, allowed
        self._preprocessing = preprocessing
        opened, options = work.opened, work.options
        self._options = options
        sizes = opened.loading.input_size if opened.loading else ()
        self._model: dict[str, Any] = {
            "model": opened.sha256 or fingerprint(str(opened.path)),
            "sizes": sizes,
        }
        if opened.dequantized:
            self._model["dequantized"] = True
        self._data = {
            "data": fingerprint(work.images.source),
            "test": fingerprint(options.test_data) if options.test_data else "",
            "samples": (options.samples, options.test_samples),
            "labels": options.labels,
            "preprocessing": preprocessing,
            "seed": options.seed,
        }

    def through(self) -> OptimizeResult:
        """Run every stage that pays."""
        inspected = self._inspect()
        note(inspected.potential.text)
        not_rewritten = self._rewritten(inspected)
        source = self._tuned() if not not_rewritten else None
        sources = {ORIGINAL: self._work.opened.path, REWRITTEN: source}
        made = self._files({who: path for who, path in sources.items() if path is not None})
        self._measured(made)
        result = summed_up(
            self._work,
            self._ledger.records,
            [stage for stage, _ in self._stages(rewriting=not not_rewritten)],
            forms=self._forms,
            allowed=self._allowed,
            inspected=inspected,
            not_rewritten=not_rewritten,
        )
        write_results(self._work, result, self._preprocessing)
        return result

    def dry(self) -> OptimizeResult:
        """Inspect, and tell which stages would be run."""
        from ..results.optimized import StageTime

        inspected = self._inspect()
        pays = inspected.potential.pays
        stages = self._stages(rewriting=pays)
        about = self._about(inspected, sum(stage.name.startswith("export-") for stage, _ in stages))
        times = []
        known = True
        for stage, _ in stages:
            record = self._ledger.finished(stage) if known else None
            known = record is not None
            if record is not None:
                self._ledger.records[stage.name] = record
            times.append(
                StageTime(
                    stage=stage.name,
                    title=stage.title,
                    seconds=record.seconds if record else None,
                    about=None if record or about is None else about(stage.name),
                    state="done" if record else "planned",
                )
            )
        result = summed_up(
            self._work,
            self._ledger.records,
            [],
            forms=self._forms,
            allowed=self._allowed,
            inspected=inspected,
            not_rewritten="" if pays else "it does not pay",
        )
        return msgspec.structs.replace(result, dry=True, missed="", stages=tuple(times))

    def _about(self, inspected: InspectedModel, files: int) -> Callable[[str], float] | None:
        """Return what estimates the seconds of a stage; None where the MACs are not known."""
        from .estimates import estimates_for

        images = self._work.images
        train, test = len(images.train), len(images.test)
        found = estimates_for(
            self._options,
            inspected,
            (train, len(images.calibration), len(images.for_ranges), test),
            files=files,
            keras=self._work.opened.kind == "keras",
        )
        if found is None:
            return None
        made = {
            f"export-{file_name(who, form)}": form
            for who in (ORIGINAL, REWRITTEN)
            for form in self._forms
        }
        return lambda stage: found.seconds(stage, made.get(stage, ""))

    def _inspect(self) -> InspectedModel:
        from ..results.inspected import InspectedModel

        stage = self._stages(rewriting=False)[0][0]
        record = self._ledger.run(stage, self._work.inspect)
        return msgspec.convert(record.result, InspectedModel)

    def _rewritten(self, inspected: InspectedModel) -> str:
        """Plan and rewrite; why not, where that does not pay."""
        if not inspected.potential.pays:
            return inspected.potential.text
        stages = dict(self._named_stages(rewriting=True))
        planned = self._ledger.run(stages["plan"], lambda: self._work.plan(self._forms[0]))
        layers = planned.result["plan"]["layers"]
        if not any(layer.get("choice") for layer in layers):
            return "no block that may replace a convolution was measured to be faster here"
        self._ledger.run(stages["rewrite"], self._work.rewrite)
        return ""

    def _tuned(self) -> Path:
        """Fine-tune where that is wanted and possible; the model whose files are made."""
        stages = dict(self._named_stages(rewriting=True))
        models, suffix = self._work.folder / "models", self._work.suffix
        if "finetune" in stages:
            record = self._ledger.run(stages["finetune"], self._work.finetune)
            if not record.failure:
                return models / f"tuned{suffix}"
            note(f"not fine-tuned: {record.failure}")
        return models / f"rewritten{suffix}"

    def _files(self, sources: dict[str, Path]) -> dict[str, Path]:
        """Export and verify each format of each model; the files that were made, in order."""
        made: dict[str, Path] = {}
        stages = dict(self._named_stages(rewriting=REWRITTEN in sources))
        for form in self._forms:
            for who, source in sources.items():
                name = file_name(who, form)
                export = partial(self._work.export, source, who, form)
                record = self._ledger.run(stages[f"export-{name}"], export)
                if record.failure:
                    note(f"no {name}: {record.failure}")
                    continue
                made[name] = self._work.folder / "files" / name
                verify = partial(self._work.verify, source, made[name])
                self._ledger.run(stages[f"verify-{name}"], verify)
        return made

    def _measured(self, made: dict[str, Path]) -> None:
        """Evaluate and profile all files together."""
        files, names = list(made.values()), tuple(made)
        after = tuple(f"export-{name}" for name in names)
        for stage in _measuring(self._data, self._options, names, after):
            work = self._work.evaluate if stage.name == "evaluate" else self._work.profile
            if files:
                self._ledger.run(stage, partial(work, files))

    # What there is to do, as data.

    def _named_stages(self, *, rewriting: bool) -> list[tuple[str, Stage]]:
        return [(stage.name, stage) for stage, _ in self._stages(rewriting=rewriting)]

    def _stages(self, *, rewriting: bool) -> list[tuple[Stage, str]]:
        """Return all stages, in order, each with the model that it is about."""
        options, suffix = self._options, self._work.suffix
        found = [(Stage("inspect", "Look at the convolutions", self._model), ORIGINAL)]
        last = {ORIGINAL: "inspect"}
        if rewriting:
            searched = {
                "for": (self._forms[0], options.device, options.threads, options.target_latency),
                "among": (options.max_pairs, options.include, options.exclude),
            }
            told = f"Choose blocks by their measured time on {options.device}"
            plan = Stage("plan", told, self._data | searched, ("inspect",), (PLAN,))
            files = (f"models/rewritten{suffix}",)
            refined = self._data | {"refine": options.refine}
            rewrite = Stage("rewrite", "Rewrite by the plan", refined, ("plan",), files)
            found += [(plan, REWRITTEN), (rewrite, REWRITTEN)]
            last[REWRITTEN] = "rewrite"
            if options.epochs:
                found.append((self._finetune_stage(suffix), REWRITTEN))
                last[REWRITTEN] = "finetune"
        names: list[str] = []
        for form in self._forms:
            for who, before in last.items():
                name = file_name(who, form)
                names.append(name)
                needed = {"format": form}
                export = Stage(
                    f"export-{name}",
                    f"Make {name}",
                    self._data | needed,
                    (before,),
                    (f"files/{name}",),
                    needed=False,
                )
                verify = Stage(
                    f"verify-{name}",
                    f"Compare {name} with its model",
                    {},
                    (export.name,),
                    needed=False,
                )
                found += [(export, who), (verify, who)]
        after = tuple(f"export-{name}" for name in names)
        measuring = _measuring(self._data, options, tuple(names), after)
        return [*found, *((stage, ORIGINAL) for stage in measuring)]

    def _finetune_stage(self, suffix: str) -> Stage:
        return Stage(
            "finetune",
            f"Fine-tune for {self._options.epochs} epoch{'s' if self._options.epochs > 1 else ''}",
            {"epochs": self._options.epochs},
            ("rewrite",),
            (f"models/tuned{suffix}",),
            needed=False,
        )


def _measuring(
    data: dict[str, Any], options: OptimizeOptions, names: tuple[str, ...], after: tuple[str, ...]
) -> tuple[Stage, Stage]:
    """Return the two stages that look at all files together."""
    measured = {"files": names, "on": (options.device, options.threads)}
    metric = {"metric": options.metric and fingerprint(options.metric)}
    count = f"{len(names)} files"
    return (
        Stage("evaluate", f"Measure the accuracy of {count}", data | measured | metric, after),
        Stage(
            "profile",
            f"Time {count} in turns on {options.device}",
            measured,
            after,
            needed=False,
        ),
    )


def _named(opened: ModelFile, path: Path) -> ModelFile:
    from dataclasses import replace

    return replace(opened, path=path)


def _no_file() -> Exception:
    from dsconvert.base.errors import InputError

    return InputError(
        "a run needs a model file: it is named in the recipe, and hashed.",
        "Save the model first, and give its path.",
        code="needs-a-file",
    )


__all__ = ["ORIGINAL", "REWRITTEN", "optimize", "split"]
