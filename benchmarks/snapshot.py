"""What a dsconvert program answers, kept as JSON to be compared with another version's answers.

    python benchmarks/snapshot.py --models FOLDER --data cifar10.npz --program PROGRAM -o old.json
    python benchmarks/snapshot.py --compare old.json new.json

Each case is a chain of commands in a folder and with a cache of its own; the first that fails ends
it. Kept are exit codes, errors and --json answers, without times, hashes and wording. A case that
OUTPUT has already is not run again, unless a command of it ran out of time.

--program is split as a shell does: 'env PYTHONPATH=build/src .venv/bin/dsconvert' asks a working
tree. A PYTHONPATH around this script is not handed on: the program would not be the one named.
--compare prints each value that differs by more than TOLERANCES allows; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from shlex import quote, split
from subprocess import PIPE
from typing import Any

from common import RESNET8, VGG6, write_json
from snapshot_differences import print_differences

Commands = Sequence[str]
WINML = "onnx/winml_pytorch_tutorial_cnn.onnx"
CLASSIFIERS = {
    "resnet8": (RESNET8, "conv2d", ""),
    "vgg6": (VGG6, "conv0", ""),
    "winml": (WINML, "Conv_0", "--scale 1/255 --mean 0.5 --std 0.5"),
}
"""The networks that read CIFAR-10, their first convolutions, and what is done to the images."""
KINDS = (".h5", ".hdf5", ".keras", ".onnx")
INSPECTED_ONLY = ("style_candy_batch.onnx",)  # images of 720×720: too slow for more
FULL_RANK = "1000"  # more than any kernel has: each layer takes as many pairs as its rank
LEFT_OUT = {
    *("text", "notes", "remarks", "warnings", "repairs", "failures"),  # wording
    *("sha256", "source_sha256", "tools"),  # .keras files hold the time of writing
    *("timed", "cost", "cost_before", "cost_after"),  # the machine's
    *("sqnr_db", "max_abs_error", "value", "low", "high"),  # follow from what is kept
}
"""Keys that are not kept."""


def main() -> None:
    chosen = arguments()
    if chosen.compare:
        answers = (json.loads(path.read_text())["cases"] for path in chosen.compare)
        old, new = ({x: y[x] for x in y if fnmatch(x, chosen.only)} for y in answers)
        names = dict(pair.split("=", 1)[::-1] for pair in chosen.renamed)
        sys.exit(1 if print_differences(old, new, names, chosen.ignore) else 0)
    record(chosen)


def arguments() -> argparse.Namespace:
    """Return the options of both uses."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    option = parser.add_argument
    option("--models", type=Path, help="folder with keras/ and onnx/")
    option("--data", type=Path, help="CIFAR-10 as x_train, y_train, x_test, y_test")
    option("--program", help="the dsconvert to ask")
    option("-o", "--output", type=Path, help="the snapshot, a .json file")
    option("--only", default="*", metavar="PATTERN", help="some cases, such as 'plan/*'")
    option("--timeout", type=float, default=300, help="seconds for each command")
    option("--compare", type=Path, nargs=2, metavar=("OLD", "NEW"))
    option("--ignore", action="append", default=[], metavar="KEY", help="do not compare it")
    option("--renamed", action="append", default=[], metavar="OLD=NEW", help="a key's new name")
    chosen = parser.parse_args()
    if not chosen.compare and None in (chosen.models, chosen.data, chosen.program, chosen.output):
        parser.error("recording needs --models, --data, --program and -o")
    for path in chosen.compare or (chosen.models, chosen.data):
        if not path.exists():
            parser.error(f"{path} does not exist")
    return chosen


def record(chosen: argparse.Namespace) -> None:
    """Run the cases that the output does not have, and write the output after each."""
    words = ((word, Path(word)) for word in split(chosen.program))
    program = [str(path.absolute()) if path.exists() else word for word, path in words]
    models, data = chosen.models.absolute(), chosen.data.absolute()
    empty: dict[str, Any] = {"program": program, "cases": {}}
    kept = json.loads(chosen.output.read_text()) if chosen.output.exists() else empty
    if kept["program"] != program:
        sys.exit(f"{chosen.output} is of {' '.join(kept['program'])}: name another -o")
    for case, commands in cases(models, data):
        have = kept["cases"].get(case, {"": {"exit": None}}).values()
        if all(x["exit"] is not None for x in have) or not fnmatch(case, chosen.only):
            continue
        started = time.perf_counter()
        kept["cases"][case] = answers = run(commands, program, chosen.timeout, models, data.parent)
        write_json(chosen.output, kept)
        exits = ", ".join(f"{step}: {answer['exit']}" for step, answer in answers.items())
        print(f"{case}: exit codes of {exits} ({time.perf_counter() - started:.0f} s)", flush=True)


