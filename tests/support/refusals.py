"""What a refusal is known by: its code, which stays the same when its words change."""

from __future__ import annotations

import pytest

from dsconvert.base.errors import DsconvertError


def refuses(code: str) -> pytest.RaisesExc[DsconvertError]:
    """Expect an error with this code."""
    return pytest.raises(DsconvertError, check=lambda error: error.code == code)
