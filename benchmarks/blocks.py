"""What T pairs cost against the 3×3 convolution that they replace, on each target.

For this machine's runtimes the figures are ratios of measured medians, for the NPU of cycles
that Vela estimates.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import machine, table

from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.converter.core.types import Choice, Figure
from dsconvert.deploy.costs import Target, measured_costs

SHAPES = ((56, 64, 64), (28, 128, 128), (14, 256, 256), (7, 512, 512), (32, 3, 16), (32, 16, 16))
"""(H = W, C, N)."""
CHOICES = {
    "T = 1": Choice(pairs=1, order="depthwise-first"),
    "pointwise first": Choice(pairs=1, order="pointwise-first"),
    "T = 2, multiplier": Choice(pairs=2, order="depthwise-first", lowering="multiplier"),
    "T = 2, sum": Choice(pairs=2, order="depthwise-first"),
    "T = 4, multiplier": Choice(pairs=4, order="depthwise-first", lowering="multiplier"),
    "T = 4, sum": Choice(pairs=4, order="depthwise-first"),
}
TARGETS = {
    "LiteRT float32": Target(),
    "LiteRT int8": Target(precision="int8"),
    "ONNX Runtime float32": Target(runtime="ort"),
    "ONNX Runtime int8": Target(runtime="ort", precision="int8"),
    "Ethos-U55-128": Target(precision="int8", device="ethos-u55-128"),
}


def main() -> None:
    print(f"Machine: {machine()}")
    blocks = [
        Block(
            input_size=(size, size),
            in_channels=channels,
            out_channels=filters,
            kernel_size=(3, 3),
            activation="relu",
        )
        for size, channels, filters in SHAPES
    ]
    choices = list(CHOICES.values())
    found = {}
    for name, target in TARGETS.items():
        with tempfile.TemporaryDirectory() as folder:  # a benchmark measures, it does not remember
            model = measured_costs(target, cache=Path(folder))
            found[name] = model.costs([(block, choices) for block in blocks])
    rows = [
        ["" if row else shape(block), name, *cells]
        for number, block in enumerate(blocks)
        for row, (name, costs) in enumerate(found.items())
        for cells in [
            [speed_up(costs[number].original, figure) for figure in costs[number].choices]
        ]
    ]
    table(
        "Times as fast as the 3×3 convolution, one thread (* beyond the noise)",
        ["H×W, C→N", "target", *CHOICES],
        rows,
    )


def shape(block: Block) -> str:
    return f"{block.input_size[0]}², {block.in_channels}→{block.out_channels}"


def speed_up(original: Figure, figure: Figure | None) -> str:
    if figure is None:
        return "cannot run"
    return f"{original.value / figure.value:.2f}{'*' if figure.faster else ''}"


if __name__ == "__main__":
    main()
