"""The networks of published articles about separable convolutions, to build, count and measure."""

from __future__ import annotations

from .catalogue import REFERENCES, build, reference
from .published import Published, Reference
from .settings import BuildSettings

__all__ = ["REFERENCES", "BuildSettings", "Published", "Reference", "build", "reference"]
