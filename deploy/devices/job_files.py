"""Jobs as the runner reads them, and its reports as this side does."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from dsconvert.base.predictor import Array
from dsconvert.formats.onnx.open import load
from dsconvert.formats.onnx.tensors import external_place, is_external, tensors_of

from ..runner.job import JOB
from ..runner.timing import MAX_RUNS
from ..runtimes.session import decode, encode, first_line
from .device import Case, DeviceInfo, Job, MachineState, OperatorTime, Report, Startup, TimedFile

_NOT_REACHED = "it was not come to"


@dataclass(frozen=True)
class Wired:
    """Jobs that are ready to be sent.

    Attributes:
        files: Contents, or where they are here, by path in the folder on the board.
        places: Of the case i of job g, ``places[g][i]`` is the folder there.
        needs: Bytes that all of this takes there, the outputs included, about.
    """

    files: Mapping[str, bytes | Path]
    places: tuple[tuple[str, ...], ...]
    needs: int


_MARGIN = 2**20
"""Bytes for reports, logs and folders."""


def wire(
    jobs: Sequence[Job],
    *,
    startup: bool = True,
    max_runs: int = MAX_RUNS,
    in_place: bool = False,
) -> Wired:
    """Jobs as what lies in one folder: see `dsconvert.deploy.runner.job`.

    Args:
        jobs: Of the same settings but for ``min_seconds``; the files of each take turns.
        startup: Whether each file is also loaded in a process of its own.
        max_runs: Timed invocations of a file after which no round is begun for time's sake.
        in_place: Whether the runner reads the models where they are here.

    Raises:
        InputError: If an ONNX file's external data are not beside it.
    """
    files: dict[str, bytes | Path] = {}
    groups: list[list[dict[str, Any]]] = []
    outputs = 0
    for number, job in enumerate(jobs):
        groups.append([])
        for i, case in enumerate(job.cases):
            place = f"{number}/{i}"
            model = f"{place}/model{case.path.suffix.lower()}"
            inputs = f"{place}.inputs.npz"
            if in_place:
                model = str(case.path.resolve())
            else:
                files[model] = case.path
                files |= {f"{place}/{name}": path for name, path in _beside(case.path).items()}
            files[inputs] = _packed(case)
            outputs += sum(_bytes(info.shape) for info in case.output_infos)
            groups[-1].append(
                {
                    "file": model,
                    "runtime": case.runtime,
                    "names": [info.name for info in case.input_infos],
                    "inputs": inputs,
                    "outputs": f"{place}.outputs.npz",
                }
            )
    first = jobs[0]
    settings = {
        "schema": JOB,
        "threads": first.threads,
        "cpus": first.cpus,
        "runs": first.runs,
        "warmup": first.warmup,
        "min_seconds": [job.min_seconds for job in jobs],
        "max_runs": max_runs,
        "seed": first.seed,
        "per_op": first.per_op,
        "startup": startup,
        "groups": groups,
    }
    files["job.json"] = msgspec.json.encode(settings)
    sizes = (len(one) if isinstance(one, bytes) else one.stat().st_size for one in files.values())
    return Wired(
        files=files,
        places=tuple(
            tuple(f"{number}/{i}" for i in range(len(job.cases))) for number, job in enumerate(jobs)
        ),
        needs=sum(sizes) + outputs + _MARGIN,
    )


def unwire(
    jobs: Sequence[Job],
    wired: Wired,
    folder: str,
    said: Mapping[str, Any],
    outputs: Mapping[str, bytes],
    info: DeviceInfo,
    ended: str,
) -> list[Report]:
    """Return the reports of jobs.

    Args:
        jobs: What was asked.
        wired: What was sent.
        folder: Where it was on the board, to be left out of messages.
        said: The runner's report, complete or not.
        outputs: Contents of the files of outputs, by folder of the case.
        info: What the board is.
        ended: Why the report is not complete; empty if it is.
    """
    before = msgspec.convert(said.get("before", {}), MachineState)
    after = msgspec.convert(said.get("after", {}), MachineState)
    notes = (f"the report is not complete: {ended}",) if ended else ()
    groups = said.get("groups") or [[{} for _ in job.cases] for job in jobs]
    return [
        Report(
            info=info,
            before=before,
            after=after,
            files=tuple(
                _timed(case, record, f"{folder}/{place}/", outputs.get(place), info, ended)
                for case, record, place in zip(job.cases, records, places, strict=True)
            ),
            notes=notes,
        )
        for job, records, places in zip(jobs, groups, wired.places, strict=True)
    ]


def _timed(
    case: Case,
    record: Mapping[str, Any],
    place: str,
    content: bytes | None,
    info: DeviceInfo,
    ended: str,
) -> TimedFile:
    """Return what was found of one file."""

    def text(said: str) -> str:
        said = said.replace(f"{place}model{case.path.suffix.lower()}", str(case.path))
        return first_line(RuntimeError(said.replace(place, "")))

    samples = tuple(record.get("samples_ms", ()))
    failure = text(record["failure"]) if record.get("failure") else ""
    outputs: tuple[Array, ...] | None = None
    if samples and not failure:
        outputs, failure = _decoded(case, content)
    elif not failure:
        failure = ended or _NOT_REACHED
    startup = record.get("startup", ended or _NOT_REACHED)
    operators = record.get("operators", ())
    return TimedFile(
        runtime=record.get("runtime", ""),
        runtime_version=record.get("runtime_version", info.runtimes.get(case.runtime, "")),
        startup=text(startup) if isinstance(startup, str) else msgspec.convert(startup, Startup),
        samples_ms=() if failure else samples,
        outputs=outputs,
        failure=failure,
        operators=(
            text(operators)
            if isinstance(operators, str)
            else tuple(msgspec.convert(one, OperatorTime) for one in operators)
        ),
        notes=tuple(record.get("notes", ())),
    )


def _decoded(case: Case, content: bytes | None) -> tuple[tuple[Array, ...] | None, str]:
    """Return the outputs as real values, or why there are none."""
    if content is None:
        return None, "its outputs did not come back"
    try:
        with np.load(io.BytesIO(content)) as stored:
            arrays = [stored[name] for name in stored.files]
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        return None, f"its outputs cannot be read: {first_line(error)}"
    if len(arrays) != len(case.output_infos):
        return None, f"it gave {len(arrays)} outputs, {len(case.output_infos)} were expected"
    return tuple(decode(a, i) for a, i in zip(arrays, case.output_infos, strict=True)), ""


def _packed(case: Case) -> bytes:
    """Return the inputs as the file stores them, as an .npz."""
    arrays = [encode(a, info) for a, info in zip(case.inputs, case.input_infos, strict=True)]
    content = io.BytesIO()
    np.savez(content, *arrays)
    return content.getvalue()


def _bytes(shape: Sequence[int | None]) -> int:
    """Of an output, about: free sizes count as one."""
    return 8 * int(np.prod([size or 1 for size in shape], dtype=np.int64))


def _beside(path: Path) -> dict[str, Path]:
    """Return the external data of an .onnx file, by path relative to it."""
    if path.suffix.lower() != ".onnx":
        return {}
    tensors = [tensor for tensor, _ in tensors_of(load(path)) if is_external(tensor)]
    found = {external_place(tensor, path.parent)[0] for tensor in tensors}
    return {str(file.relative_to(path.parent.resolve()).as_posix()): file for file in found}
