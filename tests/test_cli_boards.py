"""plan and profile on a board, as a user meets them."""

import json

import numpy as np
import onnx
import pytest
from board_cases import save_block
from click.testing import CliRunner
from dsconvert.converter.cli import main
from onnx_twin import onnx_twin
from sshd import SSHD, started

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
