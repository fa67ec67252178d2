"""Phones by adb: TFLite's own benchmark is copied there, and runs the files in turns.

A phone has no Python, so that the figures are those of the program `benchmark_model`: see
`benchmark_turns`.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from dsconvert.base.cache_folder import cache_folder
from dsconvert.base.errors import InputError
from dsconvert.base.progress import Progress, silent

from ..runner.timing import MAX_RUNS
from . import android
from .adb_shell import AdbPhone, choose, inside
from .benchmark_model import NAME, RUNTIME
from .benchmark_turns import PROCESS_S, line_of, measure_in_turns, stop, version_of
from .device import DeviceInfo, Job, MachineState, Report
from .elf import architecture, architecture_of_abi

FOLDER = "/data/local/tmp"
"""Where a phone lets adb's user start programs; memory cards are mounted so that it does not."""
_PREBUILT = (
    "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/"
    "nightly/latest/android_{name}_benchmark_model"
)
_PREBUILT_NAMES = {"arm64-v8a": "aarch64", "armeabi-v7a": "arm"}


class AdbDevice:
    """An Android phone.

    Args:
        name: "adb", or "adb:SERIAL" where adb has several.
        benchmark_binary: The program `benchmark_model` for the phone's architecture; by default
            that in the folder ``benchmark_model/ABI`` of dsconvert's cache.
        folder: Where on the phone a folder is made for the files, and removed afterwards.
        process_s: How long one process may take.
    """

    def __init__(
        self,
        name: str = "adb",
        *,
        benchmark_binary: Path | None = None,
        folder: str = FOLDER,
        process_s: float = PROCESS_S,
    ) -> None:
        self.name = name
        self._serial = name.partition(":")[2] or None
        self._binary = benchmark_binary
        self._folder = folder
        self._process_s = process_s

    def describe(self) -> DeviceInfo:
        """Say what it is.

        Raises:
            InputError: If there is no such phone, or it cannot be used, with what to do.
        """
        said = android.properties(AdbPhone(choose(self._serial)))
        try:
            binary = self._find_binary(android.abis(said))
        except InputError:
            return android.describe(self.name, said, {})
        return android.describe(self.name, said, {NAME: version_of(binary)})

    def state(self) -> MachineState:
        """Tell how it is doing now.

        Raises:
            InputError: If there is no such phone, or it cannot be used, with what to do.
        """
        return android.state(AdbPhone(choose(self._serial)), ())

    def measure_all(
        self,
        jobs: Sequence[Job],
        progress: Progress = silent,
        *,
        startup: bool = True,
        max_runs: int = MAX_RUNS,
    ) -> list[Report]:
        """Measure .tflite files; see `Device.measure_all`.

        Raises:
            InputError: If the phone cannot be used, a file is none for it, or there is no
                `benchmark_model` that runs on it.
        """
        del startup, max_runs  # each process loads its file, and ends by the clock
        return [self._measure(job, progress) for job in jobs]

    async def visit(
        self,
        jobs: Sequence[Job],
        progress: Progress = silent,
        *,
        startup: bool = True,
        max_runs: int = MAX_RUNS,
    ) -> list[Report]:
        """Measure in a thread; see `Device.visit`."""
        work = partial(self.measure_all, jobs, progress, startup=startup, max_runs=max_runs)
        return await asyncio.to_thread(work)

    def _measure(self, job: Job, progress: Progress) -> Report:
        for case in job.cases:
            if case.runtime != RUNTIME:
                raise InputError(
                    f"{case.path} cannot be profiled by adb: there is no ready-made program that "
                    "runs .onnx files on Android.",
                    "Export it to TFLite: dsconvert export MODEL -o model.tflite",
                    code="runtime-not-on-device",
                )
        phone = AdbPhone(choose(self._serial))
        said = android.properties(phone)
        binary = self._find_binary(android.abis(said))
        info = android.describe(self.name, said, {NAME: version_of(binary)})
        with self._workplace(phone) as folder:
            return measure_in_turns(
                phone,
                folder,
                binary,
                job,
                progress,
                info=info,
                state=lambda: android.state(phone, job.cpus),
                better=FOLDER,
                process_s=self._process_s,
            )

    def _find_binary(self, abis: Sequence[str]) -> Path:
        """Return the program for a phone that runs these ABIs, checked for its architecture."""
        if not abis:
            raise InputError(
                f"{self.name} does not say what architecture it has.", code="device-unclear"
            )
        allowed = {architecture_of_abi(abi) for abi in abis}
        if self._binary is not None:
            if not self._binary.is_file():
                raise InputError(
                    f"{self._binary} does not exist or is no file.", code="program-not-found"
                )
            made_for = architecture(self._binary)
            if made_for not in allowed:
                raise InputError(
                    f"{self._binary} is for {made_for}; {self.name} runs "
                    f"{', '.join(sorted(allowed))}.",
                    _get_binary(abis[0]),
                    code="wrong-processor",
                )
            return self._binary
        places = {abi: binary_place(abi) for abi in abis}
        for abi, place in places.items():
            if place.is_file():
                made_for = architecture(place)
                if made_for != architecture_of_abi(abi):
                    raise InputError(
                        f"{place} is for {made_for}, not for {abi}.",
                        _get_binary(abi),
                        code="wrong-processor",
                    )
                return place
        raise InputError(
            f"there is no {NAME} for {self.name} ({abis[0]}): {places[abis[0]]} does not exist.",
            _get_binary(abis[0]),
            code="program-not-found",
        )

    @contextmanager
    def _workplace(self, phone: AdbPhone) -> Iterator[str]:
        """Give a folder of our own on the phone, gone afterwards whatever happens."""
        folder = inside(self._folder, f"dsconvert-{secrets.token_hex(4)}")
        made = phone.shell("mkdir", "-p", folder)
        if made.code != 0:
            raise InputError(
                f"{self.name}: {folder} cannot be made: {line_of(made)}",
                f"Use a folder that adb's user may write to, as {FOLDER}.",
                code="device-not-writable",
            )
        try:
            yield folder
        finally:
            with suppress(InputError):  # gone: what led here is the better message
                phone.script(f"{stop(folder)}; rm -rf {folder}")


def binary_place(abi: str) -> Path:
    """Tell where a `benchmark_model` for this ABI is looked for."""
    return cache_folder() / NAME / abi / NAME


def _get_binary(abi: str) -> str:
    """Tell how to come by a program for this ABI."""
    place = binary_place(abi)
    if abi in _PREBUILT_NAMES:
        url = _PREBUILT.format(name=_PREBUILT_NAMES[abi])
        return f"Name one with --benchmark-binary, or: curl --create-dirs -o {place} {url}"
    return f"Build it from TensorFlow's or LiteRT's sources, then copy it to {place}."
