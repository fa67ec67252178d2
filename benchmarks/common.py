"""What the benchmarks share: where the models and data are, the machine, tables and results.

Every table is kept as JSON while it is printed: results/<script>/<title>.json. `make bench` skips
scripts that are finished, and draws its charts from these files.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.filterwarnings("ignore")

RESULTS = Path(__file__).parent / "results"
"""Left out of the repository: figures of whoever ran them."""
QUICK = RESULTS / "quick"
"""What quick runs on small data give; never mixed with the others."""
RESNET8 = "keras/mlperf_tiny_resnet8_cifar10.h5"
VGG6 = "keras/vgg6_cifar10.h5"


def arguments(description: str | None, *parts: str, **lists: str) -> argparse.Namespace:
    """Return the options of every benchmark; one of several parts can be left out with --only.

    Args:
        description: What ``--help`` says.
        parts: The names that ``--only`` takes.
        lists: More options that take several values, with their defaults: ``seeds="0,1"``.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--models",
        type=Path,
        default=Path("../shared/models"),
        help=f"folder with {RESNET8} (MLPerf Tiny), {VGG6}, onnx/…",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("../shared/data/cifar10.npz"),
        help="CIFAR-10 as x_train, y_train, x_test, y_test (uint8)",
    )
    if parts:
        parser.add_argument("--only", default=",".join(parts), help="some of: %(default)s")
    for name, several in lists.items():
        parser.add_argument(f"--{name}", default=several, help="by default %(default)s")
    chosen = parser.parse_args()
    for path in (chosen.models, chosen.data):
        if not path.exists():
            parser.error(f"{path} does not exist; say where the models and the data are")
    return chosen


def machine() -> str:
    """Return one line about where the figures come from."""
    from dsconvert.deploy.runner.machine import cpu_name

    packages = ("tensorflow-cpu", "keras", "ai-edge-litert", "onnxruntime", "numpy")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{cpu_name()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    folder: Path | None = None,
) -> None:
    """Print a Markdown table, row by row as they come, and keep it as JSON.

    Args:
        title: Above it.
        columns: Their names.
        rows: The cells.
        folder: Where the JSON goes; by default results/<script>.
    """
    print(f"\n### {title}\n")
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    kept: list[list[str]] = []
    for row in rows:
        print(f"| {' | '.join(map(str, row))} |", flush=True)
        kept.append(list(map(str, row)))
    record = {"title": title, "columns": list(columns), "rows": kept, "machine": machine()}
    write_json((folder or RESULTS / Path(sys.argv[0]).stem) / f"{slug(title)}.json", record)


def slug(title: str) -> str:
    """A title as a file's name: "Without training (stem kept)" is without-training-stem-kept."""
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:80]


def write_json(path: Path, record: Any) -> None:
    """Write a record whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".writing")
    temporary.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    temporary.replace(path)


class Used(NamedTuple):
    """What a command took.

    Attributes:
        code: Its exit code; negative: the signal that ended it.
        peak: The most memory that it or a child of its had, in bytes.
        cpu: Processor seconds, its children's too.
        wall: Seconds from its start to its end.
    """

    code: int
    peak: int
    cpu: float
    wall: float


def used_by(command: Sequence[str]) -> Used:
    """Run a command in a process of its own, without its output, and return what it took."""
    started = time.perf_counter()
    nowhere = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    child = os.posix_spawn(command[0], command, os.environ, file_actions=nowhere)
    _, status, spent = os.wait4(child, 0)
    wall = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    return Used(code, spent.ru_maxrss * 1024, spent.ru_utime + spent.ru_stime, wall)


def dsconvert(*words: object) -> list[str]:
    """Return the command that runs dsconvert with these words."""
    return [sys.executable, "-c", "from dsconvert.cli import main; main()", *map(str, words)]


def images(data: Path, count: int = 1000, seed: int = 0) -> np.ndarray[Any, Any]:
    """Unlabelled calibration images, float32 0–255."""
    x = np.load(data)["x_train"]
    chosen = np.random.default_rng(seed).choice(len(x), count, replace=False)
    return x[chosen].astype(np.float32)


def accuracy(model: Any, data: Path) -> float:
    """Top-1 of a Keras model or of a file on the test images, in percent."""
    import dsconvert as ds

    result = ds.evaluate(model, data)
    assert result.top1 is not None
    return 100 * result.top1.value
