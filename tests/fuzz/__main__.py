"""Give damaged files to the commands until the time is up: ``python tests/fuzz --seconds 60``.

Inputs are made and read in processes forked from this one, which has the libraries loaded: fifty
in one, one after the other. A crash costs one input. What must not happen is kept in
build/fuzz/found, with how to see it again.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import json
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))

import inside
import sound_files as files
from forms import Form, forms
from watching import Watch

TOGETHER = 50
"""Inputs that one process reads: what they share costs more than most of them."""
GOOD = ("ran", "gate", "refused")
BAD = ("crash", "traceback", "bug", "silent", "hang", "memory", "outside", "lost")
HEADS = ("inputs", *GOOD, *BAD, "most s", "most MiB")


def main() -> int:
    """Run a campaign; 1 if anything was found."""
    options = _options()
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3",
                   "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}  # fmt: skip
    sound = options.folder.resolve() / "sound"
    found = options.folder.resolve() / "found"
    known = forms()
    chosen = (
        [known[name] for name in options.formats.split(",")]
        if options.formats
        else [*known.values()]
    )
    files.make(sound, with_keras=any(form.name in ("h5", "keras", "tflite") for form in chosen))
    worst = 0
    print(f"{'format':<12}" + "".join(f"{head:>10}" for head in HEADS), flush=True)
    started = time.monotonic()
    cache = options.folder.resolve() / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    for number, form in enumerate(chosen):
        _import_all(form, sound, options.folder.resolve() / "first", cache)
        left = options.seconds - (time.monotonic() - started)
        worst |= _campaign(form, sound, found, options, left / (len(chosen) - number))
    return worst


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="For all formats together.")
    parser.add_argument("--formats", default="", help=f"Of {', '.join(forms())}; by default all.")
    parser.add_argument("--seed", type=int, default=0, help="Of the first input.")
    parser.add_argument("--inputs", type=int, default=10**9, help="The most per format.")
    parser.add_argument("--folder", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--results", type=Path, help="Add the counts to this file, as JSON lines.")
    return parser.parse_args()


def _import_all(form: Form, sound: Path, place: Path, cache: Path) -> None:
    """Import here what the commands import, and fill a cache, so that no input has to."""
    for module in form.needs:
        importlib.import_module(module)
    for words in form.words(str(sound / form.like), sound):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        child = os.fork()
        if child == 0:
            inside.modules(words, place, cache)
        os.waitpid(child, 0)
        for name in (place / "modules").read_text().split():
            with suppress(Exception):  # some exist under other names only
                importlib.import_module(name)
    shutil.rmtree(place, ignore_errors=True)
    gc.collect()
    gc.freeze()  # else the collector of each fork writes to, and with that copies, every page


def _campaign(
    form: Form, sound: Path, found: Path, options: argparse.Namespace, seconds: float
) -> int:
    """Run one format's inputs and print its line; 1 if anything was found."""
    cache = options.folder.resolve() / "cache"
    counts: Counter[str] = Counter()
    most_s = most_mib = 0.0
    kept: Counter[str] = Counter()
    end = time.monotonic() + seconds
    seed = options.seed
    while (left := options.inputs - (seed - options.seed)) > 0:
        if time.monotonic() > end and seed > options.seed:
            break
        places = options.folder.resolve() / f"now-{os.getpid()}"
        shutil.rmtree(places, ignore_errors=True)
        seeds = range(seed, seed + min(TOGETHER, left))
        state = _state(sound)
        for one in _inputs(form, seeds, sound, cache, places):
            seed = one.seed + 1
            if one.kind is not None:
                lost = not set(state) <= set(_state(sound))  # what is new lies beside its model
                kind = "lost" if lost else one.kind
                counts[kind] += 1
                most_s, most_mib = max(most_s, one.seconds), max(most_mib, one.size / 2**20)
                if kind in BAD and kept[kind] < 40:
                    kept[kind] += 1
                    _keep(form, one, found / f"{form.name}-{kind}-{one.seed}")
            if options.inputs == 1:
                _show(one.place)
            shutil.rmtree(one.place, ignore_errors=True)
        shutil.rmtree(places, ignore_errors=True)
    total = sum(counts.values())
    cells = (total, *(counts[one] for one in (*GOOD, *BAD)), round(most_s, 1), round(most_mib))
    print(f"{form.name:<12}" + "".join(f"{cell:>10,}" for cell in cells), flush=True)
    if options.results:
        with options.results.open("a") as file:
            file.write(json.dumps({"format": form.name, "first": options.seed,
                                   **dict(zip(HEADS, cells, strict=True))}) + "\n")  # fmt: skip
    return int(any(counts[one] for one in BAD))


