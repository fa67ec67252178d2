"""What each stage of a run does: it calls the one use case that does the work."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsconvert.base.errors import InputError
from dsconvert.base.messages import note

from ..dequantized import FLOAT_FORM
from ..model_files import ModelFile, ModelPath, kind_of, open_model
from ..saved_models import save_model
from .options import export_words, file_name, split

if TYPE_CHECKING:
    from dsconvert.base.progress import Progress

    from ..results.evaluated import EvaluatedModel
    from ..results.exported import ExportedFile
    from ..results.inspected import InspectedModel
    from ..results.measured import MeasuredFile
    from ..results.planned import PlanResult
    from ..results.rewritten import RewriteResult
    from ..results.tuned import FinetuneResult
    from ..results.verified import Verification
    from .images import Images
    from .options import OptimizeOptions

PLAN = "plan.json"
_VERIFIED = 200
"""Images that each file is verified on."""


@dataclass(frozen=True)
class Work:
    """A model, its images and its folder, ready for any stage.

    Attributes:
        opened: The model.
        images: Its data.
        folder: Of the run.
        options: What was asked for.
        progress: Told of the work.
    """

    opened: ModelFile
    images: Images
    folder: Path
    options: OptimizeOptions
    progress: Progress

    @property
    def suffix(self) -> str:
        """Return what files of rewritten models end in."""
        return ".onnx" if self.opened.kind == "onnx" else ".keras"

    def inspect(self) -> InspectedModel:
        """List the convolutions."""
        from ..inspect import inspect

        return inspect(self.opened, seed=self.options.seed, progress=self.progress)

    def plan(self, form: str) -> PlanResult:
        """Choose what becomes of each convolution, for files of a format."""
        from dsconvert.converter.core.planning.goals import Goals

        from ..plan import plan
        from ..plan_session import PlanOptions

        options = self.options
        settings: dict[str, Any] = {
            "calibration": self.images.calibration,
            "target": options.target_of(form),
            "options": PlanOptions(
                max_pairs=options.max_pairs,
                include=options.include,
                exclude=options.exclude,
                seed=options.seed,
            ),
            "output": self.folder / PLAN,
            "overwrite": True,
            "progress": self.progress,
        }
        goals = Goals(latency=options.target_latency)
        try:
            return plan(self.opened, goals=goals, **settings)
        except InputError as error:
            if error.code != "target-not-reachable":
                raise
            note(f"{error.message} The plan at the knee of the curve is taken.")
            return plan(self.opened, **settings)

    def rewrite(self) -> RewriteResult:
        """Rewrite by the plan."""
        from ..rewrite import RewriteOptions, rewrite

        return rewrite(
            self.opened,
            plan=self.folder / PLAN,
            calibration=self.images.calibration,
            options=RewriteOptions(seed=self.options.seed),
            refine=self.options.refine,
            output=self.folder / "models" / f"rewritten{self.suffix}",
            overwrite=True,
            progress=self.progress,
        ).record

    def finetune(self) -> FinetuneResult:
        """Train the rewritten model; a run that was killed meanwhile goes on where it was."""
        import msgspec

        from dsconvert.models.training.settings import FinetuneSettings

        from ..finetune import finetune

        options = self.options
        output = self.folder / "models" / f"tuned{self.suffix}"
        settings = FinetuneSettings(
            epochs=options.epochs,
            label_weight=0.3 if options.labels else 0.0,
            seed=options.seed,
        )
        student = self._loading(self.folder / "models" / f"rewritten{self.suffix}")

        def train(*, resume: bool) -> FinetuneResult:
            record = finetune(
                student,
                self.opened,
                self.images.train,
                msgspec.structs.replace(settings, resume=resume),
                output=output,
                overwrite=True,
                progress=self.progress,
            ).record
            if record.interrupted:  # the work ends here, and goes on with the same training
                raise KeyboardInterrupt
            return record

        if not output.with_name(output.name + ".state").exists():
            return train(resume=False)
        try:
            return train(resume=True)
        except InputError as error:  # of another run's settings, or cut off while it was written
            note(f"training starts again: {error.message}")
            return train(resume=False)

    def export(self, source: Path, who: str, form: str) -> ExportedFile | dict[str, Any]:
        """Make one file, which is verified before it takes its place."""
        from ..export import export
        from ..export_options import ExportOptions

        output = self.folder / "files" / file_name(who, form)
        if split(form) == ("onnx", "float32") and kind_of(source) == "onnx":
            return self._copied(source, output)
        chosen = ExportOptions(
            **export_words(form), labels=self.images.class_names, seed=self.options.seed
        )
        return export(
            self._model(source),
            output,
            chosen,
            calibration=self.images.for_ranges,
            verification=self.images.test.take(slice(_VERIFIED)),
            overwrite=True,
            progress=self.progress,
        )

    def verify(self, source: Path, output: Path) -> Verification:
        """Compare a file with the model that it was made from, on images that made neither."""
        from ..verify import verify

        return verify(
            self._model(source),
            output,
            data=self.images.test.take(slice(_VERIFIED)),
            seed=self.options.seed,
            progress=self.progress,
        )

    def evaluate(self, files: list[Path]) -> list[EvaluatedModel]:
        """Measure the original model and all files on the test images."""
        from ..evaluate import evaluate

        return list(
            evaluate(
                [self.opened, *files],
                self.images.test,
                reference=self.opened,
                metric=self.options.metric or (),
                threads=os.cpu_count() or 1,  # of which no accuracy depends
                seed=self.options.seed,
                progress=self.progress,
            )
        )

    def profile(self, files: list[Path]) -> list[MeasuredFile]:
        """Measure all files, in turns."""
        from ..profile import ProfileOptions, profile

        estimated = self.options.device != "host" and self._estimated
        free = any(size is None for shape in self.opened.input_shapes for size in shape[1:])
        return list(
            profile(
                files,
                data=self.images.test.take(slice(1)) if free else None,
                device=self.options.device,
                options=ProfileOptions(
                    threads=self.options.threads, per_op=not estimated, seed=self.options.seed
                ),
                progress=self.progress,
            )
        )

    @property
    def _estimated(self) -> bool:
        from dsconvert.deploy.devices.registry import find_device

        return not find_device(self.options.device).capabilities.measured

    def _copied(self, source: Path, output: Path) -> dict[str, Any]:
        """Write an ONNX model as it is, with its external data."""
        opened = self._model(source)
        size, digest = save_model(opened.model, opened, output, overwrite=True)
        told = FLOAT_FORM if opened.dequantized else "the model as it is"
        return {"size_bytes": size, "sha256": digest, "notes": [told]}

    def _model(self, path: Path) -> ModelFile:
        """Open a model that files are made of, once for all of them."""
        if path == self.opened.path:
            return self.opened
        if path not in self._known:
            self._known.clear()  # one at a time
            self._known[path] = open_model(self._loading(path))
        return self._known[path]

    @cached_property
    def _known(self) -> dict[Path, ModelFile]:
        return {}

    def _loading(self, path: Path) -> ModelPath:
        """Return a file that is to be loaded as the original was; what was made is float."""
        loading = self.opened.loading
        if loading is None:
            return ModelPath(path)
        return replace(loading, path=path, dequantize=False)
