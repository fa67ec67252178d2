"""Boards that are reached by ssh: Raspberry Pi and the like."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dsconvert.base.errors import InputError, require

from .board import BoardDevice
from .ssh_errors import Place, explained, known_keys
from .ssh_transport import SshTransport

_NAME = re.compile(
    r"ssh:(?:(?P<user>[^@\s]+)@)?(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^@:\s/\[\]]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_KNOWN_HOSTS = ("~/.ssh/known_hosts", "/etc/ssh/ssh_known_hosts")
_CONNECT_S = 15
_ALIVE_S = 15
_ALIVE_COUNT = 4


class Address(NamedTuple):
    """Where a board is; what is None, the ssh configuration or its defaults say."""

    host: str
    user: str | None
    port: int | None


class SshDevice(BoardDevice):
    """A board reached by ssh, as OpenSSH would: ~/.ssh/config, known_hosts, keys and the agent.

    Passwords are never asked for, and unknown host keys never accepted.

    Args:
        name: "ssh:[USER@]HOST[:PORT]"; HOST may be a name from ~/.ssh/config.
        options: As `BoardDevice`.

    Raises:
        InputError: If the name is not of this form.
        MissingExtra: If asyncssh is not installed.
    """

    def __init__(
        self,
        name: str,
        *,
        python: str | None = None,
        folder: str | None = None,
        timeout: float = 3600.0,
        benchmark_binary: Path | None = None,
    ) -> None:
        address = parse_name(name)
        require("asyncssh", "ssh", "to reach boards by ssh")
        super().__init__(
            name,
            partial(_connected, name, address),
            python=python,
            folder=folder,
            timeout=timeout,
            benchmark_binary=benchmark_binary,
        )


def parse_name(name: str) -> Address:
    """Return the address in "ssh:[USER@]HOST[:PORT]"; an IPv6 address is in brackets.

    Raises:
        InputError: If it is not of this form.
    """
    match = _NAME.fullmatch(name)
    port = int(match["port"]) if match and match["port"] else None
    if match is None or port == 0 or (port or 0) > 65535:
        raise InputError(
            f"{name!r} is no board; allowed: ssh:[USER@]HOST[:PORT].",
            "For example ssh:pi@board.",
            code="unknown-device",
        )
    return Address(match["six"] or match["host"], match["user"], port)


@asynccontextmanager
async def _connected(name: str, address: Address) -> AsyncIterator[SshTransport]:
    """Give an open connection, by keys only, to the host that known_hosts knows.

    Raises:
        InputError: If there is none to be had, with what to do.
    """
    import asyncssh

    wanted: dict[str, Any] = {
        "host": address.host,
        "port": () if address.port is None else address.port,
        "username": () if address.user is None else address.user,
        "config": (),  # ~/.ssh/config; None, which is not the same, would be none
        "preferred_auth": ["publickey"],
        "password": None,
        "connect_timeout": _CONNECT_S,
        "login_timeout": _CONNECT_S,
        "keepalive_interval": _ALIVE_S,
        "keepalive_count_max": _ALIVE_COUNT,
    }
    place = Place(name, address.host, address.port or 22, b"", "")
    with explained(place):
        found = await asyncssh.SSHClientConnectionOptions.construct(**wanted)
    # Read here: "UserKnownHostsFile none" would mean to asyncssh that nothing is to be checked.
    known = _known_hosts(found.known_hosts)
    place = Place(name, found.host, found.port, known, found.host_key_alias or "")
    with explained(place):
        try:
            connection = await asyncssh.connect(**wanted, known_hosts=known)
        except (ConnectionError, asyncssh.ConnectionLost, asyncssh.KeyExchangeFailed) as error:
            if await _has_other_keys(place, wanted):
                raise asyncssh.HostKeyNotVerifiable("it has none of this kind") from error
            raise
    async with connection:
        with explained(place):
            sftp = await connection.start_sftp_client()
        async with sftp:
            yield SshTransport(name, connection, sftp)


async def _has_other_keys(place: Place, wanted: dict[str, Any]) -> bool:
    """Tell whether a host that broke off has keys, but none of the kinds known of it.

    Only those kinds were asked for, so that it had nothing to say.
    """
    import asyncssh

    if not known_keys(place):
        return False
    try:
        async with asyncio.timeout(_CONNECT_S):
            key = await asyncssh.get_server_host_key(wanted["host"], wanted["port"])
    except (OSError, asyncssh.Error):
        return False
    return key is not None and key not in known_keys(place)


def _known_hosts(files: Sequence[str] | None) -> bytes:
    """Read these files, or those of OpenSSH; never give nothing, which is a default."""
    paths = [Path(file).expanduser() for file in files or _KNOWN_HOSTS]
    return b"\n".join([b"# known hosts", *(p.read_bytes() for p in paths if p.is_file())])
