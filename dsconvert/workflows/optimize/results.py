"""What the stages found, brought together, and the files that say that."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import platform
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from dsconvert.base.input_size import size_words

from ..command_words import preprocessing_words
from .ledger import StageRecord
from .options import export_words, file_name
from .recommend import loss, loss_of, recommend, score

if TYPE_CHECKING:
    from dsconvert.converter.core.types import Plan
    from dsconvert.models.training.settings import Epoch

    from ..accuracy_goal import AllowedDrop
    from ..results.evaluated import EvaluatedModel
    from ..results.inspected import InspectedModel
    from ..results.measured import MeasuredFile
    from ..results.optimized import FileFigures, LayerFigures, OptimizeResult, Timing
    from .ledger import Stage
    from .work import Work

_PACKAGES = (
    *("dsconvert", "numpy", "tensorflow-cpu", "tensorflow", "keras", "ai-edge-litert"),
    *("onnx", "onnxruntime", "openvino", "tf2onnx"),
)
_NAMES = ("original", "rewritten")


def summed_up(
    work: Work,
    records: Mapping[str, StageRecord],
    stages: Sequence[Stage],
    *,
    forms: tuple[str, ...],
    allowed: AllowedDrop,
    inspected: InspectedModel,
    not_rewritten: str,
) -> OptimizeResult:
    """Bring together what the stages found.

    Args:
        work: The model, the data and the folder.
        records: Of the stages that were run.
        stages: All of them, in order.
        forms: The formats asked for.
        allowed: The most that the file to use may lose.
        inspected: The convolutions.
        not_rewritten: Why the model was not rewritten; empty if it was.
    """
    from dsconvert.models.data.preprocess import Preprocessing

    from ..results.optimized import OptimizeResult

    options, opened = work.options, work.opened
    evaluated, measured = _measured(records)
    kind = loss_of(evaluated[0]) if evaluated else ""
    rewritten = not not_rewritten
    files = tuple(
        _file(work, records, who, form, evaluated, measured)
        for form in forms
        for who in _NAMES[: 1 + rewritten]
        if f"export-{file_name(who, form)}" in records
    )
    files = _estimates_compared(files)
    whole = score(evaluated[0]) if evaluated else None
    unit = whole.unit if whole else "share"
    most = allowed.of(whole.value if whole and whole.value is not None else 1.0)
    chosen = recommend(files, most, options.target_latency, kind, unit)
    plan, missed = _plan(records)
    training, best_epoch = _training(records)
    baseline = next((file.name for file in files if not file.failure), "")
    rewrite = records.get("rewrite")
    done = rewrite.result["preprocessing"] if rewrite else None
    if evaluated:
        done = msgspec.to_builtins(evaluated[0].preprocessing)
    return OptimizeResult(
        model=opened.told,
        sha256=opened.sha256,
        data=work.images.source,
        folder=str(work.folder),
        target_latency=options.target_latency or "",
        max_drop=str(options.max_drop),
        missed=chosen.missed,
        potential=inspected.potential,
        rewritten=rewritten,
        not_rewritten=not_rewritten,
        loss_of=kind,
        loss_unit=unit,
        original=whole,
        baseline=baseline,
        recommended=chosen.file,
        why=chosen.why,
        files=files,
        layers=_layers(plan, inspected, rewritten=rewritten),
        unit=plan.unit if plan else "",
        target=plan.target if plan else "",
        training=training,
        best_epoch=best_epoch,
        preprocessing=msgspec.convert(done or {}, Preprocessing),
        environment=_environment(measured),
        warnings=_warnings(records, missed, measured),
        stages=_times(records, stages),
        dsconvert=_version("dsconvert"),
    )


def _measured(
    records: Mapping[str, StageRecord],
) -> tuple[list[EvaluatedModel], list[MeasuredFile]]:
    """Return what the files did, the original model first, and their times."""
    from ..results.evaluated import EvaluatedModel
    from ..results.measured import MeasuredFile

    evaluated = records["evaluate"].result if "evaluate" in records else []
    measured = records["profile"].result if "profile" in records else []
    return (
        msgspec.convert(evaluated or [], list[EvaluatedModel]),
        msgspec.convert(measured or [], list[MeasuredFile]),
    )


def _plan(records: Mapping[str, StageRecord]) -> tuple[Plan | None, str]:
    """Return the plan, and by how much the rewritten network missed its target."""
    from dsconvert.converter.core.types import Plan

    record = records.get("plan")
    if record is None:
        return None, ""
    return msgspec.convert(record.result["plan"], Plan), record.result["missed"]


def _training(records: Mapping[str, StageRecord]) -> tuple[tuple[Epoch, ...], int]:
    """Return the epochs of fine-tuning, and the one that was kept."""
    from dsconvert.models.training.settings import Epoch

    record = records.get("finetune")
    if record is None or record.failure:
        return (), 0
    history = msgspec.convert(record.result["history"], tuple[Epoch, ...])
    return history, record.result["best_epoch"]


def _file(
    work: Work,
    records: Mapping[str, StageRecord],
    who: Literal["original", "rewritten"] | str,
    form: str,
    evaluated: list[EvaluatedModel],
    measured: list[MeasuredFile],
) -> FileFigures:
    """Bring together what is known of one file."""
    from ..results.optimized import FileFigures

    name = file_name(who, form)
    record = records[f"export-{name}"]
    model: Any = who
    command = _command(work, who, form, name)
    if record.failure:
        return FileFigures(
            name=name, model=model, form=form, failure=record.failure, command=command
        )
    path = work.folder / "files" / name
    verified = records.get(f"verify-{name}")
    found = next((one for one in evaluated[1:] if Path(one.name).name == name), None)
    time = next((one for one in measured if Path(one.path).name == name), None)
    checked = verified.result if verified is not None and verified.result else {}
    failures = tuple(checked.get("failures", ()))
    if verified is not None and verified.failure:
        failures = (verified.failure,)
    return FileFigures(
        name=name,
        model=model,
        form=form,
        command=command,
        sha256=record.files[f"files/{name}"],
        size_bytes=path.stat().st_size,
        macs=time.macs if time else "unavailable: not counted",
        timing=_timing(time),
        timing_failure="" if time is None else time.failure,
        score=score(found) if found else None,
        fidelity=found.fidelity if found else (),
        loss=loss(evaluated[0], found) if found else None,
        verified=bool(checked.get("passed")),
        failures=failures,
        operators=time.operators if time else (),
        notes=tuple(record.result.get("notes", ())),
    )


def _estimates_compared(files: tuple[FileFigures, ...]) -> tuple[FileFigures, ...]:
    """Give estimates their ratio to the first file's; measured times have theirs already."""
    replaced = msgspec.structs.replace
    first = next((file.timing for file in files if file.timing is not None), None)
    if first is None or first.unit == "ms" or not first.value:
        return files
    found = []
    for file in files:
        if file.timing is not None:
            ratio = file.timing.value / first.value
            timing = replaced(file.timing, ratio=ratio, low=ratio, high=ratio)
            file = replaced(file, timing=timing)
        found.append(file)
    return tuple(found)


