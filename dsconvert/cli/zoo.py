from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

from dsconvert.base import quiet
from dsconvert.workflows import model_files

from . import formatting, options, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from dsconvert.models.reference import BuildSettings, Reference


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What a network comes to.

    Attributes:
        params: All weights.
        kernels: Those of convolutions and dense layers, without biases and norms.
        macs: Multiply-accumulates per image.
    """

    params: int
    kernels: int | None
    macs: int | None


class ListedNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """A network that can be built, as its article has it.

    Attributes:
        name: To call it by.
        source: Author, title, place.
        input_shape: (H, W, C).
        classes: How many scores it gives.
        standard: With standard convolutions.
        separable: With depthwise + pointwise pairs.
    """

    name: str
    source: str
    input_shape: tuple[int, int, int]
    classes: int
    standard: Counts
    separable: Counts


class ZooList(msgspec.Struct, frozen=True, kw_only=True):
    """All networks."""

    schema: Literal["dsconvert.zoo/1"] = "dsconvert.zoo/1"
    networks: tuple[ListedNetwork, ...]


class ZooFile(msgspec.Struct, frozen=True, kw_only=True):
    """A network that was written.

    Attributes:
        name: Its name.
        source: Author, title, place.
        settings: How it was built.
        trained: Whether its weights have learnt anything; they have not.
        counts: What it comes to.
        output: The file.
        sha256: Its hash.
        size_bytes: Its size.
    """

    schema: Literal["dsconvert.zoo-file/1"] = "dsconvert.zoo-file/1"
    name: str
    source: str
    settings: BuildSettings
    trained: Literal[False] = False
    counts: Counts
    output: str
    sha256: str
    size_bytes: int


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
        if len(parts) not in (2, 3) or not all(part.isdigit() and int(part) for part in parts):
            self.fail(f"{value!r} is not a size; write it as 32x32x3 or 224x224.", param, ctx)
        return tuple(map(int, parts))


def show(console: Console, result: ZooList | ZooFile) -> None:
    """The table of networks, or what was written."""
    if isinstance(result, ZooFile):
        form = "separable" if result.settings.separable else "standard"
        console.print(f"{result.name}, {form}: {_told(result.counts)}. {result.source}.")
        console.print("Untrained: its weights are random.")
        console.print(
            f"{result.output}: {formatting.kib(result.size_bytes)}, SHA-256 {result.sha256}"
        )
        return
    from rich.table import Table

    table = Table("name", "input", "classes", "standard", "separable", "source", box=None)
    for one in result.networks:
        shape = "×".join(map(str, one.input_shape))
        counts = _told(one.standard), _told(one.separable)
        table.add_row(one.name, shape, str(one.classes), *counts, one.source)
    console.print(table)


def _told(counts: Counts) -> str:
    return f"{counts.params:,} parameters, {formatting.short(counts.macs, 'MACs')}"


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
@click.option("--classes", type=click.IntRange(1), help="By default the article's.")
@click.option("--alpha", type=float, default=1.0, help="mobilenet: the width multiplier.")
@click.option("--shallow", is_flag=True, help="mobilenet: without its blocks of 512 channels.")
@options.overwrite
@options.common
@terminal.speaks(show)
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
    from dsconvert.models.reference import BuildSettings, reference

    if name is None:
        if output is not None or separable or size or classes or alpha != 1 or shallow:
            raise InputError("there is no NAME, so nothing can be built.", "Try: dsconvert zoo")
        return _listed()
    found = reference(name)
    if output is None:
        raise InputError(
            "nothing says where the network is to be written.",
            f"Try: dsconvert zoo {name} -o {name}.keras",
        )
    _check_place(output, overwrite)
    given = size or found.input_shape
    shape = (given[0], given[1], given[2] if len(given) == 3 else found.input_shape[2])
    settings = BuildSettings(
        separable=separable,
        input_shape=shape,
        classes=found.classes if classes is None else classes,
        alpha=alpha,
        shallow=shallow,
    )
    model = _built(found, settings, seed)
    written, digest = model_files.save_keras(model, output, overwrite, False, None)
    return ZooFile(
        name=name,
        source=found.source,
        settings=settings,
        counts=_counted(model),
        output=str(output),
        sha256=digest,
        size_bytes=written,
    )


def _check_place(output: Path, overwrite: bool) -> None:
    from dsconvert.base.errors import InputError
    from dsconvert.base.files import check_writable

    if output.suffix not in (".keras", ".h5"):
        raise InputError(
            f"{output} ends in {output.suffix!r}; allowed: .keras or .h5.",
            f"Try: -o {output.with_suffix('.keras')}",
        )
    check_writable(output, overwrite=overwrite)


def _listed() -> ZooList:
    from dsconvert.models.reference import REFERENCES

    return ZooList(
        networks=tuple(
            ListedNetwork(
                name=one.name,
                source=one.source,
                input_shape=one.input_shape,
                classes=one.classes,
                standard=_counted(_built(one, one.settings(separable=False), 0)),
                separable=_counted(_built(one, one.settings(separable=True), 0)),
            )
            for one in REFERENCES
        )
    )


def _built(one: Reference, settings: BuildSettings, seed: int) -> Any:
    from dsconvert.base.errors import require
    from dsconvert.models.reference import build

    quiet.import_quietly("tensorflow")
    keras = require("keras", "keras", "to build a network")
    keras.utils.set_random_seed(seed)
    return build(one.name, settings)


def _counted(model: Any) -> Counts:
    """By the same code as `inspect`."""
    from dsconvert.converter.backends.backend import backend_for

    source = backend_for(model)
    return Counts(params=source.params(), kernels=source.kernels(), macs=source.macs())
