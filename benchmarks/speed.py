"""Seconds and peak memory of the tool itself, on larger and larger networks.

    python benchmarks/speed.py [--only 1M,5M] [--kinds keras,onnx]

Stacks of convolutions with random weights, each command in a process of its own. The images
are noise: what is asked for is how time and memory grow, not accuracy.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import Used, dsconvert, machine, table, used_by

GIB = 1 << 30
IMAGES = 64
"""For the commands that see data; few, so that what grows with the network is seen."""


class Stack(NamedTuple):
    """A network of equal stages.

    Attributes:
        convolutions: 3x3, with ReLU, over four stages; the stages halve height and width.
        width: Channels of the first stage; each stage has twice as many.
        size: Height and width of the input.
    """

    convolutions: int
    width: int
    size: int


STACKS = {
    "1M": Stack(10, 24, 32),
    "5M": Stack(16, 40, 32),
    "25M": Stack(20, 80, 32),
    "100M": Stack(28, 136, 32),
    "30 layers": Stack(30, 24, 32),
    "100 layers": Stack(100, 24, 32),
    "300 layers": Stack(300, 24, 32),
}
"""By parameters (the first four), then by the number of convolutions at one width."""
BUILD = """
import sys, keras
convolutions, width, size = map(int, sys.argv[2:])
keras.utils.set_random_seed(0)
x = first = keras.Input((size, size, 3))
for index in range(convolutions):
    stage = 4 * index // convolutions
    begins = index and stage != 4 * (index - 1) // convolutions
    x = keras.layers.Conv2D(
        width * 2**stage, 3, strides=2 if begins else 1, padding="same", activation="relu",
        kernel_initializer="he_normal", name=f"conv{index}",
    )(x)
x = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
model = keras.Model(first, x)
model.save(sys.argv[1])
print(model.count_params())
"""
COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "MODEL"),
    "rewrite svd": ("rewrite", "MODEL", "--method", "svd", "--structure", "pairs", "-o", "OUT"),
    "rewrite data": ("rewrite", "MODEL", "--calibration", "DATA", "--refine", "0", "-o", "OUT"),
    "plan": ("plan", "MODEL", "--calibration", "DATA", "--target-macs", "0.5x", "-o", "PLAN"),
    "refine": (
        "rewrite", "MODEL", "--calibration", "DATA", "--plan", "PLAN", "--refine", "20steps",
        "-o", "OUT",
    ),
    "export": ("export", "MODEL", "-o", "FILE"),
    "export int8": ("export", "MODEL", "--quantize", "int8", "--calibration", "DATA", "-o", "FILE"),
}  # fmt: skip
"""By what the table calls them; the words in capitals are places."""


def main() -> None:
    chosen = _arguments()
    print(f"Machine: {machine()}")
    heads = ["network", "convolutions", "M parameters", "command", "CPU s", "s", "peak GiB"]
    for kind in chosen.kinds.split(","):
        table(
            f"Time and memory of each command, {kind}, {IMAGES} images of 32x32",
            heads,
            _rows(kind, chosen.only.split(","), chosen.commands.split(","), chosen.limit),
        )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(STACKS), help="some of: %(default)s")
    parser.add_argument("--kinds", default="keras,onnx", help="some of: %(default)s")
    parser.add_argument("--commands", default=",".join(COMMANDS), help="some of: %(default)s")
    parser.add_argument("--limit", default=1200, type=int, help="seconds a command may take")
    return parser.parse_args()


def _rows(kind: str, names: list[str], commands: list[str], limit: int) -> Iterator[list[Any]]:
    for name in names:
        with tempfile.TemporaryDirectory() as made:
            folder, stack = Path(made), STACKS[name]
            parameters = _build(stack, folder)
            places = _places(kind, folder)
            for command in commands:
                if command == "export" and kind == "onnx":
                    continue
                words = [places.get(word, word) for word in COMMANDS[command]]
                used = used_by(["/usr/bin/timeout", str(limit), *dsconvert(*words, "--quiet")])
                sizes = [stack.convolutions, f"{parameters / 1e6:.1f}"]
                yield [name, *sizes, command, *_told(used, limit)]
                for left in (places["OUT"], places["FILE"]):
                    left.unlink(missing_ok=True)


def _build(stack: Stack, folder: Path) -> int:
    """Write the network in both formats, and images in both orders of axes."""
    import subprocess

    built = [sys.executable, "-c", BUILD, str(folder / "model.keras"), *map(str, stack)]
    told = subprocess.run(built, check=True, capture_output=True, text=True).stdout
    exported = dsconvert("export", folder / "model.keras", "-o", folder / "model.onnx", "--quiet")
    subprocess.run(exported, check=True, capture_output=True)
    x = np.random.default_rng(0).random((IMAGES, stack.size, stack.size, 3), dtype=np.float32)
    np.savez(folder / "keras.npz", x=x)
    np.savez(folder / "onnx.npz", x=x)
    return int(told.split()[-1])


def _places(kind: str, folder: Path) -> dict[str, Path]:
    return {
        "MODEL": folder / f"model.{kind}",
        "DATA": folder / f"{kind}.npz",
        "PLAN": folder / "plan.json",
        "OUT": folder / f"out.{kind}",
        "FILE": folder / ("file.tflite" if kind == "keras" else "file.onnx"),
    }


def _told(used: Used, limit: int) -> list[str]:
    if used.code:
        why = f"over {limit} s" if used.code == 124 else f"exit code {used.code}"
        return [why, f"{used.wall:.0f}", f"{used.peak / GIB:.2f}"]
    return [f"{used.cpu:.1f}", f"{used.wall:.1f}", f"{used.peak / GIB:.2f}"]


if __name__ == "__main__":
    main()
