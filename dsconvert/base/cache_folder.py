"""The folder in which results that took long are kept between runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """``$DSCONVERT_CACHE``, or the platform's folder for caches. It need not exist."""
    chosen = os.environ.get("DSCONVERT_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
        return (Path(base) if base else Path.home() / "AppData" / "Local") / "dsconvert" / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "dsconvert"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "dsconvert"
