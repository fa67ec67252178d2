"""A model as the file that a plan's target runs, and what that file costs there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsconvert.base import quiet
from dsconvert.base.progress import Progress, silent

if TYPE_CHECKING:
    from dsconvert.base.predictor import Array
    from dsconvert.deploy.costs import Target
    from dsconvert.deploy.costs.target import Precision
    from dsconvert.formats.quantization import Quantization

CALIBRATION_IMAGES = 100
"""For the ranges of int8 activations in files that are only timed."""


@dataclass(frozen=True)
class TargetFiles:
    """Makes files for a target, in a folder that its owner deletes.

    Attributes:
        target: Where they run.
        kind: What the models are, "keras" or "onnx".
        model_folder: Where an ONNX model's external data are.
        images: Calibration images as the model takes them, one array per input.
        workspace: Where the files go.
        progress: Told of measurements.
        as_exported: Whether .tflite files are those of `export`, to the byte, where what they are
            asked for is their size; else they have its operators, which takes less time.
    """

    target: Target
    kind: str
    model_folder: Path | None
    images: tuple[Array, ...]
    workspace: Path
    progress: Progress = silent
    as_exported: bool = False

    def build(self, model: Any, name: str) -> Path:
        """Return the file for the target's runtime and precision."""
        tflite = self.target.suffix == ".tflite"
        path = self.workspace / f"{name}{self.target.suffix}"
        few = tuple(array[:CALIBRATION_IMAGES] for array in self.images)
        if self.kind == "onnx" and not tflite:
            return self._onnx(model, path, few)
        keras_model, few = self._as_keras(model, path, few)
        if tflite:
            self._tflite(keras_model, path, few)
            return path
        plain = path.with_stem(f"{name}_float32")
        self._export(keras_model, plain, few, "float32")
        return self._quantized(plain, path, few)

    def cost(self, *paths: Path) -> list[float]:
        """Return what whole files cost: milliseconds (p50, taking turns) or cycles."""
        if self.target.estimated:
            from dsconvert.deploy.costs import estimate

            return [float(estimate(path, self.target.device).cycles) for path in paths]
        return [m.latency.p50_ms for m in self.profile(*paths) if m.latency is not None]

    def profile(self, *paths: Path, runs: int = 50) -> list[Any]:
        """Return the files' measurements, taken together: for a second each, or as many runs."""
        from dsconvert.base.errors import InputError
        from dsconvert.deploy.profiling.profile import profile

        measured = profile(
            paths,
            device=self.target.device,
            runtime=self.target.runtime,
            threads=self.target.threads,
            runs=runs,
            min_seconds=1.0,
            inputs=[array[:32] for array in self.images],
            progress=self.progress,
        )
        for one in measured:
            if one.failure:
                raise InputError(
                    f"{Path(one.path).name} does not run: {one.failure}", code="does-not-run"
                )
        return measured

    def _onnx(self, model: Any, path: Path, few: Sequence[Array]) -> Path:
        from dsconvert.formats.onnx.save import save

        plain = path.with_stem(f"{path.stem}_float32")
        save(model, self.model_folder, plain, overwrite=True)
        return self._quantized(plain, path, few)

    def _quantized(self, plain: Path, path: Path, few: Sequence[Array]) -> Path:
        if self.target.precision == "float32":
            return plain
        self._export(plain, path, few, "int8")
        return path

    def _as_keras(
        self, model: Any, path: Path, few: tuple[Array, ...]
    ) -> tuple[Any, tuple[Array, ...]]:
        if self.kind == "keras":
            return model, few
        from dsconvert.formats.onnx.save import save
        from dsconvert.models.onnx_import import import_onnx

        from .onnx_round_trip import keras_arrays

        quiet.import_quietly("tensorflow")
        plain = path.with_suffix(".onnx")
        save(model, self.model_folder, plain, overwrite=True)
        imported = import_onnx(plain)
        return imported.model, keras_arrays(few, imported.input_axes)

    def _tflite(self, model: Any, path: Path, few: Sequence[Array]) -> None:
        precision = self.target.precision
        if self.as_exported:
            self._export(model, path, few, precision)
            return
        from dsconvert.deploy.exporting.timed import write_timed

        write_timed(model, path, _quantization(precision), few)

    def _export(self, model: Any, path: Path, few: Sequence[Array], precision: Precision) -> None:
        from dsconvert.deploy.exporting.export import export

        quantize = _quantization(precision)
        export(model, path, quantize=quantize, calibration=few, overwrite=True, gate=False)


def _quantization(precision: Precision) -> Quantization:
    """Return what export calls a precision."""
    return "int8" if precision == "int8" else "none"
