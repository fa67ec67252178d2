from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import next_command, options, terminal, terms

if TYPE_CHECKING:
    from dsconvert.workflows.results.reference import ZooFile, ZooList


_LARGEST = 8192


@click.command(epilog=terms.explained("MACs", "pair"))
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
    type=options.Size(),
    metavar="HxW[xC]",
    help="Size of an image, e.g. 32x32x3; by default the article's.",
)
@click.option("--classes", type=options.Count(1, 10**6), help="By default the article's.")
@click.option(
    "--alpha", type=options.Finite(1e-3, 100), default=1.0, help="mobilenet: the width multiplier."
)
@click.option("--shallow", is_flag=True, help="mobilenet: without its blocks of 512 channels.")
@options.overwrite
@options.common
@terminal.speaks(next_command.after_zoo)
def zoo(
    name: str | None,
    output: Path | None,
    separable: bool,
    size: str | None,
    classes: int | None,
    alpha: float,
    shallow: bool,
    overwrite: bool,
    seed: int,
) -> ZooList | ZooFile:
    """List networks of published articles, or write NAME to a file.

    The file's weights are random. Each network can be built with standard convolutions or
    separable ones, for images of any size and any number of classes. Images are fed as they are
    stored, 0 … 255.
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
        input_size=None if size is None else _image_size(size),
        classes=classes,
        alpha=alpha,
        shallow=shallow,
        seed=seed,
    )
    return write_network(name, output, chosen, overwrite=overwrite)


def _image_size(word: str) -> tuple[int, ...]:
    """Read HxW or HxWxC.

    Raises:
        InputError: If it has another number of parts.
    """
    from dsconvert.base.errors import InputError
    from dsconvert.base.input_size import parse_size

    size = parse_size(word)
    if len(size) not in (2, 3) or max(size) > _LARGEST:
        raise InputError(
            f"invalid --input {word!r}: HxW or HxWxC is required, up to {_LARGEST} per axis.",
            "Write it as 32x32x3 or 224x224.",
            code="bad-size",
        )
    return size