def _show(place: Path) -> None:
    """Print the one input's command line and what it said."""
    for name in (inside.READY, "out", "err"):
        if (place / name).exists():
            print(f"{name}: {(place / name).read_text(errors='replace').strip()}")


def _state(sound: Path) -> tuple[tuple[str, int, int], ...]:
    """Sizes and times of the sound files, which nobody may change."""
    return tuple(
        (entry.name, entry.stat().st_size, entry.stat().st_mtime_ns)
        for entry in sorted(os.scandir(sound), key=lambda entry: entry.name)
    )


@dataclass(frozen=True)
class _Input:
    """What became of one input: its kind is None where none could be made.

    Its process read those from ``first`` on before it.
    """

    first: int
    seed: int
    place: Path
    kind: str | None
    seconds: float
    size: float


def _inputs(
    form: Form, seeds: Sequence[int], sound: Path, cache: Path, places: Path
) -> Iterator[_Input]:
    """Run inputs in one child, until one ends it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(read)
        inside.work(form, seeds, sound, cache, places, write)
    os.close(write)
    watch, seed = Watch(child), seeds[0]
    for line in watch.lines(read):
        number, _, told = line.partition(" ")
        if told:
            code, size = map(int, told.split())
            yield _ended(seeds[0], seed, places, code, watch.seconds, max(size, watch.size))
        else:
            seed = int(number)
            watch.begin()
    os.close(read)
    code, seconds = watch.end()
    if code != 0:
        yield _ended(seeds[0], seed, places, code, seconds, watch.size, watch.stopped)


def _ended(
    first: int, seed: int, places: Path, code: int, seconds: float, size: float, stopped: str = ""
) -> _Input:
    """Look at what an input has left."""
    place = places / str(seed)
    kind: str | None = stopped or None
    if (place / inside.READY).exists():
        told = [(place / name).read_text(errors="replace") for name in ("out", "err")]
        kind = stopped or _kind(code, *told)
    return _Input(first, seed, place, kind, seconds, max(0.0, size))


def _kind(code: int, out: str, err: str) -> str:
    """Name the end of a command."""
    if inside.OUTSIDE in err:
        return "outside"
    if code < 0:
        return "crash"
    if "Traceback (most recent call last)" in err or code == 99:
        return "traceback"
    if code == 70:
        return "bug"
    if code not in (0, 1, 2) or (code and not err.strip() and not out.strip()):
        return "silent"
    if code == 2 and not ("Error: " in err or "error" in err):
        return "silent"
    return {0: "ran", 1: "gate", 2: "refused"}[code]


def _keep(form: Form, one: _Input, folder: Path) -> None:
    """Keep an input with what was said, and how to see it again: alone, then after the others."""
    shutil.rmtree(folder, ignore_errors=True)
    kept_not = shutil.ignore_patterns("tmp", "cache")
    shutil.copytree(one.place, folder, symlinks=True, ignore=kept_not)
    again = f"make fuzz FORMATS={form.name} SEED="
    so_many = one.seed - one.first + 1
    (folder / "again").write_text(
        f"{again}{one.seed} INPUTS=1\n{again}{one.first} INPUTS={so_many}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
