"""The chatter of native libraries is kept away, and what is ours is not lost with it."""

import os
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


PRINTING = """
import ctypes
from dsconvert.base.quiet import captured
with captured(descriptors=(1,)):
    ctypes.CDLL(None).printf(b"chatter\\n")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="the C library has another name there")
def test_what_native_code_prints_is_held_though_it_is_written_late():
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-c", PRINTING]
    done = subprocess.run(command, capture_output=True, check=True, env=env)
    assert done.stdout == b""


GREETING = """
import os, sys
from dsconvert.base.errors import require
sys.path.insert(0, sys.argv[1])
print(require("greets", "none", "to greet").ANSWER)
"""


def test_a_framework_that_is_required_does_not_greet(tmp_path):
    (tmp_path / "greets.py").write_text("import os\nos.write(2, b'hello')\nANSWER = 42\n")
    command = [sys.executable, "-c", GREETING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("42\n", "")


THREADS = """
import os, warnings
from dsconvert.base.quiet import captured
first, second = captured(), captured((2,))
filters = list(warnings.filters)
first.__enter__()
second.__enter__()
first.__exit__(None, None, None)  # as in another thread, which ends first
os.write(1, b"for stdout")
os.write(2, b"held")
second.__exit__(None, None, None)
os.write(2, b"for stderr")
assert warnings.filters == filters
"""


def test_threads_that_overlap_give_the_streams_back():
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"for stdout", b"for stderr")
