"""This machine as a device: a board whose transport is a subprocess."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from dsconvert.base.errors import InputError, require

from ..runner import emulation, machine
from ..runtimes.registry import RUNTIMES
from .board import BoardDevice
from .device import Job
from .local_transport import LocalTransport
from .pack import packed_runner
from .records import HOST, DeviceInfo, MachineState
from .transport import Transport

_MONTH_S = 30 * 86400.0
"""Nobody waits for a connection: a job may take any time."""


class HostDevice(BoardDevice):
    """This machine; the runner does its jobs in processes of their own.

    Runtimes are those of this Python's environment.

    Args:
        name: What `--device` calls it.
    """

    _reads_our_files = True

    def __init__(self, name: str = HOST) -> None:
        super().__init__(name, _connected, python=sys.executable, timeout=_MONTH_S)

    def describe(self) -> DeviceInfo:
        """Say what it is; loads no runtime and starts no process."""
        said: dict[str, Any] = machine.describe()
        versions = {name: runtime.version for name, runtime in RUNTIMES.items()}
        return DeviceInfo(
            name=self.name,
            **said,
            runtimes={name: version for name, version in versions.items() if version},
            emulated=emulation.is_emulated(),
        )

    def state(self) -> MachineState:
        """Say how it is doing."""
        said: dict[str, Any] = machine.state()
        return MachineState(**said)

    @asynccontextmanager
    async def _at(self, link: Transport) -> AsyncIterator[str]:
        """Give a folder of ours, made without a shell."""
        folder = tempfile.mkdtemp(prefix="dsconvert.")
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _ready(self, link: Transport, folder: str) -> tuple[str, DeviceInfo]:
        """Bring the runner; this process knows the rest."""
        await self._send(link, folder, {"runner.pyz": packed_runner()}, len(packed_runner()))
        return sys.executable, self.describe()

    def _check_runtimes(self, jobs: Sequence[Job], info: DeviceInfo) -> None:
        """Check that the runtimes are installed.

        Raises:
            MissingExtra: If one is not.
        """
        for name in dict.fromkeys(case.runtime for job in jobs for case in job.cases):
            runtime = RUNTIMES[name]
            require(runtime.module, runtime.extra, runtime.purpose)


@asynccontextmanager
async def _connected() -> AsyncIterator[Transport]:
    yield LocalTransport()


def check_cpus(cpus: Sequence[int], usable: Sequence[int]) -> None:
    """Check that there are such cores.

    Raises:
        InputError: If there are not.
    """
    missing = [str(cpu) for cpu in cpus if cpu not in usable]
    if missing:
        have = ", ".join(map(str, usable))
        raise InputError(
            f"there is no core {', '.join(missing)} to use; allowed: {have}.", code="no-such-core"
        )
