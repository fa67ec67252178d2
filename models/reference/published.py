"""What an article prints about a network, and how our counts are held against it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .settings import BuildSettings

Quantity = Literal["parameters", "kernels", "macs", "macs-without-dense"]


@dataclass(frozen=True)
class Published:
    """A count as it is printed.

    Attributes:
        quantity: "parameters": everything that the framework counts. "kernels": the weights of
            convolutions and dense layers, without biases and norms. "macs": multiply-accumulates
            of convolutions and dense layers; "macs-without-dense": of convolutions alone.
        value: The figure.
        settings: The network that it is about.
        unit: What it is printed in, e.g. 1,000,000.
        digits: Decimals that are printed.
    """

    quantity: Quantity
    value: float
    settings: BuildSettings
    unit: int = 1
    digits: int = 0

    def agrees(self, count: int) -> bool:
        """Tell whether a count, rounded as the figure is, is the figure."""
        return round(count / self.unit, self.digits) == self.value

    @property
    def text(self) -> str:
        """The figure as people read it: "569 M", "1,186,378"."""
        suffix = " M" if self.unit == 1_000_000 else ""
        return f"{self.value:,.{self.digits}f}{suffix}"


@dataclass(frozen=True)
class Reference:
    """A network of an article.

    Attributes:
        name: What `dsconvert zoo` calls it.
        title: The article's.
        author: Who wrote it.
        where: Where it appeared.
        input_shape: (H, W, C) of the article's images.
        classes: The article's.
        draw: Builds it.
        published: The counts that the article prints.
        extras: Which of "alpha" and "shallow" the network knows.
        smallest: The least height and width that leave something to the last layers.
    """

    name: str
    title: str
    author: str
    where: str
    input_shape: tuple[int, int, int]
    classes: int
    draw: Callable[[BuildSettings], Any]
    published: tuple[Published, ...]
    extras: tuple[str, ...] = ()
    smallest: int = 1

    @property
    def source(self) -> str:
        """Author, title and place in one line."""
        return f"{self.author}, “{self.title}”, {self.where}"

    def settings(self, *, separable: bool) -> BuildSettings:
        """Return the article's own network in one of its two forms."""
        return BuildSettings(
            separable=separable, input_shape=self.input_shape, classes=self.classes
        )
