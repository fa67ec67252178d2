"""What several tests of data, metrics and old files share."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """Draw the same numbers in every test."""
    return np.random.default_rng(0)


@pytest.fixture
def write_h5(tmp_path: Path) -> Callable[..., Path]:
    """Return what writes a file as older Keras did."""
    from keras_configs import write_old_h5

    return partial(write_old_h5, tmp_path / "old.h5")
