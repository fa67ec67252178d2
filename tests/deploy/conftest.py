"""A board by ssh, which the tests of its two files share."""

from __future__ import annotations

import shutil

import pytest
from board_cases import case_of, save_block
from sshd import started, wait_until


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
