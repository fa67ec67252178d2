"""The runner as one file that any Python since 3.9 runs."""

from __future__ import annotations

import io
import zipfile
from functools import cache
from pathlib import Path

PACKAGE = "dsconvert_runner"
TOO_OLD = "Python 3.9 or newer is needed, this is "
_START = f"""import sys

if sys.version_info < (3, 9):
    sys.exit("{TOO_OLD}" + sys.version.split()[0])
from {PACKAGE}.__main__ import main

sys.exit(main(sys.argv[1:]))
"""
_WHEN = (1980, 1, 1, 0, 0, 0)
"""The earliest that a zip file can say: the same sources give the same bytes."""


@cache
def packed_runner() -> bytes:
    """`dsconvert.deploy.runner` as a zip file with a `__main__`."""
    folder = Path(__file__).parents[1] / "runner"
    members = {"__main__.py": _START.encode()}
    for source in sorted(folder.glob("*.py")):
        members[f"{PACKAGE}/{source.name}"] = source.read_bytes()
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name, _WHEN)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, content)
    return whole.getvalue()
