"""What becomes of every model of a folder in every command, as a table.

    python benchmarks/coverage_run.py FOLDER [--seconds 150] [--only GLOB] [--commands inspect plan]

runs each command that applies on each .keras, .h5, .hdf5 and .onnx file, and prints the table:

- **ok**: exit code 0.
- **a code**, such as `weights-only`: refused with exit code 2; docs/errors.md has the codes.
- **gate: a code**: a check failed, exit code 1, and nothing was written under the output's name.
- **TRACEBACK**, **CRASH**, **TIMEOUT**: faults. The exit code is 1 then.
- –: does not apply, or there is no file to work on.

The data are a few random inputs of the model's own shapes. A model that cannot be read gets images
that would fit many, since its refusal must be about the model. A size that a model leaves free is
given where a command asks for it.

The commands of one model run one after another in a child process, since most of their time is the
import of frameworks; a new one is started after a crash. What was tried is kept in
build/coverage/outcomes.json by model, with what was said, and a later run goes on with the next
model; remove the file, or a model's entry, to begin anew. Some --commands are run again, and what
became of the others stays. --dequantize adds that option to the commands that take it, and counts
each file as another model.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TypeAlias

OUT = Path(__file__).parents[1] / "build" / "coverage"
TRIED = OUT / "outcomes.json"
ENDINGS = (".keras", ".h5", ".hdf5", ".onnx")
SAMPLES, FREE_SIZE = 24, 32
"""Samples of a data file, and sizes that a model leaves free."""
LARGEST_FILE, FEWEST_SAMPLES = 4_000_000, 4
"""Values of a data file: large inputs are fewer, down to some."""
STAND_IN = (32, 32, 3)
"""Of the images for a model that cannot be read."""
_FOLDERS = re.compile(r"(?:/[\w.-]+)+/")
FAULTS = ("TRACEBACK", "CRASH", "TIMEOUT")
COMMANDS = {
    "inspect": "inspect {model}",
    "init": "init {model} -o {out}/recipe.toml",
    "plan": "plan {model} -o {out}/plan.json --calibration {data} --max-pairs 2",
    "sweep": "sweep {model} --points 2 --calibration {data} --max-pairs 2",
    "rewrite": "rewrite {model} -o {out}/small{suffix}",
    "rewrite data": "rewrite {model} -o {out}/fitted{suffix} --calibration {data} --refine 5steps",
    "finetune": "finetune {out}/fitted{suffix} --teacher {model} --data {data} --epochs 1",
    "import": "import {model} -o {out}/imported.keras",
    "tflite": "export {model} -o {tflite}",
    "tflite float16": "export {model} -o {out}/float16.tflite --quantize float16",
    "tflite dynamic": "export {model} -o {out}/dynamic.tflite --quantize dynamic",
    "tflite int8": "export {model} -o {out}/int8.tflite --quantize int8 --calibration {data}",
    "onnx": "export {model} -o {onnx}",
    "onnx float16": "export {model} -o {out}/float16.onnx --quantize float16",
    "onnx dynamic": "export {model} -o {out}/dynamic.onnx --quantize dynamic",
    "onnx int8": "export {model} -o {out}/int8.onnx --quantize int8 --calibration {data}",
    "verify tflite": "verify {model} {tflite}",
    "verify onnx": "verify {model} {onnx}",
    "evaluate tflite": "evaluate {tflite} --reference {model} --data {data}",
    "evaluate onnx": "evaluate {onnx} --reference {model} --data {data}",
    "profile tflite": "profile {tflite} --runs 5 --warmup 1 --min-seconds 0",
    "profile onnx": "profile {onnx} --runs 5 --warmup 1 --min-seconds 0",
    "optimize": "optimize {model} --data {data} -o {out}/run --dry-run",
}
NEEDS = {"finetune": "fitted{suffix}"}
"""What a command works on, of another's: it does not apply where that is not there."""
READ_AS_FLOAT = (
    *("inspect", "plan", "sweep", "rewrite", "finetune", "import", "export", "optimize"),
)
"""What takes --dequantize, and works on a quantized model then."""
Told: TypeAlias = dict[str, dict[str, str]]
"""Of one model: by command, what became of it, and what was said."""


