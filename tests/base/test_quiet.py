"""The chatter of native libraries is kept away, and what is ours is not lost with it."""

import subprocess
import sys
from pathlib import Path

import pytest

FULL = """
import os, sys
from dsconvert.base.quiet import captured
sys.stdout = os.fdopen(1, "w", closefd=False)  # with a buffer, whatever Python was told
try:
    with captured():
        full = os.open("/dev/full", os.O_WRONLY)
        for number in (1, 2):
            os.dup2(full, number)
        print("chatter")
        raise ValueError("why")
except ValueError as error:
    os.write(2, f"said: {error}".encode())
"""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
def test_the_streams_are_the_users_again_though_the_disk_is_full():
    done = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=False)
    assert "said: why" in done.stderr
