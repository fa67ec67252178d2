"""Size and latency of VGG6, original and rewritten, each runtime in one interleaved run.

"blocks": three-factor blocks against pairs of as many MACs, and their cycles on an Ethos-U55.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import VGG6, arguments, images, machine, table

MACS = "19.84M"
"""VGG6 with one pair for each convolution but the stem."""
NPU = "ethos-u55-128"


def main() -> None:
    chosen = arguments(__doc__, "pairs", "blocks")
    print(f"Machine: {machine()}")
    with tempfile.TemporaryDirectory() as folder:
        if "pairs" in chosen.only.split(","):
            measure(chosen.models / VGG6, images(chosen.data), Path(folder))
        if "blocks" in chosen.only.split(","):
            table(
                f"VGG6 at {MACS} MACs, one thread: times to the pair network's",
                ["runtime", "precision", "network", "M MACs", "KiB", "p50 ms", "to pairs"],
                blocks(chosen.models / VGG6, images(chosen.data, 200), Path(folder)),
            )


def blocks(path: Path, calibration: Any, folder: Path) -> Iterator[list[Any]]:
    """Weights are those of the kernels' decomposition alone: times do not depend on them."""
    from dsconvert.converter.core.planning.limits import parse_limit
    from dsconvert.converter.rewrite import rewrite
    from dsconvert.deploy.exporting.export import export
    from dsconvert.deploy.profiling.profile import profile
    from dsconvert.models.loading import load

    original = load(path).model
    limit = parse_limit(MACS, "macs")
    networks = {
        "pairs": rewrite(original, method="svd", pairs=1, order="depthwise-first"),
        "blocks": rewrite(original, method="svd", macs=limit, block="three-factor"),
    }
    macs = {name: made.report.macs_after or 0 for name, made in networks.items()}
    models = {name: made.model for name, made in networks.items()} | {"original": original}
    macs["original"] = networks["pairs"].report.macs_before or 0
    for suffix in (".tflite", ".onnx"):
        for quantize in ("none", "int8"):
            files = [folder / f"{name}-{quantize}{suffix}" for name in models]
            for file, model in zip(files, models.values(), strict=True):
                export(model, file, quantize=quantize, calibration=calibration, gate=False)
            measured = profile(files, inputs=[calibration[:32]], runs=500, min_seconds=3)
            for name, one in zip(models, measured, strict=True):
                assert one.latency is not None, one.failure
                versus = one.comparison
                yield [
                    one.runtime,
                    "float32" if quantize == "none" else quantize,
                    name,
                    f"{macs[name] / 1e6:.2f}",
                    f"{one.size_bytes / 1024:.0f}",
                    f"{one.latency.p50_ms:.3f}",
                    f"{versus.ratio:.3f} ({versus.low:.3f}–{versus.high:.3f})" if versus else "1",
                ]
    for name in models:
        file = folder / f"{name}-int8.tflite"
        (one,) = profile([file], device=NPU)
        assert one.estimate is not None
        cycles = f"{one.estimate.cycles / 1e3:,.0f} k cycles"
        size = f"{one.size_bytes / 1024:.0f}"
        memory = f"{one.estimate.sram_kib:.0f} KiB of SRAM"
        yield [NPU, "int8", name, f"{macs[name] / 1e6:.2f}", size, cycles, memory]


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