class Worker:
    """A process that runs commands, and may die of one."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--serve", str(log)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # its children end with it
            text=True,
        )

    def run(self, words: list[str], seconds: float) -> dict[str, str]:
        """Run one command and return what became of it, and what it said of a refusal."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        answer = self._process.stdout.readline() if ready else ""
        if answer:
            return outcome(int(answer), self._log.read_text(errors="replace"))
        self.end()
        code = self._process.returncode
        name = signal.Signals(-code).name if code < 0 else code
        return {"became": f"CRASH: {name}" if ready else "TIMEOUT"}

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        if self.is_alive:
            try:
                self._process.wait(5)  # stdout may close before the process ends
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()


def outcome(code: int, printed: str) -> dict[str, str]:
    """Return a cell of the table for an exit code and what was printed, and the reason said."""
    if code not in (0, 1, 2) or "Traceback (most recent call last)" in printed:
        return {"became": "TRACEBACK"}
    if code == 0:
        return {"became": "ok"}
    line = next((line for line in printed.splitlines() if '"dsconvert.error/1"' in line), None)
    error = json.loads(line) if line else {"code": "without a code", "message": printed[-500:]}
    became = error["code"] if code == 2 else f"gate: {error['code']}"
    return {"became": became, "said": error["message"]}


def serve(log: Path) -> None:
    """Run the commands that stdin names, one a line, and answer with their exit codes."""
    import traceback

    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        with log.open("wb") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        try:
            _run(json.loads(line))
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        print(code, file=answers, flush=True)


def _run(words: list[str]) -> None:
    if words[0] == "data":
        _write_data(Path(words[1]), Path(words[2]), "--dequantize" in words)
        return
    from dsconvert.cli import main

    main(words)


