"""List the networks of published articles, or build one, untrained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsconvert.base import quiet

from .results.reference import Counts, ListedNetwork, ZooFile, ZooList
from .saved_models import save_keras

if TYPE_CHECKING:
    import keras

    from dsconvert.models.reference import BuildSettings, Reference


@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """How a network departs from its article.

    Attributes:
        separable: Depthwise + pointwise pairs instead of convolutions.
        input_size: (H, W) or (H, W, C); by default the article's.
        classes: By default the article's.
        alpha: Of mobilenet: the width multiplier.
        shallow: Of mobilenet: without its blocks of 512 channels.
        seed: Of the weights.
    """

    separable: bool = False
    input_size: tuple[int, ...] | None = None
    classes: int | None = None
    alpha: float = 1.0
    shallow: bool = False
    seed: int = 0


def list_networks() -> ZooList:
    """List the networks that can be built, with what each comes to."""
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


def write_network(
    name: str, output: Path, options: NetworkOptions | None = None, *, overwrite: bool = False
) -> ZooFile:
    """Write an untrained network of an article.

    Args:
        name: One of those that `list_networks` names.
        output: The .keras or .h5 file.
        options: How it departs from its article.
        overwrite: Whether the file may exist.

    Raises:
        InputError: If there is no such network, or the file cannot be written.
    """
    from dsconvert.models.reference import BuildSettings, reference

    options = options or NetworkOptions()
    found = reference(name)
    _check_place(output, overwrite)
    given = options.input_size or found.input_shape
    shape = (given[0], given[1], given[2] if len(given) == 3 else found.input_shape[2])
    settings = BuildSettings(
        separable=options.separable,
        input_shape=shape,
        classes=found.classes if options.classes is None else options.classes,
        alpha=options.alpha,
        shallow=options.shallow,
    )
    model = _built(found, settings, options.seed)
    written, digest = save_keras(model, output, overwrite=overwrite)
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
            code="wrong-suffix",
        )
    check_writable(output, overwrite=overwrite)


def _built(one: Reference, settings: BuildSettings, seed: int) -> keras.Model:
    from dsconvert.base.errors import require
    from dsconvert.models.reference import build

    quiet.import_quietly("tensorflow")
    framework = require("keras", "keras", "to build a network")
    framework.utils.set_random_seed(seed)
    return build(one.name, settings)


def _counted(model: keras.Model) -> Counts:
    """By the same code as `inspect`."""
    from dsconvert.converter.backends.backend import backend_for

    source = backend_for(model)
    return Counts(params=source.params(), kernels=source.kernels(), macs=source.macs())
