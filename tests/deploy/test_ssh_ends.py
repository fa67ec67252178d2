"""What stays of a job on a board by ssh when it ends early, has no room, or runs without Python."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from board_cases import expected, measured
from refusals import refuses
from sshd import needs_sshd, replaced, wait_until

from dsconvert.base.errors import InputError
from dsconvert.deploy.devices import without_python
from dsconvert.deploy.devices.device import Job, Report
from dsconvert.deploy.devices.ssh import SshDevice, _connected, parse_name
from dsconvert.deploy.devices.ssh_transport import SshTransport
from dsconvert.deploy.devices.transport import Lost

QUICK = {"runs": 10, "warmup": 1, "min_seconds": 0.0}


def runner_of(board) -> int:
    """The process of the runner that measures on a board, once it does."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for process in Path("/proc").glob("[0-9]*"):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
            except OSError:
                continue
            if b"measure" in words and str(board.temporary).encode() in words[1]:
                cmdline = Path("/proc", parent, "cmdline").read_bytes()
                if b"measure\0" not in cmdline:  # not the child
                    return int(process.name)
        time.sleep(0.02)
    raise AssertionError("no runner was seen")


def in_background(work):
    """Start something; give how to wait for its result."""
    results = []

    def run():
        try:
            results.append(work())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)  # a test that fails waits for nothing
    thread.start()

    def result():
        thread.join()
        return results[0]

    return result


def wait_for_start(board):
    """Until the runner has written a report, with the first file's start in it."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        for report in board.temporary.glob("dsconvert.*/report.json"):
            if report.read_text().count("load_ms") == 2:
                return
        time.sleep(0.02)
    raise AssertionError("no report was seen")


LONG = {"runs": 10**9, "warmup": 1, "min_seconds": 0.0}
"""Until somebody ends it."""


@needs_sshd
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
class TestEnds:
    """However it ends, what is known is told, and nothing stays."""

    def test_runner_is_killed(self, board, files):
        device = SshDevice("ssh:board")
        result = in_background(lambda: measured(device, Job(cases=tuple(files), **LONG)))
        wait_for_start(board)
        os.kill(runner_of(board), signal.SIGKILL)
        report = result()
        assert isinstance(report, Report), report
        assert report.notes[0].startswith("the report is not complete: the runner was killed")
        for timed in report.files:
            assert timed.startup.load_ms > 0
            assert timed.samples_ms == ()
            assert "the runner was killed" in timed.failure

    def test_time_is_up(self, board, files):
        device = SshDevice("ssh:board", timeout=5)
        report = measured(device, Job(cases=tuple(files), **LONG))
        assert [timed.failure for timed in report.files] == ["it was stopped after 5 s"] * 2
        assert report.files[0].startup.load_ms > 0

    def test_ctrl_c(self, board, files, client):
        script = """
import signal
import sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell's & starts
sys.path.insert(0, sys.argv[1])
from board_cases import case_of, measured
from dsconvert.deploy.devices.device import Job
from dsconvert.deploy.devices.ssh import SshDevice
cases = tuple(case_of(Path(path)) for path in sys.argv[2:])
measured(SshDevice("ssh:board"), Job(cases=cases, runs=10**9))
"""
        command = [sys.executable, "-c", script, str(Path(__file__).parents[1] / "support")]
        process = subprocess.Popen(
            [*command, *(str(case.path) for case in files)],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "HOME": str(client)},
        )
        wait_for_start(board)
        runner = runner_of(board)
        process.send_signal(signal.SIGINT)
        try:
            _, complaints = process.communicate(timeout=60)
        finally:
            process.kill()
        assert "KeyboardInterrupt" in complaints
        assert not Path("/proc", str(runner)).exists()
        assert board.leftovers == []

    def test_command_is_ended_whenever_it_is_given_up(self, board, monkeypatch):
        """While it is started, before its number is known, and after that."""
        monkeypatch.setattr("dsconvert.deploy.devices.ssh_transport._BY_ITSELF_S", 0.05)

        async def give_up() -> None:
            async with _connected("ssh:board", parse_name("ssh:board")) as link:
                for moment in range(12):
                    command = asyncio.create_task(link.run(["sleep", f"4711.{moment}"]))
                    for _ in range(moment):  # turns of the loop: a time would depend on the machine
                        await asyncio.sleep(0.002)
                    command.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await command

        def left() -> list[bytes]:
            found = []
            for process in Path("/proc").glob("[0-9]*/cmdline"):
                with suppress(OSError):
                    words = process.read_bytes()
                    found += [words] if words.startswith(b"sleep\x004711.") else []
            return found

        asyncio.run(give_up())
        wait_until(lambda: left() == [])

    def test_connection_is_lost(self, board, files):
        """Nobody can remove anything then but the runner itself."""
        result = in_background(
            lambda: measured(SshDevice("ssh:board"), Job(cases=tuple(files), **LONG))
        )
        wait_for_start(board)
        stat = Path("/proc", str(runner_of(board)), "stat").read_text()
        server = int(stat.rpartition(")")[2].split()[1])
        os.kill(server, signal.SIGKILL)
        error = result()
        assert isinstance(error, Lost), error
        assert "the connection was lost" in error.message
        wait_until(lambda: board.leftovers == [])


@needs_sshd
class TestSpace:
    @pytest.fixture
    def small(self, tmp_path):
        """A file system of 2 MiB."""
        place = tmp_path / "small"
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            pytest.skip("needs root and its mount to have a small file system")
        yield place
        subprocess.run(["umount", str(place)], check=True)

    @pytest.fixture
    def large(self, files, tmp_path):
        """A file that does not fit; what comes after its end, nothing reads."""
        path = tmp_path / "large.tflite"
        path.write_bytes(files[0].path.read_bytes() + bytes(3 * 2**20))
        return Job(cases=(replace(files[0], path=path),), **QUICK)

    def test_known_before(self, board, small, large):
        device = SshDevice("ssh:board", folder=str(small))
        with pytest.raises(InputError, match=r"5 MiB are needed in .*, [12]\.\d MiB are free"):
            measured(device, large)
        assert list(small.iterdir()) == []

    def test_found_on_the_way(self, board, small, large, monkeypatch):
        """As when somebody else fills the disk meanwhile."""
        real, said = SshTransport.free_bytes, iter([None, None])

        async def free_bytes(self, folder):
            return next(said) if said.__length_hint__() else await real(self, folder)

        monkeypatch.setattr(SshTransport, "free_bytes", free_bytes)
        device = SshDevice("ssh:board", folder=str(small))
        with pytest.raises(InputError, match=r"5 MiB are needed in .*, 0\.0 MiB are free"):
            measured(device, large)
        assert list(small.iterdir()) == []

    def test_found_by_the_runner(self, board, small, files, monkeypatch):
        """Its outputs do not fit any more: that file has failed."""
        real = SshTransport.put

        async def put(self, content, path):
            await real(self, content, path)
            if path.endswith("job.json"):
                free = os.statvfs(small).f_bavail * os.statvfs(small).f_frsize
                (Path(path).parent / "filler").write_bytes(bytes(free - 8192))

        monkeypatch.setattr(SshTransport, "put", put)
        device = SshDevice("ssh:board", folder=str(small))
        result = in_background(lambda: measured(device, Job(cases=tuple(files), **QUICK)))()
        assert "no space is left" in str(result)
        assert list(small.iterdir()) == []


@needs_sshd
class TestBinary:
    """Boards without Python: a program of ours runs the files, here one that only pretends to."""

    @pytest.fixture
    def binary(self, tmp_path, monkeypatch):
        """A shell script; what processor it is for, we say."""
        path = tmp_path / "my benchmark_model"
        fake = Path(__file__).parents[1] / "support" / "fake_benchmark_model.py"
        path.write_text(
            f"""#!/bin/sh