def _timing(found: MeasuredFile | None) -> Timing | None:
    from ..results.optimized import Timing

    if found is None:
        return None
    if found.latency is None:
        cycles = found.estimate.cycles if found.estimate else None
        return None if cycles is None else Timing(unit="cycles", value=float(cycles))
    against = found.comparison
    latency = found.latency
    if against is None:
        return Timing(unit="ms", value=latency.p50_ms, p90=latency.p90_ms)
    return Timing(
        unit="ms",
        value=latency.p50_ms,
        p90=latency.p90_ms,
        ratio=against.ratio,
        low=against.low,
        high=against.high,
        verdict=against.verdict,
    )


def _command(work: Work, who: str, form: str, name: str) -> str:
    """Return the command that makes one file."""
    words = export_words(form)
    source = work.opened.told
    if who == "rewritten":
        kind = "tuned" if (work.folder / "models" / f"tuned{work.suffix}").exists() else who
        source = str(work.folder / "models" / f"{kind}{work.suffix}")
    output = str(work.folder / "files" / name)
    as_it_is = not work.opened.changed or who == "rewritten"
    if as_it_is and words == {"format": "onnx", "quantize": "none"} and source.endswith(".onnx"):
        return shlex.join(["cp", source, output])
    command = ["dsconvert", "export", source, "-o", output]
    loading = work.opened.loading
    command += ["--dequantize"] if work.opened.dequantized and who == "original" else []
    for size in size_words(loading.input_size) if loading and who == "original" else ():
        command += ["--input-size", size]
    if words["quantize"] != "none":
        command += ["--quantize", words["quantize"]]
    if words["quantize"].startswith("int"):
        done = work.images.preprocessing
        said = () if done is None else preprocessing_words(done)
        command += ["--calibration", work.images.source, *said]
    return shlex.join(command)


def _layers(
    plan: Plan | None, inspected: InspectedModel, *, rewritten: bool
) -> tuple[LayerFigures, ...]:
    from dsconvert.converter.core.fitting.styles import block_style

    from ..results.optimized import LayerFigures

    if plan is None:
        return tuple(
            LayerFigures(
                name=row.name,
                reason=row.reason.text if row.reason else "the whole rewrite does not pay",
            )
            for row in inspected.convolutions
        )
    return tuple(
        LayerFigures(
            name=layer.name,
            becomes=block_style(layer.choice.block).text(layer.choice) if layer.choice else "",
            reason=layer.reason.text if layer.reason and not layer.choice else "",
            before=layer.cost_before,
            after=layer.cost_after if layer.choice else None,
            output_error=layer.effect.output_error if layer.effect and layer.choice else None,
            data_error=layer.effect.data_error if layer.effect and layer.choice else None,
        )
        for layer in plan.layers
    )


def _warnings(
    records: Mapping[str, StageRecord], missed: str, measured: list[MeasuredFile]
) -> tuple[str, ...]:
    told = [note for record in records.values() for note in record.notes]
    told += [f"{record.stage}: {record.failure}" for record in records.values() if record.failure]
    told += [f"the plan: {missed}"] if missed else []
    told += [note for one in measured for note in one.notes]
    return tuple(dict.fromkeys(told))


def _times(records: Mapping[str, StageRecord], stages: Sequence[Stage]) -> Any:
    from ..results.optimized import StageTime

    return tuple(
        StageTime(
            stage=stage.name,
            title=stage.title,
            seconds=records[stage.name].seconds,
            state="failed" if records[stage.name].failure else "done",
            failure=records[stage.name].failure,
        )
        for stage in stages
        if stage.name in records
    )


def _environment(measured: list[MeasuredFile]) -> dict[str, str]:
    """Name the machines and the versions of all that took part."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    found["processor"] = platform.processor() or platform.machine()
    if measured:
        first = measured[0]
        found["processor"] = first.cpu or found["processor"]
        if first.device is not None:
            found["device"] = f"{first.device.name}: {first.device.cpu}"
        if first.before is not None and first.before.load is not None:
            found["load before"] = f"{first.before.load:.1f}"
    found["cores"] = str(os.cpu_count())
    for name in _PACKAGES:
        version = _version(name)
        if version:
            found[name] = version
    return found


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
