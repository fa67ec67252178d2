"""Boards by ssh, through a real OpenSSH server on the loopback. No test asserts a time."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from board_cases import case_of, expected, measured, save_block
from onnx import TensorProto, helper
from refusals import refuses
from sshd import SSHD, started

from dsconvert.base.errors import InputError
from dsconvert.deploy.devices import without_python
from dsconvert.deploy.devices.device import Job, Report
from dsconvert.deploy.devices.registry import open_device
from dsconvert.deploy.devices.side_by_side import measure_on
from dsconvert.deploy.devices.ssh import SshDevice, _connected, parse_name
from dsconvert.deploy.devices.ssh_transport import SshTransport
from dsconvert.deploy.devices.transport import Lost
from dsconvert.deploy.runtimes.registry import RUNTIMES

needs_sshd = pytest.mark.skipif(SSHD is None, reason="needs sshd: apt-get install openssh-server")
QUICK = {"runs": 10, "warmup": 1, "min_seconds": 0.0}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A .tflite and an .onnx file, whose names would come apart in a careless shell."""
    folder = tmp_path_factory.mktemp("files")
    return [
        case_of(save_block(folder / f'it\'s a "{runtime}" $HOME;`x`', runtime))
        for runtime in ("litert", "ort")
    ]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    """The home of whoever connects."""
    return tmp_path_factory.mktemp("client")


@pytest.fixture(scope="module")
def server(client, tmp_path_factory):
    with started(tmp_path_factory.mktemp("server"), client, "board") as board:
        yield board


@pytest.fixture
def board(server, client, monkeypatch):
    """A board that ``ssh:board`` leads to; nothing of ours may be left there."""
    monkeypatch.setenv("HOME", str(client))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    yield server
    left = server.leftovers
    for name in left:  # or the tests after this one find it
        shutil.rmtree(server.temporary / name, ignore_errors=True)
    assert left == []
    wait_until(lambda: server.processes == [])


@contextmanager
def replaced(path: Path, content: str):
    """A file with another content for a while."""
    before = path.read_text()
    path.write_text(content)
    try:
        yield
    finally:
        path.write_text(before)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "address"),
        [
            ("ssh:board", ("board", None, None)),
            ("ssh:pi@192.168.1.7", ("192.168.1.7", "pi", None)),
            ("ssh:pi@board.local:2222", ("board.local", "pi", 2222)),
            ("ssh:[fe80::1%eth0]:22", ("fe80::1%eth0", None, 22)),
        ],
    )
    def test_forms(self, name, address):
        assert parse_name(name) == address
        assert open_device(name).name == name

    @pytest.mark.parametrize(
        "name",
        ["ssh:a b", "ssh:@board", "ssh:board:", "ssh:board:0", "ssh:board:70000", "ssh:a@b@c"],
    )
    def test_refusals(self, name):
        with pytest.raises(InputError, match=r"is no board; allowed: ssh:\[USER@\]HOST\[:PORT\]"):
            open_device(name)


