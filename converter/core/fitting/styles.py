"""The registry of block styles: one line for each, loaded when it is asked for.

A new style is one line here and one file that holds its `BlockStyle`. The backends write any block
that is made of the layers of `core.types`, so none of them changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from dsconvert.base.errors import InputError

if TYPE_CHECKING:
    from .block_style import BlockStyle


@dataclass(frozen=True)
class Entry:
    """One line of the registry: light, so that the command line can list the styles.

    Attributes:
        file: The module of this folder whose STYLE it is.
        summary: What the command line says of it.
    """

    file: str
    summary: str


STYLES: Mapping[str, Entry] = {
    "linear": Entry("linear_block", "nothing between the two kernels, as in SeparableConv2D"),
    "mobilenet": Entry("mobilenet_block", "BatchNorm and ReLU between them, to be fine-tuned"),
    "three-factor": Entry("three_factor_block", "1×1, depthwise and 1×1, --channels R between"),
    "auto": Entry("auto_block", "pairs or three-factor, whichever has the lower error"),
}
"""The styles by name, in the order in which they are tried."""

DEFAULT = "linear"

STRUCTURES: Mapping[str, str] = {"auto": "auto", "pairs": "linear", "block": "three-factor"}
"""The styles that need no training, in plain words."""


def block_style(name: str) -> BlockStyle:
    """Look a style up.

    Args:
        name: As a `Choice` has it.

    Raises:
        InputError: If there is no such style.
    """
    if name not in STYLES:
        raise InputError(
            f"unknown block style {name!r}; allowed: {', '.join(STYLES)}.", code="unknown-block"
        )
    style: BlockStyle = import_module(f".{STYLES[name].file}", __package__).STYLE
    return style


def all_styles() -> list[BlockStyle]:
    """Load every style, in the order of the registry."""
    return [block_style(name) for name in STYLES]
