"""One block as a small file, for tests that need a file to run."""

from __future__ import annotations

from pathlib import Path

from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.converter.core.types import Choice, ConvSpec
from dsconvert.deploy.costs.block_files import block_files

CONV_64 = ConvSpec(
    name="c",
    kernel_size=(3, 3),
    padding="same",
    in_channels=64,
    out_channels=64,
    input_sizes=((8, 8),),
)
"""A convolution of 64 channels, for tests of what blocks cost."""


def save_block(
    path: Path, block: Block, choice: Choice | None = None, precision: str = "float32"
) -> Path:
    """Write a block, as its suffix says, and give the path back."""
    (content,) = block_files(block, [choice], path.suffix, precision)  # type: ignore[arg-type]
    assert isinstance(content, bytes), content
    path.write_bytes(content)
    return path
