"""Each test has a home, a cache and a temporary folder of its own; conftest.py gives them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from dsconvert.base.cache_folder import cache_folder

TURNS = pytest.mark.parametrize("turn", ["one test", "another"])


@TURNS
def test_nothing_is_left_by_another_test(turn):
    for folder in (Path.home(), cache_folder(), Path(tempfile.gettempdir())):
        assert not (folder / "left").exists()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "left").write_text(turn)


def test_programs_that_a_test_starts_have_the_same_places():
    code = "import pathlib, tempfile; print(pathlib.Path.home(), tempfile.gettempdir())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(Path.home()), tempfile.gettempdir()]


def test_what_the_user_has_set_is_not_seen():
    assert not {"ADB", "DSCONVERT_DEVICES", "KERAS_BACKEND", "FORCE_COLOR"} & {*os.environ}


@TURNS
def test_the_global_generators_start_anew(turn):
    assert random.random() == random.Random(0).random()
    assert np.random.random() == np.random.RandomState(0).random()  # noqa: NPY002
