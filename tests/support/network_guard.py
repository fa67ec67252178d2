"""Nothing that a test does in this process reaches another machine, nor asks for one's address."""

from __future__ import annotations

import ipaddress
import os
import sys
from typing import Any

_LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyname_ex")
_SENDING = ("socket.connect", "socket.sendto", "socket.sendmsg")
talked: list[str] = []
"""What was tried and refused. An audit hook cannot be taken away, but this list can be emptied."""


class NetworkUsed(OSError):
    """Something tried to reach another machine."""


def install() -> None:
    """Refuse it from now on, and take it down: who tries may catch the error."""
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event in _LOOKUPS:
        host = arguments[0]
    elif event in _SENDING:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a socket of this machine
    else:
        return
    if not _is_here(host):
        talked.append(f"{event} {host!r}")
        raise NetworkUsed(f"{event} of {host!r}")


def _is_here(host: Any) -> bool:
    host = host.decode() if isinstance(host, bytes) else host
    if host in (None, "", "localhost", os.uname().nodename):
        return True
    if host.endswith(".invalid"):  # nobody's, by RFC 2606
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
