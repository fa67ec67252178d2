"""All benchmarks, one after another: `make bench`.

    python benchmarks/run_all.py [NAME…] [--quick] [--fresh] [--models FOLDER] [--data cifar10.npz]
        [--mnist mnist.npz] [--cifar100 cifar100.npz]

A script that has finished with the same options is not run again unless --fresh says so. At the end
all tables are joined in results/tables.md and the charts drawn into results/charts. --quick runs
what needs nothing but scikit-learn's digits.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from common import QUICK, RESULTS, machine, write_json

HERE = Path(__file__).parent
WITH_DATA = (
    "published",
    "latency",
    "accuracy",
    "denoising",
    "distillation",
    "finetune",
    "optimizers",
    "onnx_models",
    "planner",
    "plan_ranking",
    "layer_pairs",
    "quantize",
    "int8_ranges",
    "profiler",
    "npu",
    "verification",
    "large",
    "peers",
)
"""Scripts that read data."""
READ = {"published": ("models", "data", "mnist", "cifar100"), "large": ("cifar100",)}
"""Which of the options that name data; all others read --models and --data."""
OPTIONAL = {("published", "cifar100")}
"""Without these a script leaves a part out, and says so."""
RESUMED = ("published", "large")
"""Scripts that keep their own steps, and take --fresh."""
NAMED = ("peers",)
"""Runs only when it is named: it installs other people's tools, 8 GB of them."""
ALONE = ("blas_threads", "blocks", "speed", "scale", "onnx_scale")


def main() -> None:
    chosen = arguments()
    folder = QUICK if chosen.quick else RESULTS
    failed = []
    for name, options in scripts(chosen):
        marker = folder / name / "finished.json"
        if marker.exists() and not chosen.fresh:
            kept = json.loads(marker.read_text())
            if kept["options"] == options:
                print(f"{name}: finished on {kept['ended']}, kept (--fresh runs it again)")
                continue
        print(f"\n## {name}", flush=True)
        started = time.perf_counter()
        again = ["--fresh"] if chosen.fresh and name in RESUMED else []
        command = [sys.executable, str(HERE / f"{name}.py"), *options, *again]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
            continue
        record = {
            "options": options,
            "ended": time.strftime("%Y-%m-%d %H:%M"),
            "seconds": round(time.perf_counter() - started),
            "machine": machine(),
        }
        write_json(marker, record)
    drawn = [sys.executable, str(HERE / "charts.py"), *(["--quick"] if chosen.quick else [])]
    if subprocess.run(drawn, check=False).returncode:
        failed.append("charts")
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = Path("../shared")
    known = [*WITH_DATA, *ALONE]
    parser.add_argument(
        "names", nargs="*", choices=[*known, []], metavar="NAME", help="only these scripts"
    )
    parser.add_argument("--models", type=Path, default=shared / "models")
    parser.add_argument("--data", type=Path, default=shared / "data/cifar10.npz")
    parser.add_argument("--mnist", type=Path, default=shared / "data/mnist.npz")
    parser.add_argument("--cifar100", type=Path, default=shared / "data/cifar100.npz")
    parser.add_argument("--quick", action="store_true", help="what needs no other data")
    parser.add_argument("--fresh", action="store_true", help="run what is finished again")
    return parser.parse_args()


def scripts(chosen: argparse.Namespace) -> list[tuple[str, list[str]]]:
    """Return what to run, with its options; what lacks its data is left out, and said so."""
    if chosen.quick:
        return [("published", ["--quick"])]
    found: list[tuple[str, list[str]]] = []
    for name in WITH_DATA:
        paths = {key: getattr(chosen, key) for key in READ.get(name, ("models", "data"))}
        lacking = [
            str(path)
            for key, path in paths.items()
            if not path.exists() and (name, key) not in OPTIONAL
        ]
        if lacking:
            print(f"{name}: left out, there is no {', '.join(lacking)}")
        else:
            options = [word for key, path in paths.items() for word in (f"--{key}", str(path))]
            found.append((name, options))
    found += [(name, []) for name in ALONE]
    wanted = chosen.names or [name for name, _ in found if name not in NAMED]
    return [(name, own) for name, own in found if name in wanted]


if __name__ == "__main__":
    main()
