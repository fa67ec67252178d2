"""Networks of published articles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from dsconvert.base.tables import Block, Shown, Table

from .. import formatting

if TYPE_CHECKING:
    from dsconvert.models.reference import BuildSettings


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


class ZooList(Shown, msgspec.Struct, frozen=True, kw_only=True):
    """All networks."""

    schema: Literal["dsconvert.zoo/1"] = "dsconvert.zoo/1"
    networks: tuple[ListedNetwork, ...]

    def blocks(self) -> Iterator[Block]:
        """Yield one line per network."""
        figures = ("classes", "params", "MACs", "separable", "its MACs")
        table = Table(("name", "input"), figures, ("source",))
        for one in self.networks:
            table.add(
                one.name,
                "×".join(map(str, one.input_shape)),
                str(one.classes),
                *_short(one.standard),
                *_short(one.separable),
                one.source,
            )
        yield table


class ZooFile(Shown, msgspec.Struct, frozen=True, kw_only=True):
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

    def blocks(self) -> Iterator[Block]:
        """Return what was written."""
        form = "separable" if self.settings.separable else "standard"
        yield f"{self.name}, {form}: {_told(self.counts)}. {self.source}."
        yield "Untrained: its weights are random."
        yield formatting.file(self.output, self.size_bytes, self.sha256)


def _short(counts: Counts) -> tuple[str, str]:
    return formatting.short(counts.params), formatting.short(counts.macs)


def _told(counts: Counts) -> str:
    return f"{counts.params:,} parameters, {formatting.short(counts.macs, 'MACs')}"
