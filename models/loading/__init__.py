"""Loading Keras model files of every age."""

from __future__ import annotations

from .custom import resolve_custom_objects
from .load import Loaded, load

__all__ = ["Loaded", "load", "resolve_custom_objects"]
