"""No command reaches the network: every test of one runs behind this guard, in `conftest.py`."""

from __future__ import annotations

import socket

import numpy as np
import pytest
from click.testing import CliRunner
from conv_stacks import conv_stack
from network_guard import NetworkUsed, talked

from dsconvert.cli import main

ELSEWHERE = "192.0.2.1"  # nobody's
QUICK = "--runs 3 --min-seconds 0"
LINES = (
    "inspect net.onnx",
    "plan net.onnx -o plan.json --target-macs 0.8x --calibration d.npz",
    "rewrite net.onnx -o out.onnx",
    "export net.onnx -o int8.onnx --quantize int8 --calibration d.npz",
    f"profile net.onnx {QUICK}",
    "verify net.onnx net.onnx --data d.npz",
    "devices",
    "doctor",
)


def test_the_guard_refuses_and_takes_down():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one, pytest.raises(NetworkUsed):
        one.connect((ELSEWHERE, 9))
    with pytest.raises(NetworkUsed):
        socket.getaddrinfo("example.org", 80)
    assert len(talked) == 2
    talked.clear()


def test_this_machine_may_be_spoken_to():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
    assert talked == []


def test_no_command_reaches_the_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    conv_stack(tmp_path / "net.onnx", [3, 3], channels=16)
    np.savez("d.npz", x=np.random.default_rng(0).normal(size=(12, 16, 16, 16)))
    for line in LINES:
        result = CliRunner().invoke(main, line.split())
        assert result.exit_code in (0, 1), (line, result.stderr)
        assert talked == [], line
