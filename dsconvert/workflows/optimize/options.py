"""What a whole run is asked for, and the formats in which files are made."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..plan_session import TargetWish

_QUANTIZED = {
    "tflite": ("float32", "float16", "dynamic", "int8", "int8-float-io", "int16x8"),
    "onnx": ("float32", "float16", "dynamic", "int8"),
}
FORMATS = tuple(f"{kind}-{how}" for kind, found in _QUANTIZED.items() for how in found)
"""What files can be asked for."""


@dataclass(frozen=True, kw_only=True)
class OptimizeOptions:
    """What a whole run is asked for.

    Attributes:
        formats: The files that are made of the original and of the rewritten model, as
            "tflite-int8". The plan is made for the first one. By default float32 and int8, as
            .tflite of Keras models and as .onnx of ONNX models.
        labels: Whether the data have labels: they are required then, and mixed into the training
            targets. Accuracy is measured wherever there are labels.
        test_data: Other images to measure on; by default the test part of the data, else a fifth
            that nothing else uses.
        device: Where the files shall run: as for `profile`.
        threads: Of the runtime.
        target_latency: Of the file to use, against the original in the first format: "0.5x".
        metric: What losses are of, as `evaluate` takes it. By default top-1; without labels the
            share of images whose class changes, or else the share of noise in the outputs.
        max_drop: The most that the file to use may lose of that: "1%".
        samples: The most training images; calibration takes up to 1,000 of them.
        test_samples: The most test images.
        refine: As for `rewrite`: seconds, or "400steps"; by default what `rewrite` does.
        epochs: Of fine-tuning; 0 leaves it out.
        max_pairs: The largest T that the plan tries.
        include: Glob patterns of the layers that may change; empty means all.
        exclude: Glob patterns of the layers to leave alone.
        seed: Seeds every draw.

    Raises:
        InputError: If a format is unknown, or a number is out of range.

    Example:
        >>> import dsconvert as ds
        >>> ds.OptimizeOptions(formats=("tflite-int8",), target_latency="0.5x").epochs
        3
    """

    formats: tuple[str, ...] = ()
    labels: bool = False
    test_data: str | None = None
    device: str = "host"
    threads: int = 1
    target_latency: str | None = None
    metric: str = ""
    max_drop: str | float = "1%"
    samples: int = 5000
    test_samples: int = 2000
    refine: str | None = None
    epochs: int = 3
    max_pairs: int = 4
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        from dsconvert.base.errors import InputError

        wrong = [
            f"{name!r}{_meant(name)}" for name in self.formats if name not in FORMATS
        ]  # all at once
        if wrong:
            raise InputError(
                f"unknown format {', '.join(wrong)}.",
                f"Formats: {', '.join(FORMATS)}.",
                code="unknown-format",
            )
        least = {"samples": 10, "test_samples": 1, "epochs": 0, "max_pairs": 1, "threads": 1}
        low = [
            f"{name} is {getattr(self, name)}, at least {bound} is needed"
            for name, bound in least.items()
            if getattr(self, name) < bound
        ]
        if low:
            raise InputError(f"{'; '.join(low)}.", code="out-of-range")

    def formats_for(self, kind: str) -> tuple[str, ...]:
        """Return what files are made of a "keras" or an "onnx" model."""
        own = "onnx" if kind == "onnx" else "tflite"
        return self.formats or (f"{own}-float32", f"{own}-int8")

    def target_of(self, form: str) -> TargetWish:
        """Return where files of a format are planned for."""
        from ..plan_session import TargetWish

        suffix, how = split(form)
        estimated = self.device.startswith("ethos")
        precision: Literal["float32", "int8"] = (
            "int8" if estimated or how.startswith("int") else "float32"
        )
        return TargetWish(
            runtime="ort" if suffix == "onnx" else "litert",
            precision=precision,
            threads=self.threads,
            device=self.device,
        )


def split(form: str) -> tuple[str, str]:
    """Split "tflite-int8-float-io" into the format and the quantization."""
    kind, _, how = form.partition("-")
    return kind, how


def export_words(form: str) -> dict[str, Any]:
    """Return a format as `ExportOptions` name it."""
    kind, how = split(form)
    return {"format": kind, "quantize": "none" if how == "float32" else how}


def file_name(who: str, form: str) -> str:
    """Name the file of a model in a format: "rewritten-int8.tflite"."""
    kind, how = split(form)
    return str(Path(f"{who}-{how}").with_suffix("")) + f".{kind}"


def _meant(name: str) -> str:
    close = difflib.get_close_matches(name, FORMATS, 1)
    return f" (did you mean {close[0]}?)" if close else ""
