"""Every error of a command is a sentence and an exit code; tracebacks come with -v."""

from __future__ import annotations

import errno
import json

import pytest
from click.testing import CliRunner

from dsconvert.base.errors import InputError
from dsconvert.cli import main


class ResourceExhaustedError(Exception):
    """As TensorFlow raises where it gets no memory."""


ERRORS = [
    (TypeError("unsupported\noperand"), 70, "internal-error"),
    (RecursionError("maximum depth"), 70, "internal-error"),
    (PermissionError(errno.EACCES, "Permission denied", "/models/net.h5"), 2, "system-error"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), 2, "system-error"),
    (OSError(errno.ENOSPC, "No space left on device", "/models/net.h5"), 2, "system-error"),
    (MemoryError("Unable to allocate 4.5 GiB"), 2, "out-of-memory"),
    (ResourceExhaustedError("OOM when allocating tensor"), 2, "out-of-memory"),
]


@pytest.fixture(params=ERRORS, ids=lambda one: type(one[0]).__name__)
def failing(request, monkeypatch):
    error, *expected = request.param

    def fails(*args, **options):
        raise error

    monkeypatch.setattr("dsconvert.workflows.inspect.inspect", fails)
    return error, *expected


def test_what_is_said(failing):
    error, exit_code, code = failing
    result = CliRunner().invoke(main, ["inspect", "net.onnx"])
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert " ".join(str(error.args[-1]).split()) in result.stderr  # never cut to its first line
    assert ("dsconvert doctor" in result.stderr) == (exit_code == 70)
    loud = CliRunner().invoke(main, ["inspect", "net.onnx", "-v"])
    assert "Traceback" in loud.stderr
    assert f"code: {code}" in loud.stderr


def test_what_is_said_in_json(failing):
    _, exit_code, code = failing
    result = CliRunner().invoke(main, ["inspect", "net.onnx", "--json"])
    assert result.exit_code == exit_code
    assert json.loads(result.stderr)["code"] == code


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["inspect", "--json"], "Missing argument"),
        (["inspect", "net.onnx", "--json", "--jsn"], "No such option"),
        (["profile", "net.onnx", "--threads", "x", "--json"], "whole number"),
        (["inspekt", "net.onnx", "--json"], "No such command"),
    ],
)
def test_what_cannot_be_meant_is_said_in_json_too(words, told):
    result = CliRunner().invoke(main, words)
    assert (result.exit_code, result.stdout) == (2, "")
    record = json.loads(result.stderr)
    assert (record["schema"], record["code"]) == ("dsconvert.error/1", "usage")
    assert told in record["message"]
    assert record["hint"].endswith("--help")
    plain = CliRunner().invoke(main, [word for word in words if word != "--json"])
    assert plain.stderr.startswith("Usage: ")


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (ResourceExhaustedError("OOM when allocating tensor"), "out-of-memory"),
        (MemoryError("a header tells of 9 EiB"), "not-rebuilt"),
    ],
)
def test_a_refusal_over_tensorflows_memory_blames_no_file(cause, code, monkeypatch):
    def fails(*args, **options):
        try:
            raise RuntimeError("Exception encountered") from cause
        except RuntimeError as error:
            raise InputError("net.h5: cannot be rebuilt", code="not-rebuilt") from error

    monkeypatch.setattr("dsconvert.workflows.inspect.inspect", fails)
    result = CliRunner().invoke(main, ["inspect", "net.onnx", "--json"])
    assert result.exit_code == 2
    assert json.loads(result.stderr)["code"] == code


def test_interruptions_are_no_bugs(monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("dsconvert.workflows.inspect.inspect", interrupted)
    assert CliRunner().invoke(main, ["inspect", "net.onnx"]).exit_code == 1  # Click's "Aborted!"


def test_a_full_disk_is_not_taken_for_a_full_stdout(tmp_path, monkeypatch):
    """A write to a file has no file name in its error, and neither has one to stdout."""

    def fails(*args, **options):
        with open("/dev/full", "wb", buffering=0) as file:  # noqa: PTH123
            file.write(b"x")

    monkeypatch.setattr("dsconvert.workflows.inspect.inspect", fails)
    result = CliRunner().invoke(main, ["inspect", "net.onnx", "-v"])
    assert result.exit_code == 2
    assert "system-error" in result.stderr
