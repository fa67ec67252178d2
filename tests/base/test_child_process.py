"""Python in a process of its own: results, crashes, limits, and what it does not import."""

import sys

import pytest

from dsconvert.base.child_process import Finished, run_python


def test_output_and_success():
    done = run_python(["-c", "print('said')"])

    assert (done.stdout, done.failure) == ("said\n", "")


def test_a_crash_is_a_result():
    done = run_python(["-c", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"])

    assert done.returncode == -11
    assert "SIGSEGV" in done.failure


def test_an_exception_is_named():
    assert "ValueError: why" in run_python(["-c", "raise ValueError('why')"]).failure


def test_it_does_not_go_on_for_ever():
    assert run_python(["-c", "import time; time.sleep(60)"], timeout=0.5).timed_out


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of CPU time there")
def test_only_computing_counts():
    """A machine that is busy with other work does not make a sound file a damaged one."""
    assert run_python(["-c", "while True: pass"], computing=1).timed_out
    assert run_python(["-c", "import time; time.sleep(1.5)"], computing=1).failure == ""


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of memory there")
def test_memory_is_bounded():
    assert "MemoryError" in run_python(["-c", "bytearray(4 << 30)"], memory=2 << 30).failure


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of memory there")
def test_a_lower_limit_of_the_shell_is_kept():
    resource = "import resource as r; r.setrlimit(r.RLIMIT_AS, (3 << 30, 3 << 30)); "
    resource += "r.setrlimit(r.RLIMIT_CPU, (60, 60)); "
    run = "from dsconvert.base.child_process import run_python as run; "
    said = run_python(
        ["-c", f"{resource}{run}print(repr(run(['-c', ''], memory=6 << 30, computing=90).failure))"]
    )
    assert said.stdout == "''\n", said.stderr


def test_modules_in_the_current_folder_are_not_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "colorsys.py").write_text("raise SystemExit('planted')")

    assert run_python(["-c", "import colorsys"]).failure == ""
    assert run_python(["-m", "colorsys"]).failure == ""


def test_an_unknown_signal_has_a_number():
    assert "signal 99" in Finished(-99, "", "").failure
