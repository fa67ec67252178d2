"""List what files can be measured on, and what is missing for which job."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .results.listed import CheckedSetup, DeviceList


def devices(timeout_s: float = 20.0) -> DeviceList:
    """List what `profile` can measure on: this machine, phones, named boards, and estimates.

    Args:
        timeout_s: Seconds that each device may take to answer.

    Returns:
        The devices, and why some cannot be used.

    Raises:
        InputError: If devices.toml cannot be used.

    Example:
        >>> import dsconvert as ds
        >>> ds.devices().devices[0].name
        'host'
    """
    from dsconvert.deploy.devices.listing import list_devices

    from .results.listed import DeviceList
    from .results.shown import shown

    return shown(DeviceList, list_devices(timeout_s))


def doctor() -> CheckedSetup:
    """Say what is missing for which job, and the command that brings it.

    Returns:
        The checks, and whether dsconvert can work with Keras or ONNX models.

    Raises:
        DsconvertError: If a check itself fails.

    Example:
        >>> import dsconvert as ds
        >>> ds.doctor().passed
        True
    """
    from dsconvert.deploy.profiling.doctor import diagnose

    from .results.listed import CheckedSetup
    from .results.shown import shown

    return shown(CheckedSetup, diagnose())
