"""Boards by ssh, through a real OpenSSH server on the loopback. No test asserts a time."""

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from board_cases import case_of, expected, measured
from onnx import TensorProto, helper
from refusals import refuses
from sshd import needs_sshd, replaced, started

from dsconvert.base.errors import InputError
from dsconvert.deploy.devices.device import Job, Report
from dsconvert.deploy.devices.registry import open_device
from dsconvert.deploy.devices.side_by_side import measure_on
from dsconvert.deploy.devices.ssh import SshDevice, parse_name
from dsconvert.deploy.runtimes.registry import RUNTIMES

QUICK = {"runs": 10, "warmup": 1, "min_seconds": 0.0}


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
