"""An OpenSSH server on the loopback that any user can start: a board for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
_START_S = 20

needs_sshd = pytest.mark.skipif(SSHD is None, reason="needs sshd: apt-get install openssh-server")


class Board:
    """A server with a home and a temporary folder of its own.

    Attributes:
        name: What `--device` calls it.
        home: Of whoever logs in there.
        temporary: The folder for temporary files there.
        programs: First in the PATH there; its python3 is the one that runs the tests.
    """

    def __init__(self, folder: Path, name: str, port: int) -> None:
        self.folder, self.port, self.alias = folder, port, name
        self.name = f"ssh:{name}"
        self.home, self.temporary, self.programs = (
            folder / part for part in ("home", "temporary", "programs")
        )
        for part in (self.home, self.temporary, self.programs):
            part.mkdir(parents=True)
        self.put_program("python3", f'exec {sys.executable} "$@"')

    def put_program(self, name: str, script: str) -> None:
        """A shell script that is found first there."""
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    @property
    def logins(self) -> int:
        """How often somebody has come in."""
        return (self.folder / "log").read_text().count("Accepted publickey")

    @property
    def processes(self) -> list[str]:
        """The commands there that work in its folder for temporary files."""
        found = []
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):  # it has ended
                words = process.read_bytes().decode(errors="replace").split("\0")
                found += [" ".join(words)] if f"{self.temporary}/dsconvert." in str(words) else []
        return found

    @property
    def leftovers(self) -> list[str]:
        """What of ours lies there."""
        return sorted(path.name for path in self.temporary.iterdir())


def _key(path: Path) -> str:
    """Make a pair of keys; give the public one."""
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path.with_suffix(".pub").read_text().strip()


@contextmanager
def started(folder: Path, client: Path, name: str, temporary: Path | None = None):
    """Run a server; ``~/.ssh`` of the home ``client`` knows how to reach it.

    Args:
        folder: Of the server.
        client: The home of whoever connects.
        name: What ``~/.ssh/config`` calls it.
        temporary: Its folder for temporary files, if not one of its own.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    board = Board(folder, name, port)
    if temporary is not None:
        board.temporary = temporary
    if os.geteuid() == 0:  # root's server wants this folder, others' do not
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    ssh = client / ".ssh"
    ssh.mkdir(mode=0o700, exist_ok=True)
    user_key = ssh / "id_ed25519"
    if not user_key.exists():
        _key(user_key)
    host_key = _key(folder / "host_key")
    (folder / "authorized_keys").write_text(user_key.with_suffix(".pub").read_text())
    (folder / "sshd_config").write_text(
        f"""
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile {folder}/pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
Subsystem sftp internal-sftp
SetEnv HOME={board.home} TMPDIR={board.temporary} PATH={board.programs}:{os.environ["PATH"]}
"""
    )
    with (ssh / "config").open("a") as config:
        config.write(f"Host {name}\n  HostName 127.0.0.1\n  Port {port}\n")
        config.write(f"  IdentityFile {user_key}\n")
    with (ssh / "known_hosts").open("a") as known:
        known.write(f"[127.0.0.1]:{port} {host_key}\n")
    assert SSHD is not None
    log = (folder / "log").open("w")
    command = [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log)
    try:
        end = time.monotonic() + _START_S
        while True:
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"sshd does not start: {(folder / 'log').read_text()}")
            time.sleep(0.02)
        yield board
    finally:
        server.terminate()
        server.wait()
        log.close()


@contextmanager
def replaced(path: Path, content: str):
    """A file with another content for a while."""
    before = path.read_text()
    path.write_text(content)
    try:
        yield
    finally:
        path.write_text(before)


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
