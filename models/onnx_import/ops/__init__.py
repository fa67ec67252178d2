"""The operators, one file per family; importing them fills the registry."""

from __future__ import annotations

import importlib
import pkgutil


def load() -> None:
    """Register all handlers."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
