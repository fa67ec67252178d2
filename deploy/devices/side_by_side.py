"""Visits to devices, one after the other or side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from dsconvert.base.errors import DsconvertError
from dsconvert.base.progress import Progress, silent

from .device import Device, Job, Report

T = TypeVar("T")


def wait(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine, also where a loop is running already, as in notebooks.

    Ctrl-C cancels the work, which cleans up before this raises KeyboardInterrupt.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def measure_on(
    devices: Sequence[Device], job: Job, progress: Progress = silent
) -> list[Report | DsconvertError]:
    """Measure a job on several devices side by side.

    Args:
        devices: Any; none waits for another.
        job: What to measure, the same on all.
        progress: Told of one step per device.

    Returns:
        In the order of the devices, what each found, or why it found nothing.
    """

    async def one(device: Device, advance: Any) -> Report | DsconvertError:
        try:
            return (await device.visit([job]))[0]
        except DsconvertError as error:
            return error
        finally:
            advance()

    async def all_of_them() -> list[Report | DsconvertError]:
        with progress("Measuring on devices", len(devices)) as advance:
            return await asyncio.gather(*(one(device, advance) for device in devices))

    return wait(all_of_them())
