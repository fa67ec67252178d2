"""The command in a child process: its exit code, its signals, and a crash in words."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes cannot be forked here")

RUN = """
import sys
from dsconvert.cli.supervisor import supervised
def command():
    {body}
sys.exit(supervised(command, ["export", "model.keras"]))
"""


def run(body, **how):
    return subprocess.run(
        [sys.executable, "-c", RUN.format(body=body)], capture_output=True, text=True, **how
    )


@pytest.mark.parametrize("code", [0, 1, 2, 70])
def test_the_exit_code_and_the_output_are_the_commands(code):
    done = run(f"print('said'); sys.exit({code})")
    assert (done.returncode, done.stdout, done.stderr) == (code, "said\n", "")


@pytest.mark.parametrize("name", ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE"])
def test_a_crash_is_a_sentence_and_exit_code_1(name):
    done = run(f"import os, signal; os.kill(os.getpid(), signal.{name})")
    assert done.returncode == 1
    assert name in done.stderr
    assert "--quantize" in done.stderr  # what else to do


@pytest.mark.parametrize("code", [0, 1, 3])
def test_an_end_that_a_library_chose_is_a_sentence_and_exit_code_1(code):
    """Native code that calls exit() leaves no word, and an exit code that says nothing."""
    done = run(f"import os; os._exit({code})")
    assert done.returncode == 1
    assert f"exit code {code} before the work was done" in done.stderr


def test_a_crash_without_a_stderr_is_still_exit_code_1():
    body = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    command = [sys.executable, "-c", RUN.format(body=body)]
    assert subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *command], check=False).returncode == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_the_command_once(number, tmp_path):
    body = f"""
    import signal, time
    def note(number, frame):
        with open({str(tmp_path / "got")!r}, "a") as file: file.write(f"{{number}} ")
    signal.signal({int(number)}, note)
    open({str(tmp_path / "ready")!r}, "w").close()
    end = time.monotonic() + 20
    while time.monotonic() < end and not __import__("os").path.exists({str(tmp_path / "got")!r}):
        time.sleep(0.05)
    time.sleep(0.3)
    sys.exit(3)"""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(body=body)],
        # What a shell starts in the background ignores SIGINT, and so do its children.
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),
    )
    while not (tmp_path / "ready").exists():
        time.sleep(0.05)
    process.send_signal(number)
    assert process.wait(timeout=30) == 3
    assert (tmp_path / "got").read_text() == f"{int(number)} "


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_what_is_ended_puts_its_files_away(number, tmp_path):
    body = f"""
    import tempfile, time
    try:
        with tempfile.TemporaryDirectory(dir={str(tmp_path)!r}) as folder:
            open(folder + "/ready", "w").close()
            time.sleep(60)
    except Exception:
        print("taken for an error")"""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN.format(body=body)],
        stdout=subprocess.PIPE,
        # What nohup starts ignores SIGHUP, and so do its children.
        preexec_fn=partial(signal.signal, number, signal.SIG_DFL),
    )
    while not list(tmp_path.glob("*/ready")):
        time.sleep(0.05)
    process.send_signal(number)
    assert process.communicate(timeout=30) == (b"", None)
    assert process.returncode == 128 + number
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")
def test_the_command_ends_with_its_parent(tmp_path):
    body = f"""
    import os, time
    open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
    time.sleep(60)"""
    process = subprocess.Popen([sys.executable, "-c", RUN.format(body=body)])
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        time.sleep(0.05)
    child = int((tmp_path / "pid").read_text())
    process.kill()
    process.wait()
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split(")")[1].split()[0] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the command goes on without its parent")
