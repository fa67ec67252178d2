"""What becomes of every model of a folder in every command, as a table.

    python benchmarks/coverage_run.py FOLDER [--seconds 150]

runs each command that applies on each .keras, .h5, .hdf5 and .onnx file, and prints the table:

- **ok**: exit code 0.
- **a code**, such as `weights-only`: refused with exit code 2; docs/errors.md has the codes.
- **gate: a code**: a check failed, exit code 1, and nothing was written under the output's name.
- **TRACEBACK**, **CRASH**, **TIMEOUT**: faults. The exit code is 1 then.
- –: does not apply, or there is no file to work on.

The commands of one model run one after another in a child process, since most of their time is the
import of frameworks; a new one is started after a crash. What was tried is kept in
build/coverage/outcomes.json by model, and a later run goes on with the next model; remove the file,
or a model's entry, to begin anew.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

OUT = Path(__file__).parents[1] / "build" / "coverage"
TRIED = OUT / "outcomes.json"
ENDINGS = (".keras", ".h5", ".hdf5", ".onnx")
SAMPLES, FREE_SIZE = 16, 64
FAULTS = ("TRACEBACK", "CRASH", "TIMEOUT")
COMMANDS = {
    "inspect": "inspect {model}",
    "plan": "plan {model} -o {out}/plan.json --target-macs 0.5x --calibration {data}",
    "rewrite": "rewrite {model} -o {out}/small{suffix}",
    "import": "import {model} -o {out}/imported.keras",
    "tflite": "export {model} -o {tflite}",
    "tflite dynamic": "export {model} -o {out}/dynamic.tflite --quantize dynamic",
    "onnx": "export {model} -o {onnx}",
    "onnx dynamic": "export {model} -o {out}/dynamic.onnx --quantize dynamic",
    "verify tflite": "verify {model} {tflite}",
    "verify onnx": "verify {model} {onnx}",
    "profile tflite": "profile {tflite} --runs 5 --warmup 1 --min-seconds 0",
    "profile onnx": "profile {onnx} --runs 5 --warmup 1 --min-seconds 0",
}


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

    def run(self, words: list[str], seconds: float) -> str:
        """Run one command and say what became of it."""
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
        return f"CRASH: {signal.Signals(-code).name if code < 0 else code}" if ready else "TIMEOUT"

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


def outcome(code: int, printed: str) -> str:
    """Return a cell of the table for an exit code and what was printed."""
    if code not in (0, 1, 2) or "Traceback (most recent call last)" in printed:
        return "TRACEBACK"
    if code == 0:
        return "ok"
    said = next((line for line in printed.splitlines() if '"dsconvert.error/1"' in line), None)
    why = json.loads(said)["code"] if said else "without a code"
    return why if code == 2 else f"gate: {why}"


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
        _write_data(Path(words[1]), Path(words[2]))
        return
    from dsconvert.cli import main

    main(words)


def _write_data(model: Path, path: Path) -> None:
    """Write random inputs that fit a model; the sizes that it leaves free are the same."""
    import numpy as np

    from dsconvert.workflows.model_files import open_model

    opened = open_model(model)
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.uniform(0, 1, (SAMPLES, *(size or FREE_SIZE for size in shape[1:]))).astype(
            np.float32
        )
        for name, shape in zip(opened.input_names, opened.input_shapes, strict=True)
    }
    if len(arrays) == 1:
        arrays = {"x_train": next(iter(arrays.values()))}
    np.savez(path, **arrays)


def run_model(model: Path, seconds: float) -> dict[str, str]:
    """Run the commands of one model that apply, and say what became of each."""
    out = OUT / model.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    log = out / "log.txt"
    files = {name: out / f"none.{name}" for name in ("tflite", "onnx")}
    names = {
        "model": model,
        "out": out,
        "suffix": _suffix(model),
        "data": out / "data.npz",
        **files,
    }
    worker = Worker(log)
    worker.run(["data", str(model), str(names["data"])], seconds)
    told: dict[str, str] = {}
    for title, text in COMMANDS.items():
        if title == "import" and model.suffix != ".onnx":
            continue
        what, _, format = title.partition(" ")
        if what in ("verify", "profile") and not files[format].exists():
            continue
        if not worker.is_alive:
            worker = Worker(log)
        words = [word.format(**names) for word in text.split()]
        told[title] = worker.run([*words, "--json", "-q"], seconds)
        print(f"{model.name} {title}: {told[title]}", file=sys.stderr, flush=True)
        if told[title].startswith(FAULTS):
            shutil.copy(log, OUT / f"{model.name} {title}.txt")
    worker.end()
    shutil.rmtree(out)
    return told


def _suffix(model: Path) -> str:
    return ".onnx" if model.suffix == ".onnx" else ".keras"


def table(tried: dict[str, dict[str, str]]) -> str:
    """Return the table in Markdown: the totals, then a row for each model."""
    counts = {
        title: Counter(_kind(told.get(title)) for told in tried.values()) for title in COMMANDS
    }
    kinds = ("ok", "refused", "gate failed", *FAULTS)
    lines = [f"| {len(tried)} models | {' | '.join(kinds)} |", f"|---|{'---|' * len(kinds)}"]
    for title, count in counts.items():
        lines.append(f"| {title} | {' | '.join(str(count[kind]) for kind in kinds)} |")
    total = sum(counts.values(), Counter())
    lines.append(f"| **all** | {' | '.join(str(total[kind]) for kind in kinds)} |")
    lines += ["", f"| model | {' | '.join(COMMANDS)} |", f"|---|{'---|' * len(COMMANDS)}"]
    for model, told in sorted(tried.items()):
        lines.append(f"| {model} | {' | '.join(told.get(title, '–') for title in COMMANDS)} |")
    return "\n".join(lines)


def _kind(told: str | None) -> str:
    if told is None:
        return "left out"
    if told == "ok" or told.startswith("gate"):
        return told if told == "ok" else "gate failed"
    return next((fault for fault in FAULTS if told.startswith(fault)), "refused")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=150, help="limit of each command")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.serve)
        return
    OUT.mkdir(parents=True, exist_ok=True)
    tried = json.loads(TRIED.read_text()) if TRIED.exists() else {}
    for model in sorted(chosen.folder.resolve().rglob("*")):
        name = str(model.relative_to(chosen.folder.resolve()))
        if model.suffix in ENDINGS and name not in tried:
            tried[name] = run_model(model, chosen.seconds)
            TRIED.write_text(json.dumps(tried, indent=1))
    print(table(tried))
    faults = sum(told.startswith(FAULTS) for one in tried.values() for told in one.values())
    sys.exit(f"{faults} faults" if faults else 0)


if __name__ == "__main__":
    main()
