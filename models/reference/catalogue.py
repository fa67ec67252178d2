"""All reference networks, and how one is built."""

from __future__ import annotations

from typing import Any

import msgspec

from dsconvert.base.errors import InputError, require

from . import cifar100, mnist, mobilenet, vgg_block
from .published import Reference
from .settings import BuildSettings

REFERENCES = (
    vgg_block.REFERENCE,
    mnist.REFERENCE,
    cifar100.REFERENCE,
    mobilenet.REFERENCE,
)


def reference(name: str) -> Reference:
    """Return the reference network of this name.

    Raises:
        InputError: If there is none.
    """
    for one in REFERENCES:
        if one.name == name:
            return one
    names = ", ".join(one.name for one in REFERENCES)
    raise InputError(
        f"there is no network {name!r}; there are {names}.",
        "Try: dsconvert zoo",
        code="unknown-network",
    )


def build(name: str, settings: BuildSettings) -> Any:
    """Draw a reference network, with random weights that nothing has trained.

    Args:
        name: One of `REFERENCES`.
        settings: Its form, input and classes.

    Returns:
        A functional ``keras.Model`` of stock layers, images (n, H, W, C) as stored, 0 … 255.

    Raises:
        InputError: If there is no such network, or it cannot be built so.
    """
    require("keras", "keras", "to build a network")
    found = reference(name)
    defaults = msgspec.structs.asdict(found.settings(separable=settings.separable))
    for option in ("alpha", "shallow"):
        if option not in found.extras and getattr(settings, option) != defaults[option]:
            knowing = ", ".join(one.name for one in REFERENCES if option in one.extras)
            raise InputError(
                f"{found.name} knows no {option}; that is for {knowing}.",
                f"Leave --{option} out.",
                code="option-not-applicable",
            )
    height, width, _ = settings.input_shape
    if min(height, width) < found.smallest:
        raise InputError(
            f"{found.name} halves its images three times: input {height}×{width} is too small, "
            f"allowed: {found.smallest}×{found.smallest} or more.",
            f"Try: --input {found.smallest}x{found.smallest}x{settings.input_shape[2]}",
            code="input-too-small",
        )
    return found.draw(settings)
