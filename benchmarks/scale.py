"""Time and peak memory of `rewrite`, beside what `--memory` is documented to cover: VGG16.

Random weights and images; about 2 GB of temporary files. python benchmarks/scale.py [IMAGES]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import machine, table
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
            base, _ = peak([sys.executable, "-c", LIBRARIES[kind]])
            for allowed in ALLOWED:
                data = folder / f"{kind}.npz"
                words = ["rewrite", source, "-o", target, "--calibration", data, *COMMAND]
                words += ["--memory", f"{allowed}GiB", "--overwrite"]
                words += ["--refine", "0"] if kind == "keras" else []
                program = "from dsconvert.cli import main; main()"
                started = time.perf_counter()
                most, code = peak([sys.executable, "-c", program, *map(str, words)])
                seconds = f"{time.perf_counter() - started:.0f}"
                covered = base + HELD[kind] * weights + allowed * GIB
                told = f"{most / GIB:.2f}" if code == 0 else f"failed: exit code {code}"
                ratio = f"{most / covered:.2f}"
                sizes = gib(base, weights, covered)
                rows.append([kind, f"{allowed} GiB", *sizes, told, ratio, seconds])
    heads = ["front end", "--memory", "libraries", "weights", "covered", "peak"]
    heads += ["peak / covered", "s"]
    table(f"VGG16, {images} images, T = 1, data method; GiB", heads, rows)


def gib(*sizes: int) -> list[str]:
    return [f"{size / GIB:.2f}" for size in sizes]


def peak(command: list[str]) -> tuple[int, int]:
    """Run a command; the most memory that it had, in bytes, and its exit code."""
    child = os.posix_spawn(command[0], command, os.environ)
    _, status, used = os.wait4(child, 0)
    return used.ru_maxrss * 1024, os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 64)
