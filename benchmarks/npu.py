"""What Arm's compiler Vela estimates for int8 networks on Ethos-U NPUs, and what a microcontroller
needs: the original, T pairs as branches, and, as the pitfall, T pairs as depth_multiplier T.

Nothing is fine-tuned: cycles depend on the weights only by how well these are compressed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from common import RESNET8, VGG6, arguments, images, machine, table

NETWORKS = {"resnet8": RESNET8, "vgg6": VGG6}
NPUS = ("ethos-u55-128", "ethos-u65-256")
IMAGES = 200
"""For the fit, and for the ranges of int8 activations."""
VARIANTS = ("original", "T = 1", "T = 2", "T = 2 as depth_multiplier 2")


def main() -> None:
    chosen = arguments(__doc__, *NETWORKS)
    print(f"Machine: {machine()}, ethos-u-vela {version('ethos-u-vela')}")
    pictures = images(chosen.data, IMAGES)
    for name in chosen.only.split(","):
        columns = ["int8 file", "MACs", "size", "arena (TFLM)"]
        for npu in NPUS:
            columns += [f"{npu}: cycles", "time", "against original", "SRAM", "flash or DRAM"]
        with tempfile.TemporaryDirectory() as folder:
            rows = estimates(chosen.models / NETWORKS[name], pictures, Path(folder))
            table(f"{name} on Ethos-U by Vela's estimates", columns, rows)


def estimates(path: Path, pictures: Any, folder: Path) -> Iterator[list[str]]:
    """Yield a row per variant."""
    from dsconvert.base.units import short
    from dsconvert.deploy.exporting.export import export
    from dsconvert.deploy.profiling.profile import profile

    original: dict[str, int] = {}
    for variant, model in variants(path, pictures):
        file = folder / f"{VARIANTS.index(variant)}.tflite"
        export(model, file, quantize="int8", calibration=pictures, gate=False)
        (mcu,) = profile([file], device="mcu")
        assert mcu.estimate is not None
        row = [variant, short(mcu.macs), kib(mcu.size_bytes / 1024), kib(mcu.estimate.arena_kib)]
        for npu in NPUS:
            (measured,) = profile([file], device=npu)
            found = measured.estimate
            assert found is not None
            assert found.npu_share == 1, f"{variant}: a part stays on the CPU"
            original.setdefault(npu, found.cycles)
            row += [
                f"{found.cycles / 1e3:,.0f} k",
                f"{found.inference_ms:.2f} ms",
                f"{original[npu] / found.cycles:.2f}× as fast",
                kib(found.sram_kib),
                kib(found.flash_kib + found.dram_kib),  # the U55 has no DRAM, the U65 no flash
            ]
        yield row


def variants(path: Path, pictures: Any) -> Iterator[tuple[str, Any]]:
    """Yield the networks, by the names of `VARIANTS`."""
    from dsconvert.converter.rewrite import rewrite
    from dsconvert.models.loading import load

    model = load(path).model
    yield VARIANTS[0], model
    yield VARIANTS[1], rewrite(model, calibration=pictures).model
    branches = rewrite(model, calibration=pictures, pairs=2, order="depthwise-first")
    yield VARIANTS[2], branches.model
    layers = tuple(
        msgspec.structs.replace(
            layer, choice=msgspec.structs.replace(layer.choice, lowering="multiplier")
        )
        if layer.choice is not None
        else layer
        for layer in branches.plan.layers
    )
    plan = msgspec.structs.replace(branches.plan, layers=layers)
    yield VARIANTS[3], rewrite(model, calibration=pictures, plan=plan).model


def kib(size: float | None) -> str:
    return "–" if size is None else f"{size:,.1f} KiB"


if __name__ == "__main__":
    main()