@needs_sshd
class TestMeasuring:
    def test_what_the_board_is(self, board):
        info = SshDevice("ssh:board").describe()
        assert (info.name, info.emulated) == ("ssh:board", False)
        assert set(info.runtimes) == set(RUNTIMES)
        assert info.cores == os.cpu_count()
        assert info.architecture == os.uname().machine

    def test_files_of_both_runtimes(self, board, files):
        steps = []

        @contextmanager
        def progress(label, total):
            yield lambda: steps.append((label, total))

        report = measured(
            SshDevice("ssh:board"),
            Job(cases=tuple(files), per_op=True, cpus=(0,), **QUICK),
            progress,
        )
        assert steps == [("Measuring on ssh:board", 4)] * 4
        assert report.notes == ()
        assert report.before.load is not None
        assert report.after.load is not None
        for case, timed, name in zip(files, report.files, ("LiteRT", "ONNX Runtime"), strict=True):
            assert (timed.failure, timed.runtime) == ("", name)
            assert timed.runtime_version == report.info.runtimes[case.runtime]
            assert len(timed.samples_ms) == 10
            assert min(timed.samples_ms) > 0
            assert timed.startup.load_ms > 0
            assert timed.startup.peak_memory_mib > timed.startup.memory_increase_mib > 0
            assert sum(one.share for one in timed.operators) == pytest.approx(1)
            for ours, theirs in zip(expected(case), timed.outputs, strict=True):
                np.testing.assert_array_equal(ours, theirs)  # it is the same machine

    def test_external_data_come_along(self, board, tmp_path):
        weight = np.random.default_rng(0).normal(size=(16, 16)).astype(np.float32)
        values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 16]) for n in "xy"]
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "graph",
            values[:1],
            values[1:],
            [onnx.numpy_helper.from_array(weight, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        path = tmp_path / "model.onnx"
        onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
        case = case_of(path)
        (timed,) = measured(SshDevice("ssh:board"), Job(cases=(case,), **QUICK)).files
        np.testing.assert_array_equal(timed.outputs[0], expected(case)[0])

    def test_folder_with_spaces_and_quotes(self, board, files, tmp_path):
        folder = tmp_path / 'it\'s a "folder" $HOME; `x` ü'
        folder.mkdir()
        seen = []
        device = SshDevice("ssh:board", folder=str(folder))
        report = measured(device, Job(cases=tuple(files), **QUICK), watching(folder, seen))
        assert [one.failure for one in report.files] == ["", ""]
        assert seen[0].startswith("dsconvert.")
        assert list(folder.iterdir()) == []

    def test_talkative_login(self, board, files):
        (board.home / ".bashrc").write_text("echo Welcome to the board!\n")
        try:
            assert measured(SshDevice("ssh:board"), Job(cases=tuple(files), **QUICK)).notes == ()
        finally:
            (board.home / ".bashrc").unlink()

    def test_file_that_fails_does_not_stop_the_others(self, board, files, tmp_path):
        broken = tmp_path / "broken.tflite"
        broken.write_bytes(b"nothing")
        cases = (replace(files[0], path=broken), *files)
        report = measured(SshDevice("ssh:board"), Job(cases=cases, **QUICK))
        assert [bool(one.samples_ms) for one in report.files] == [False, True, True]
        assert report.files[0].failure
        assert "/dsconvert." not in report.files[0].failure

    def test_several_jobs_in_one_visit(self, board, files):
        logins = board.logins
        jobs = [Job(cases=(files[0], files[0]), **QUICK), Job(cases=(files[1],), **QUICK)]
        reports = SshDevice("ssh:board").measure_all(jobs, startup=False)
        assert board.logins == logins + 1
        assert [len(report.files) for report in reports] == [2, 1]
        for report in reports:
            assert all(len(timed.samples_ms) == 10 for timed in report.files)
            assert all(isinstance(timed.startup, str) for timed in report.files)

    def test_two_boards_at_once(self, board, client, files, tmp_path):
        """They meet: each has a folder while the other has one."""
        job = Job(cases=tuple(files), runs=10, warmup=1, min_seconds=0.5)
        with started(tmp_path / "other", client, "other") as other:
            devices = [SshDevice("ssh:board"), SshDevice("ssh:other"), SshDevice("ssh:board")]
            seen = set()
            done = threading.Event()

            def look():
                while not done.wait(0.02):
                    seen.add((len(board.leftovers), len(other.leftovers)))

            looking = threading.Thread(target=look)
            looking.start()
            try:
                reports = measure_on([*devices, SshDevice("ssh:[127.0.0.1]:1")], job)
            finally:
                done.set()
                looking.join()
            assert other.leftovers == []
        assert (2, 1) in seen
        *reports, failed = reports
        assert isinstance(failed, InputError)
        assert [report.info.name for report in reports] == [one.name for one in devices]
        for report in reports:
            assert isinstance(report, Report)
            for case, timed in zip(files, report.files, strict=True):
                np.testing.assert_array_equal(timed.outputs[0], expected(case)[0])

    def test_inside_a_running_loop(self, board):
        async def notebook():
            return SshDevice("ssh:board").describe()

        assert asyncio.run(notebook()).name == "ssh:board"


def watching(folder: Path, seen: list):
    """A progress that notes what lies in a folder at the first step."""

    @contextmanager
    def progress(label, total):
        yield lambda: seen.extend(path.name for path in folder.iterdir()) if not seen else None

    return progress


@needs_sshd
class TestRefusals:
    def test_unknown_host_key(self, board, client):
        known = replaced(client / ".ssh" / "known_hosts", "# nothing\n")
        with known, pytest.raises(InputError, match="is not in known_hosts") as refused:
            SshDevice("ssh:board").describe()
        assert f"ssh-keyscan -p {board.port} 127.0.0.1 >> ~/.ssh/known_hosts" in refused.value.hint

    def test_host_keys_are_checked_whatever_the_configuration(self, board, client):
        """OpenSSH has no known hosts then; asyncssh would not check any."""
        config = client / ".ssh" / "config"
        content = config.read_text().replace(
            "HostName", "UserKnownHostsFile none\n  StrictHostKeyChecking no\n  HostName"
        )
        known = replaced(client / ".ssh" / "known_hosts", "# nothing\n")
        refused = pytest.raises(InputError, match="is not in known_hosts")
        with replaced(config, content), known, refused:
            SshDevice("ssh:board").describe()

    @pytest.mark.parametrize("kind", ["ed25519", "ecdsa"])
    def test_changed_host_key(self, board, client, tmp_path, kind):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(tmp_path / "key")], check=True
        )
        other = (tmp_path / "key.pub").read_text()
        known = replaced(client / ".ssh" / "known_hosts", f"[127.0.0.1]:{board.port} {other}\n")
        with known, pytest.raises(InputError, match="is not the one in known_hosts") as refused:
            SshDevice("ssh:board").describe()
        assert f"ssh-keygen -R '[127.0.0.1]:{board.port}'" in refused.value.hint

    def test_key_that_is_not_accepted(self, board, client, tmp_path):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True
        )
        config = client / ".ssh" / "config"
        key = str(client / ".ssh" / "id_ed25519")
        other = replaced(config, config.read_text().replace(key, str(tmp_path / "key")))
        with other, refuses("key-refused") as refused:
            SshDevice("ssh:board").describe()
        assert f"ssh-copy-id -p {board.port} 127.0.0.1" in refused.value.hint

    def test_nobody_listens(self, board):
        with pytest.raises(
            InputError, match=r"cannot connect to 127\.0\.0\.1, port 1: "
        ) as refused:
            SshDevice("ssh:pi@127.0.0.1:1").describe()
        assert refused.value.hint.endswith("ssh -p 1 pi@127.0.0.1")

    def test_unknown_host(self, board):
        with pytest.raises(InputError, match=r"cannot connect to nobody\.invalid, port 22"):
            SshDevice("ssh:nobody.invalid").describe()

    def test_board_without_runtimes(self, board, files):
        bare = board.programs / "bare"
        bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
        bare.chmod(0o755)
        device = SshDevice("ssh:board", python=str(bare))
        assert device.describe().runtimes == {}
        with refuses("runtime-not-on-device") as refused:
            measured(device, Job(cases=tuple(files), **QUICK))
        hint = refused.value.hint
        assert "~/dsconvert-venv/bin/pip install numpy ai-edge-litert onnxruntime" in hint
        assert "--benchmark-binary" in hint

    def test_environment_of_ours_comes_first(self, board):
        """What the hint says to make is found without being named."""
        place = board.home / "dsconvert-venv" / "bin"
        place.mkdir(parents=True)
        (place / "python3").symlink_to(sys.executable)
        broken = replaced(board.programs / "python3", "#!/bin/sh\nexit 1\n")
        try:
            with broken:
                assert SshDevice("ssh:board").describe().name == "ssh:board"
        finally:
            shutil.rmtree(place.parent)

    def test_python_that_is_too_old(self, board):
        script = "#!/bin/sh\necho 'Python 3.9 or newer is needed, this is 3.7.3' >&2\nexit 1\n"
        old = replaced(board.programs / "python3", script)
        with old, pytest.raises(InputError, match=r"this is 3\.7\.3") as refused:
            SshDevice("ssh:board").describe()
        assert "--benchmark-binary" in refused.value.words.hint

    def test_python_that_is_not_there(self, board):
        with pytest.raises(InputError, match="it has no /no/python"):
            SshDevice("ssh:board", python="/no/python").describe()

    def test_python_that_does_not_work(self, board):
        board.put_program("broken", "echo 'Illegal instruction' >&2; exit 132")
        python = str(board.programs / "broken")
        with refuses("python-not-on-device"):
            SshDevice("ssh:board", python=python).describe()

    def test_home_is_that_of_the_board(self, board):
        place = board.home / "it's here"
        place.mkdir()
        (place / "python").symlink_to(sys.executable)
        device = SshDevice("ssh:board", python="~/it's here/python", folder="~/it's here")
        assert device.describe().name == "ssh:board"
        assert [path.name for path in place.iterdir()] == ["python"]

    def test_folder_that_is_not_there(self, board):
        with refuses("device-not-writable") as refused:
            SshDevice("ssh:board", folder="/no/such folder").describe()
        assert "TMPDIR" in refused.value.hint

    def test_core_that_is_not_there(self, board, files):
        with pytest.raises(InputError, match=r"there is no core 4711; there are 0"):
            measured(SshDevice("ssh:board"), Job(cases=tuple(files), cpus=(0, 4711), **QUICK))


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


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


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
