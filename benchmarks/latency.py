"""Size and latency of VGG6, original and rewritten, each runtime in one interleaved run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from common import VGG6, arguments, images, machine, table


def main() -> None:
    chosen = arguments(__doc__)
    print(f"Machine: {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        measure(chosen.models / VGG6, images(chosen.data), Path(folder))


def measure(path: Path, calibration: Any, folder: Path) -> None:
    """Export every variant, then profile those of one runtime and precision together."""
    from dsconvert.converter.rewrite import rewrite
    from dsconvert.deploy.exporting.export import export
    from dsconvert.deploy.profiling.profile import profile
    from dsconvert.models.loading import load

    original = load(path).model
    variants = {"original": original}
    for pairs in (1, 2):
        result = rewrite(original, calibration=calibration, pairs=pairs)
        variants[f"T = {pairs}"] = result.model
    rows = []
    for suffix, quantize in ((".tflite", "none"), (".onnx", "none"), (".tflite", "int8")):
        files = []
        for number, model in enumerate(variants.values()):
            file = folder / f"{number}-{quantize}{suffix}"
            export(model, file, quantize=quantize, calibration=calibration[:500])
            files.append(file)
        inputs = calibration[:32]
        measured = profile(files, inputs=[inputs], runs=500, min_seconds=2)
        for name, one in zip(variants, measured, strict=True):
            if one.latency is None:
                rows.append([one.runtime, quantize, name, "", "", "", one.failure])
                continue
            versus = one.comparison
            against = (
                f"{1 / versus.ratio:.2f}× ({1 / versus.high:.2f}–{1 / versus.low:.2f}), "
                f"{versus.verdict}"
                if versus
                else ""
            )
            rows.append(
                [
                    one.runtime,
                    "float32" if quantize == "none" else quantize,
                    name,
                    f"{one.size_bytes / 1024:.0f}",
                    f"{one.latency.p50_ms:.3f}",
                    f"{one.latency.p90_ms:.3f}",
                    against,
                ]
            )
    table(
        f"{path.name}, one thread",
        ["runtime", "precision", "model", "KiB", "p50 ms", "p90 ms", "as fast as the original"],
        rows,
    )


if __name__ == "__main__":
    main()
