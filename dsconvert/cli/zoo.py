from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import options, terminal

if TYPE_CHECKING:
    from dsconvert.workflows.results.reference import ZooFile, ZooList


_LARGEST = 8192


class InputSize(click.ParamType[tuple[int, ...]]):
    """A size as people write it: 32x32x3, or 224x224 with the article's channels."""

    name = "HxW[xC]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, ...]:
        """Parse two or three positive integers."""
        if isinstance(value, tuple):
            return value
        parts = value.lower().replace("×", "x").split("x")
        sizes = [int(part) if part.isdecimal() and len(part) < 6 else 0 for part in parts]
        if len(sizes) not in (2, 3) or not all(0 < size <= _LARGEST for size in sizes):
            self.fail(
                f"{value!r} is not a size of up to {_LARGEST} per axis; write it as 32x32x3 or "
                "224x224.",
                param,
                ctx,
            )
        return tuple(sizes)


@click.command()
@click.argument("name", required=False)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The .keras or .h5 file to write."
)
@click.option(
    "--separable", is_flag=True, help="Depthwise + pointwise pairs instead of convolutions."
)
@click.option(
    "--input",
    "size",
    type=InputSize(),
    metavar="HxW[xC]",
    help="Size of an image, e.g. 32x32x3; by default the article's.",
)
@click.option("--classes", type=click.IntRange(1, 10**6), help="By default the article's.")
@click.option(
    "--alpha", type=options.Finite(1e-3, 100), default=1.0, help="mobilenet: the width multiplier."
)
@click.option("--shallow", is_flag=True, help="mobilenet: without its blocks of 512 channels.")
@options.overwrite
@options.common
@terminal.speaks()
def zoo(
    name: str | None,
    output: Path | None,
    separable: bool,
    size: tuple[int, ...] | None,
    classes: int | None,
    alpha: float,
    shallow: bool,
    overwrite: bool,
    seed: int,
) -> ZooList | ZooFile:
    """List the networks of published articles, or write NAME, untrained, to a file.

    Each can be built with standard convolutions or separable ones, for images of any size and any
    number of classes. Images are fed as they are stored, 0 … 255.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.models.reference import reference
    from dsconvert.workflows.reference import NetworkOptions, list_networks, write_network

    if name is None:
        if output is not None or separable or size or classes or alpha != 1 or shallow:
            raise InputError(
                "there is no NAME, so nothing can be built.",
                "Try: dsconvert zoo",
                code="needs-name",
            )
        return list_networks()
    reference(name)  # an unknown name is told before a missing output
    if output is None:
        raise InputError(
            "nothing says where the network is to be written.",
            f"Try: dsconvert zoo {name} -o {name}.keras",
            code="needs-output",
        )
    chosen = NetworkOptions(
        separable=separable,
        input_size=size,
        classes=classes,
        alpha=alpha,
        shallow=shallow,
        seed=seed,
    )
    return write_network(name, output, chosen, overwrite=overwrite)
