"""plan and profile on a board, as a user meets them."""

import json

import numpy as np
import onnx
import pytest
from board_cases import save_block
from click.testing import CliRunner
from onnx_twin import onnx_twin
from sshd import SSHD, started

from dsconvert.cli import main

pytestmark = pytest.mark.skipif(SSHD is None, reason="needs sshd: apt-get install openssh-server")


@pytest.fixture
def board(tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("DSCONVERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with started(tmp_path / "server", home, "board") as server:
        yield server
        assert server.leftovers == []


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def test_profile(board, tmp_path):
    """Files of two runtimes; one of them is the same file under another name."""
    first = save_block(tmp_path / "it's one", "litert")
    other = save_block(tmp_path / "other", "ort")
    result = call("profile", first, other, "--device", "ssh:board", "--runs", 10, "--json")
    assert result.exit_code == 0, result.output
    one, two = json.loads(result.stdout)
    assert (one["failure"], two["failure"]) == ("", "")
    assert one["device"]["name"] == "ssh:board"
    assert one["latency"]["p50_ms"] > 0
    assert two["comparison"]["baseline"] == str(first)
    shown = call("profile", first, "--device", "ssh:board", "--runs", 10)
    assert "ssh:board: " in shown.stdout


def test_several_devices_side_by_side(board, tmp_path):
    """Each compares its own files; one that fails says why and leaves the others alone."""
    home = tmp_path / "home"
    first, other = (save_block(tmp_path / name, "litert") for name in ("first", "other"))
    with started(tmp_path / "second", home, "second") as second:
        devices = ("--device", "ssh:board", "--device", "ssh:second")
        gone = ("--device", "ssh:[127.0.0.1]:1")
        result = call("profile", first, other, *devices, *gone, "--runs", 10, "--json")
        shown = call("profile", first, *devices, *gone, "--runs", 10)
        assert second.leftovers == []
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    paths = [str(first), str(other)]
    assert [one["path"] for one in found] == 3 * paths
    assert [one["device"] and one["device"]["name"] for one in found] == [
        *("ssh:board", "ssh:board", "ssh:second", "ssh:second"),
        *(None, None),
    ]
    assert [bool(one["comparison"]) for one in found] == [
        *(False, True),
        *(False, True),
        *2 * [False],
    ]
    assert all(one["latency"]["p50_ms"] > 0 for one in found[:4])
    assert all(one["failure"].startswith("ssh:[127.0.0.1]:1: ") for one in found[4:])
    assert shown.exit_code == 0, shown.output
    for part in ("ssh:board: ", "ssh:second: ", "failed: ssh:[127.0.0.1]:1: "):
        assert part in shown.stdout


@pytest.mark.parametrize(
    ("devices", "told"),
    [
        (("host", "ssh:board"), "host does not go with other devices"),
        (("ssh:board", "mcu"), "mcu does not go with other devices"),
        (("ssh:board", "ssh:board"), "named twice"),
    ],
)
def test_devices_that_do_not_go_together(devices, told, tmp_path):
    path = save_block(tmp_path / "one", "litert")
    result = call("profile", path, *(word for name in devices for word in ("--device", name)))
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


def test_all_devices_fail(board, tmp_path):
    path = save_block(tmp_path / "one", "litert")
    gone = ("--device", "ssh:[127.0.0.1]:1", "--device", "ssh:[127.0.0.1]:2")
    result = call("profile", path, *gone)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "127.0.0.1" in result.stderr


def test_no_traceback(board, tmp_path):
    path = save_block(tmp_path / "one", "litert")
    (tmp_path / "home/.ssh/known_hosts").write_text("")
    for words in (("profile", path), ("profile", path, path)):
        result = call(*words, "--device", "ssh:board")
        assert (result.exit_code, result.stdout) == (2, "")
        assert "ssh-keyscan" in result.stderr
        assert "Traceback" not in result.stderr


def test_plan(board, tmp_path, digits, digits_cnn):
    """Blocks and the whole network are timed there, in few visits."""
    onnx.save(onnx_twin(digits_cnn), tmp_path / "model.onnx")
    np.savez(tmp_path / "data.npz", x=digits[0][:40])
    command = (
        *("plan", tmp_path / "model.onnx", "-o", tmp_path / "plan.json", "--overwrite"),
        *("--calibration", tmp_path / "data.npz", "--device", "ssh:board", "--max-pairs", 1),
    )
    result = call(*command, "--target-macs", "0.9x", "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    plan = record["plan"]
    assert plan["unit"] == "ms"
    assert "(ssh:board)" in plan["target"]
    assert plan["before"]["cost"] > 0
    visits = board.logins
    assert visits <= 4  # what it is, the network, its blocks, and both networks in turns
    again = call(*command, "--target-macs", "0.9x")
    assert again.exit_code == 0, again.output
    assert board.logins - visits <= visits - 1  # the blocks are known