def _write_data(model: Path, path: Path, dequantize: bool) -> None:
    """Write random inputs that fit a model; the sizes that it leaves free are the same."""
    import numpy as np

    from dsconvert.base.errors import DsconvertError
    from dsconvert.workflows.model_files import ModelPath, open_model

    try:
        opened = open_model(ModelPath(model, dequantize=dequantize))
        shapes = dict(zip(opened.input_names, opened.input_shapes, strict=True))
    except DsconvertError:
        shapes = {"x_train": (None, *STAND_IN)}
    sizes = {name: [size or FREE_SIZE for size in shape[1:]] for name, shape in shapes.items()}
    values = sum(int(np.prod(size)) for size in sizes.values())
    samples = min(SAMPLES, max(FEWEST_SAMPLES, LARGEST_FILE // values))
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.uniform(0, 1, (samples, *size)).astype(np.float32) for name, size in sizes.items()
    }
    if len(arrays) == 1:
        (values,) = arrays.values()
        arrays = {"x_train": values, "x_test": values}
    np.savez(path, **arrays)


def run_model(model: Path, seconds: float, wanted: list[str], dequantize: bool) -> Told:
    """Run those of the commands that apply to one model, and say what became of each."""
    out = OUT / model.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    log = out / "log.txt"
    native = model.suffix == ".onnx" and not dequantize
    option = ["--dequantize"] if dequantize else []
    files = {"tflite": out / "none.tflite", "onnx": model if native else out / "none.onnx"}
    names = {
        "model": model,
        "out": out,
        "suffix": _suffix(model),
        "data": out / "data.npz",
        **files,
    }
    worker = Worker(log)
    made = worker.run(["data", str(model), str(names["data"]), *option], seconds)
    if made["became"] != "ok":
        sys.exit(f"no data for {model.name}: {made} {log.read_text(errors='replace')}")
    told: Told = {}
    for title, text in COMMANDS.items():
        if wanted and title not in wanted:
            continue
        if title in (("onnx", "verify onnx") if native else ("import",)) and not dequantize:
            continue
        what, _, format = title.partition(" ")
        taken = text.split()[0] in READ_AS_FLOAT
        if dequantize and not (taken or what in ("profile", "verify")):
            continue
        if what in ("verify", "profile", "evaluate") and not files[format].exists():
            continue
        if title in NEEDS and not (out / NEEDS[title].format(**names)).exists():
            continue
        words = [*(word.format(**names) for word in text.split()), "--json", "-q"]
        words += option if taken else []
        for more in ([], ["--input-size", f"{FREE_SIZE}x{FREE_SIZE}"]):
            if not worker.is_alive:
                worker = Worker(log)
            start = time.monotonic()
            one = worker.run([*words, *more], seconds)
            if one["became"] != "free-sizes":
                break
        told[title] = one
        took = time.monotonic() - start
        print(f"{model.name} {title}: {one} {took:.0f} s", file=sys.stderr, flush=True)
        if one["became"].startswith(FAULTS):
            shutil.copy(log, OUT / f"{model.name} {title}.txt")
    worker.end()
    shutil.rmtree(out)
    return told


def _suffix(model: Path) -> str:
    return ".onnx" if model.suffix == ".onnx" else ".keras"


def table(tried: dict[str, Told]) -> str:
    """Return the tables in Markdown: outcomes by command, reasons, and a row for each model."""
    kinds = ("ok", "refused", "gate failed", *FAULTS)
    lines = [f"| {len(tried)} models | {' | '.join(kinds)} | reasons |", f"|---|{'---|' * 7}"]
    total: Counter[str] = Counter()
    for title in COMMANDS:
        became = Counter(told[title]["became"] for told in tried.values() if title in told)
        count: Counter[str] = Counter()
        for one, number in became.items():
            count[_kind(one)] += number
        total += count
        why = ", ".join(f"{one} {n}" for one, n in became.most_common() if one != "ok")
        lines.append(f"| {title} | {' | '.join(str(count[kind]) for kind in kinds)} | {why} |")
    lines.append(f"| **all** | {' | '.join(str(total[kind]) for kind in kinds)} | |")
    lines += ["", "| reason | commands | models | what is said first |", "|---|---|---|---|"]
    for reason in sorted({one["became"] for told in tried.values() for one in told.values()}):
        cells = [
            (title, model, one.get("said", ""))
            for model, told in sorted(tried.items())
            for title, one in told.items()
            if one["became"] == reason
        ]
        if reason != "ok":
            commands, models = (dict.fromkeys(column) for column in list(zip(*cells))[:2])  # noqa: B905
            said = _FOLDERS.sub("", cells[0][2].split("\n")[0]).replace("|", "\\|")
            shown = ", ".join(Path(model).name for model in models)
            lines.append(f"| {reason} | {len(cells)}: {', '.join(commands)} | {shown} | {said} |")
    return "\n".join(lines)


def _kind(became: str) -> str:
    if became == "ok" or became.startswith("gate"):
        return became if became == "ok" else "gate failed"
    return next((fault for fault in FAULTS if became.startswith(fault)), "refused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=150, help="limit of each command")
    parser.add_argument("--only", default="*", help="of the models, by their names: onnx/*")
    parser.add_argument("--commands", nargs="+", default=[], help="some columns of the table")
    parser.add_argument("--dequantize", action="store_true", help="read quantized files as float")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve)
        return
    OUT.mkdir(parents=True, exist_ok=True)
    tried = json.loads(TRIED.read_text()) if TRIED.exists() else {}
    for model in sorted(chosen.folder.resolve().rglob("*")):
        name = str(model.relative_to(chosen.folder.resolve()))
        wanted = model.suffix in ENDINGS and fnmatch.fnmatch(name, chosen.only)
        name += " --dequantize" if chosen.dequantize else ""
        if wanted and (chosen.commands or name not in tried):
            made = run_model(model, chosen.seconds, chosen.commands, chosen.dequantize)
            tried[name] = {**tried.get(name, {}), **made}
            TRIED.write_text(json.dumps(tried, indent=1, ensure_ascii=False))
    print(table(tried))
    faults = sum(
        one["became"].startswith(FAULTS) for told in tried.values() for one in told.values()
    )
    sys.exit(f"{faults} faults" if faults else 0)


if __name__ == "__main__":
    main()