def cases(models: Path, data: Path) -> Iterator[tuple[str, Commands]]:
    """All that is asked: a name, and commands of which later ones read files of earlier ones."""
    found = (path for kind in ("keras", "onnx") for path in sorted((models / kind).rglob("*")))
    for path in (path for path in found if path.suffix in KINDS):
        name, model = path.relative_to(models), quote(str(path))
        yield f"inspect/{name}", [f"inspect {model}"]
        if path.name not in INSPECTED_ONLY:
            yield f"full rank/{name}", at_full_rank(model)
            yield f"tflite/{name}", [f"export {model} -o float.tflite"]
    for short, (file, stem, scaled) in CLASSIFIERS.items():
        model, small = quote(str(models / file)), f"small{ending_of(file)}"
        images, test = (f"--{x} {quote(str(data))} {scaled}" for x in ("calibration", "data"))
        plan = f"plan {model} -o plan.json --target-macs 0.5x --samples 200 {images}"
        yield f"plan/{short}", [plan]
        yield f"original/{short}", [f"evaluate {model} {test}"]
        with_stem = at_full_rank(model, f"--include '*' --include {stem}")
        yield f"full rank with stem/{short}", with_stem
        fit = f"rewrite {model} -o {small} --samples 300 {images}"
        compared = f"evaluate {small} --reference {model} {test}"
        yield f"fitted 2 pairs/{short}", [f"{fit} --pairs 2", compared]
        yield f"fitted mobilenet/{short}", [f"{fit} --block mobilenet", compared]
        after_fit = [f"{fit} --pairs 1", compared]
        for form, kind in itertools.product(("float16", "int8"), ("tflite", "onnx")):
            made = f"-o out.{kind} --quantize {form} --samples 100 {images}"
            evaluate = f"evaluate out.{kind} {test}"
            yield f"original {form} {kind}/{short}", [f"export {model} {made}", evaluate]
            after_fit += [f"export {small} {made}", evaluate] if form == "int8" else []
        yield f"fitted 1 pair, then int8/{short}", after_fit


def at_full_rank(model: str, options: str = "") -> Commands:
    """Rewrite without loss, and compare the outputs."""
    full = f"full{ending_of(model)}"
    rewrite = f"rewrite {model} -o {full} --method svd --pairs {FULL_RANK} {options}"
    return [rewrite, f"verify {model} {full} --samples 16"]


def ending_of(model: str) -> str:
    """Return the ending of what a model is rewritten to: a file of its own kind."""
    return ".onnx" if ".onnx" in model else ".keras"


def run(
    commands: Commands, program: Sequence[str], timeout: float, *folders: Path
) -> dict[str, dict[str, Any]]:
    """Run the commands up to the first that fails; files in folders lose their paths."""
    answers: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        own = {key: x for key, x in os.environ.items() if key != "PYTHONPATH"}
        own |= dict.fromkeys(("DSCONVERT_CACHE", "XDG_CACHE_HOME"), str(folder / "cache"))
        own |= {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        where: dict[str, Any] = {"cwd": folder, "env": own, "text": True}
        where["start_new_session"] = True  # the program's workers end with it
        for number, command in enumerate(commands, 1):
            line = [*program, *split(command), "--json", "--quiet", "--seed", "0"]
            process = subprocess.Popen(line, stdout=PIPE, stderr=PIPE, **where)
            try:
                out, told = process.communicate(timeout=timeout)
                code: int | None = process.returncode
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
                code, out, told = None, "", ""
            for place in (folder, *folders):
                out, told = out.replace(f"{place}/", ""), told.replace(f"{place}/", "")
            problem = "timeout" if code is None else error(told) if code else ""
            step = f"{number} {split(command)[0]}"
            answers[step] = {"exit": code, "error": problem, "answer": read(out)}
            if code != 0:
                break
    return answers


def error(told: str) -> str:
    """Give the class of an error, and its first line: what the user reads, or what a bug raises."""
    if "Traceback (most" in told:
        return f"traceback: {told.strip().splitlines()[-1].split(':')[0]}"
    kind = "usage" if "Usage: " in told else "refused"
    for line in told.splitlines():
        if line.startswith("Error: "):
            return f"{kind}: {line.removeprefix('Error: ')}"
        if line.startswith('{"schema":"dsconvert.error/'):
            return f"{kind}: {json.loads(line)['message'].splitlines()[0]}"
    return f"{kind}: without a word"


def read(out: str) -> Any:
    """Return the answer of a command without the keys LEFT_OUT, or its text if that is not JSON."""
    try:
        return json.loads(out, object_hook=lambda x: {k: x[k] for k in x if k not in LEFT_OUT})
    except ValueError:
        return out


if __name__ == "__main__":
    main()