export FAKE_TROUBLE='[]' FAKE_OUTPUT=new FAKE_PHONE={tmp_path}
[ -e {tmp_path}/slow ] && sleep 1000
exec {sys.executable} {fake} "$@"
"""
        )
        monkeypatch.setattr(without_python, "architecture", lambda path: os.uname().machine)
        return path

    def test_no_python_is_needed(self, board, files, binary, tmp_path):
        larger = tmp_path / "larger.tflite"
        larger.write_bytes(files[0].path.read_bytes() + bytes(1000))
        cases = (files[0], replace(files[0], path=larger))
        none = replaced(board.programs / "python3", "#!/bin/sh\nexit 127\n")
        with none:
            device = SshDevice("ssh:board", benchmark_binary=binary)
            info = device.describe()
            report = measured(device, Job(cases=cases, per_op=True, **QUICK))
        assert list(info.runtimes) == ["benchmark_model"]
        assert (info.architecture, info.cores) == (os.uname().machine, os.cpu_count())
        assert info.cpu == SshDevice("ssh:board").describe().cpu
        assert info.system == SshDevice("ssh:board").describe().system
        assert report.info == info
        assert report.before.load is not None
        for case, timed in zip(cases, report.files, strict=True):
            assert timed.failure == ""
            assert len(timed.samples_ms) == 10
            np.testing.assert_array_equal(timed.outputs[0], expected(files[0])[0])
            size = case.path.stat().st_size / 1e3  # its times are the sizes of the files
            assert timed.samples_ms[0] == pytest.approx(size, abs=0.05)
            assert [one.type for one in timed.operators] == ["CONV_2D", "SOFTMAX"]
        order = (tmp_path / "order").read_text().split()[2:22]  # after a start of each
        assert [sorted(order[i : i + 2]) for i in range(0, 20, 2)] == [["0", "1"]] * 10

    def test_refusals(self, board, files, binary, tmp_path, monkeypatch):
        device = SshDevice("ssh:board", benchmark_binary=binary)
        with pytest.raises(InputError, match=r"benchmark_model runs \.tflite files only"):
            measured(device, Job(cases=(files[1],), **QUICK))
        with refuses("program-not-found"):
            SshDevice("ssh:board", benchmark_binary=tmp_path / "missing").describe()
        monkeypatch.setattr(without_python, "architecture", lambda path: "riscv64")
        with pytest.raises(InputError, match=f"is for riscv64; ssh:board is {os.uname().machine}"):
            measured(device, Job(cases=(files[0],), **QUICK))

    def test_it_does_not_start(self, board, files, binary):
        binary.write_bytes(b"\x7fELF" + bytes(60))
        device = SshDevice("ssh:board", benchmark_binary=binary)
        with refuses("program-does-not-start") as refused:
            measured(device, Job(cases=(files[0],), **QUICK))
        assert refused.value.hint == "It is built for another architecture."

    def test_time_is_up(self, board, files, binary, tmp_path):
        """The program is ended there, and taken away."""
        (tmp_path / "slow").touch()
        device = SshDevice("ssh:board", benchmark_binary=binary, timeout=5)
        with pytest.raises(InputError, match="it was stopped after 5 s"):
            measured(device, Job(cases=(files[0],), **QUICK))
        assert board.processes == []
