"""Time and peak memory of `rewrite`, beside what `--memory` is documented to cover: VGG16.

Random weights and images; about 2 GB of temporary files. python benchmarks/scale.py [IMAGES]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
from common import dsconvert, machine, table, used_by
from onnx_scale import BUILD, LAYERS, run

GIB = 1 << 30
ALLOWED = (1, 2)
"""GiB given with --memory."""
HELD = {"onnx": 3, "keras": 4}
"""How often the weights are held at once: see docs/commands/rewrite.md."""
LIBRARIES = {
    "onnx": "import onnx, onnxruntime, scipy.linalg, scipy.optimize",
    "keras": "import keras; keras.layers.Dense(1)(keras.ops.zeros((1, 1)))",
}
KERAS = """
import sys, keras
keras.utils.set_random_seed(0)
keras.applications.VGG16(weights=None).save(sys.argv[1])
"""
COMMAND = ("--structure", "pairs", "--quiet")


def main(images: int) -> None:
    print(f"Machine: {machine()}")
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        x = np.random.default_rng(0).random((images, 3, 224, 224), dtype=np.float32)
        np.savez(folder / "onnx.npz", x=x)
        np.savez(folder / "keras.npz", x=np.ascontiguousarray(x.transpose(0, 2, 3, 1)))
        del x
        run(BUILD, LAYERS, folder / "vgg16.onnx", "one")
        run(KERAS, folder / "vgg16.keras")
        for kind in ("onnx", "keras"):
            source, target = folder / f"vgg16.{kind}", folder / f"small.{kind}"
            weights = source.stat().st_size
            base = used_by([sys.executable, "-c", LIBRARIES[kind]]).peak
            for allowed in ALLOWED:
                data = folder / f"{kind}.npz"
                words = ["rewrite", source, "-o", target, "--calibration", data, *COMMAND]
                words += ["--memory", f"{allowed}GiB", "--overwrite"]
                words += ["--refine", "0"] if kind == "keras" else []
                used = used_by(dsconvert(*words))
                covered = base + HELD[kind] * weights + allowed * GIB
                told = f"failed: exit code {used.code}" if used.code else gib(used.peak)[0]
                ratio = f"{used.peak / covered:.2f}"
                sizes = gib(base, weights, covered)
                rows.append([kind, f"{allowed} GiB", *sizes, told, ratio, f"{used.wall:.0f}"])
    heads = ["front end", "--memory", "libraries", "weights", "covered", "peak"]
    heads += ["peak / covered", "s"]
    table(f"VGG16, {images} images, T = 1, data method; GiB", heads, rows)


def gib(*sizes: int) -> list[str]:
    return [f"{size / GIB:.2f}" for size in sizes]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 64)
