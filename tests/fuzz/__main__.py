"""Give damaged files to the commands until the time is up: ``python tests/fuzz --seconds 60``.

Inputs are made and read in processes forked from this one, which has the libraries loaded: one
after the other, or, where a native parser reads them, each in a process of its own. A crash costs
one input. What must not happen is kept in build/fuzz/found, with how to see it again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import select
import shutil
import signal
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

MEMORY = 2 << 30
"""Bytes that an input may take above what the libraries take."""
SECONDS = 20
"""Of processor time that an input may take."""
WAIT = 90
"""Seconds on the clock, where others use the machine too."""
_EVERY = 50
"""Milliseconds between two looks at an input."""
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
    for number, form in enumerate(chosen):
        _import_all(form, sound, options.folder.resolve() / "first")
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


def _import_all(form: Form, sound: Path, place: Path) -> None:
    """Import here what the commands import, so that no input has to."""
    for module in form.needs:
        importlib.import_module(module)
    for words in form.words(str(sound / form.like), sound):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        child = os.fork()
        if child == 0:
            inside.modules(words, place)
        os.waitpid(child, 0)
        for name in (place / "modules").read_text().split():
            with suppress(Exception):  # some exist under other names only
                importlib.import_module(name)
    shutil.rmtree(place, ignore_errors=True)


def _campaign(
    form: Form, sound: Path, found: Path, options: argparse.Namespace, seconds: float
) -> int:
    """Run one format's inputs and print its line; 1 if anything was found."""
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
        seeds = range(seed, seed + min(form.together, left))
        state = _state(sound)
        for one in _inputs(form, seeds, sound, places):
            seed = one.seed + 1
            if one.kind is not None:
                lost = not set(state) <= set(_state(sound))  # what is new lies beside its model
                kind = "lost" if lost else one.kind
                counts[kind] += 1
                most_s, most_mib = max(most_s, one.seconds), max(most_mib, one.size / 2**20)
                if kind in BAD and kept[kind] < 40:
                    kept[kind] += 1
                    _keep(form, one.seed, one.place, found / f"{form.name}-{kind}-{one.seed}")
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
    """What became of one input: its kind is None where none could be made."""

    seed: int
    place: Path
    kind: str | None
    seconds: float
    size: float


def _inputs(form: Form, seeds: Sequence[int], sound: Path, places: Path) -> Iterator[_Input]:
    """Run inputs in one child, until one ends it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        os.close(read)
        inside.work(form, seeds, sound, places, write)
    os.close(write)
    base, spent = _used(os.getpid())[0], 0.0
    seed, start, most, stopped = seeds[0], time.monotonic(), 0.0, ""
    ends = select.poll()
    ends.register(read, select.POLLIN | select.POLLHUP)
    rest = b""
    while True:
        if ends.poll(_EVERY):
            piece = os.read(read, 4096)
            if not piece:
                break
            *lines, rest = (rest + piece).split(b"\n")
            for line in lines:
                number, _, code = line.partition(b" ")
                if code:
                    size, now = _used(child)
                    yield _ended(seed, places, int(code), now - spent, max(most, size) - base)
                else:
                    seed, spent = int(number), _used(child)[1]
                start, most = time.monotonic(), 0.0
            continue
        used = list(_family(child))
        most = max([most, *(size for size, _ in used)])
        if most - base > MEMORY:
            stopped = "memory"
        elif sum(now for _, now in used) - spent > SECONDS or time.monotonic() - start > WAIT:
            stopped = "hang"
        if stopped:
            os.killpg(child, signal.SIGKILL)
            break
    os.close(read)
    _, status, used_in_all = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code != 0:
        seconds = used_in_all.ru_utime + used_in_all.ru_stime - spent
        yield _ended(seed, places, code, seconds, most - base, stopped)


def _ended(
    seed: int, places: Path, code: int, seconds: float, size: float, stopped: str = ""
) -> _Input:
    """Look at what an input has left."""
    place = places / str(seed)
    kind: str | None = stopped or None
    if (place / inside.READY).exists():
        told = [(place / name).read_text(errors="replace") for name in ("out", "err")]
        kind = stopped or _kind(code, *told)
    return _Input(seed, place, kind, seconds, max(0.0, size))


def _family(group: int) -> Iterator[tuple[float, float]]:
    """Of each process of a group: bytes, and processor seconds that it has taken.

    Of /proc itself: psutil takes as long as most inputs do.
    """
    for name in os.listdir("/proc"):  # noqa: PTH208 - twenty times a second
        with suppress(OSError):
            if name.isdigit() and os.getpgid(int(name)) == group:
                yield _used(int(name))


def _used(process: int) -> tuple[float, float]:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    ticks = int(fields[11]) + int(fields[12])
    return float(int(fields[21]) * os.sysconf("SC_PAGE_SIZE")), ticks / os.sysconf("SC_CLK_TCK")


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


def _keep(form: Form, seed: int, place: Path, folder: Path) -> None:
    """Keep an input with what was said, and how to see it again."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place, folder, symlinks=True, ignore=shutil.ignore_patterns("tmp", "cache"))
    (folder / "again").write_text(f"make fuzz FORMATS={form.name} SEED={seed} INPUTS=1\n")


if __name__ == "__main__":
    sys.exit(main())
