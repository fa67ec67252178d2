"""What goes wrong on the way to a board, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from dsconvert.base.errors import InputError

_SSH_PORT = 22


class Place(NamedTuple):
    """A host as it is connected to.

    Attributes:
        name: What `--device` calls it.
        host: Its address, with ~/.ssh/config applied.
        port: Likewise.
        known: What the files of known hosts hold.
        alias: The name it has there, if another one.
    """

    name: str
    host: str
    port: int
    known: bytes
    alias: str


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """Turn what asyncssh raises while connecting into an InputError that says what to do."""
    import asyncssh

    try:
        yield
    except asyncssh.HostKeyNotVerifiable as error:
        raise _untrusted(place, str(error)) from error
    except asyncssh.KeyExchangeFailed as error:
        if "host key" in str(error):  # the host has none of the kinds that are known of it
            raise _untrusted(place, str(error)) from error
        raise _failed(place, str(error)) from error
    except asyncssh.PermissionDenied as error:
        raise InputError(
            f"{place.name}: {place.host} accepts none of your keys, and passwords are not used.",
            f"Try: ssh-copy-id {_option('-p', place)}{_target(place)}, and ssh-add if the key has "
            "a passphrase.",
            code="key-refused",
        ) from error
    except asyncssh.KeyImportError as error:
        raise InputError(
            f"{place.name}: a key cannot be read: {error}",
            "Try: ssh-add, so that the agent has it.",
            code="key-unreadable",
        ) from error
    except asyncssh.SFTPError as error:
        raise _no_files(place, error.reason) from error
    except asyncssh.ChannelOpenError as error:
        raise _no_files(place, str(error)) from error
    except TimeoutError as error:
        raise _failed(place, "no answer") from error
    except (OSError, asyncssh.Error) as error:
        raise _failed(place, getattr(error, "strerror", None) or str(error)) from error
    except ValueError as error:  # of a file: the configuration, the known hosts
        raise InputError(
            f"{place.name}: ~/.ssh/config or known_hosts cannot be read: {error}",
            code="ssh-config-unreadable",
        ) from error


def known_keys(place: Place) -> list[Any]:
    """Return the keys that are known of a host, those of authorities included."""
    import asyncssh

    port = None if place.port == _SSH_PORT else place.port
    found = asyncssh.match_known_hosts(place.known, place.alias or place.host, "", port)
    return [*found[0], *found[1]]


def _untrusted(place: Place, why: str) -> InputError:
    """Return the host's key is not the one that is known; or none is."""
    shown = place.alias or place.host
    if place.port != _SSH_PORT and not place.alias:
        shown = f"[{shown}]:{place.port}"
    if known_keys(place):
        return InputError(
            f"{place.name}: the key of {shown} is not the one in known_hosts: somebody may be "
            f"listening in, or the board was set up anew ({why}).",
            f"If it was: ssh-keygen -R '{shown}', then "
            f"ssh-keyscan {_option('-p', place)}{place.host} >> ~/.ssh/known_hosts",
            code="host-key-changed",
        )
    return InputError(
        f"{place.name}: the key of {shown} is not in known_hosts.",
        f"Try: ssh-keyscan {_option('-p', place)}{place.host} >> ~/.ssh/known_hosts, and compare "
        "its fingerprint with the board's (ssh-keygen -lf).",
        code="host-unknown",
    )


def _no_files(place: Place, why: str) -> InputError:
    return InputError(
        f"{place.name}: {place.host} takes no files by SFTP: {why}",
        "Install its SFTP server there: openssh-sftp-server.",
        code="no-sftp",
    )


def _failed(place: Place, why: str) -> InputError:
    return InputError(
        f"{place.name}: cannot connect to {place.host}, port {place.port}: {why}",
        f"See whether this does: ssh {_option('-p', place)}{_target(place)}",
        code="not-connected",
    )


def _option(flag: str, place: Place) -> str:
    return "" if place.port == _SSH_PORT else f"{flag} {place.port} "


def _target(place: Place) -> str:
    """USER@HOST as the name has it, with the address."""
    user, at, _ = place.name.removeprefix("ssh:").rpartition("@")
    return f"{user}{at}{place.host}"
