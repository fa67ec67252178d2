"""The folder in which results that took long are kept between runs."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path


def home_folder() -> Path:
    """Return the user's home; in a container whose user has none, a folder for temporary files."""
    try:
        return Path.home()
    except RuntimeError:
        return Path(tempfile.gettempdir()) / "dsconvert-home"


def cache_folder() -> Path:
    """``$DSCONVERT_CACHE``, or the platform's folder for caches. It need not exist."""
    chosen = os.environ.get("DSCONVERT_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "")
        return (Path(base) if base else home_folder() / "AppData" / "Local") / "dsconvert" / "cache"
    if sys.platform == "darwin":
        return home_folder() / "Library" / "Caches" / "dsconvert"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else home_folder() / ".cache") / "dsconvert"
