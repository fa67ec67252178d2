"""Run the sessions that the pages show, and put what they print there: ``python docs/sessions.py``.

A session is a block of commands between two marks of a page::

    <!-- session -->
    ```console
    $ dsconvert inspect model.h5
    …
    ```
    <!-- end -->

All sessions run one after the other in one folder, which holds ``model.h5``, a small network that
was trained on scikit-learn's digits, and ``digits.npz``. A session marked ``session: long`` takes
minutes. Tests run the others, and look whether every command that a page shows can be said so.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
COMMANDS = ROOT / "docs" / "commands"
ORDER = (
    *("init", "inspect", "plan", "sweep", "rewrite", "finetune", "evaluate", "export", "verify"),
    *("import", "profile", "compare", "zoo", "devices", "doctor", "optimize", "report"),
)
"""Of the pages: a session reads what those before it wrote."""
_SESSION = re.compile(
    r"(?P<mark><!-- session(?P<long>: long)? -->)\n```console\n(?P<text>.*?)```\n<!-- end -->",
    re.DOTALL,
)


class Session(NamedTuple):
    """One block of a page.

    Attributes:
        page: The file.
        commands: What follows the prompts.
        long: Whether it takes minutes.
    """

    page: Path
    commands: list[str]
    long: bool


def sessions() -> Iterator[Session]:
    """Yield the sessions of all pages, in their order."""
    for name in ORDER:
        page = COMMANDS / f"{name}.md"
        for found in _SESSION.finditer(page.read_text(encoding="utf-8")):
            yield Session(page, commands_in(found["text"]), bool(found["long"]))


def commands_in(text: str) -> list[str]:
    """Return what follows the prompts, with continued lines joined."""
    joined = text.replace("\\\n", " ")
    return [" ".join(line.split()) for line in re.findall(r"^\$ (.*)$", joined, re.MULTILINE)]


def prepare(folder: Path, epochs: int = 5, most: int | None = None) -> None:
    """Write the data, at most so many images of either kind, and the trained network."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from digits import train_digits, write_digits

    from dsconvert.base.quiet import captured

    write_digits(folder / "digits.npz", most=most)
    with captured():  # Keras calls .h5 legacy
        train_digits(folder / "digits.npz", folder / "model.h5", epochs=epochs)


def main() -> None:
    """Run what is asked for, or all pages, and write what the commands print into the pages."""
    asked = sys.argv[1:] or ORDER
    folder = ROOT / "build" / "sessions"
    if not (folder / "model.h5").exists():
        folder.mkdir(parents=True, exist_ok=True)
        prepare(folder)
    for name in asked:
        page = COMMANDS / f"{name}.md"
        text = page.read_text(encoding="utf-8")
        page.write_text(_SESSION.sub(lambda found: _run(found, folder), text), encoding="utf-8")


def _run(found: re.Match[str], folder: Path) -> str:
    shown = []
    for command in commands_in(found["text"]):
        program, _, rest = command.partition(" ")
        words = [str(Path(sys.executable).with_name(program)), *shlex.split(rest), "-q"]
        print("$", command, flush=True)
        done = subprocess.run(
            " ".join(map(_quoted, words)),
            shell=True,  # a session may write to a file
            cwd=folder,
            capture_output=True,
            text=True,
            env=os.environ | {"COLUMNS": "80", "NO_COLOR": "1"},
        )
        if done.returncode not in (0, 1):
            sys.exit(done.stderr)
        print(done.stdout + done.stderr, flush=True)
        shown.append(f"$ {_folded(command)}\n{done.stdout.rstrip()}".rstrip())
    return f"{found['mark']}\n```console\n" + "\n\n".join(shown) + "\n```\n<!-- end -->"


def _quoted(word: str) -> str:
    return word if word == ">" else shlex.quote(word)


def _folded(command: str, width: int = 88) -> str:
    """Break a long command into lines before its options."""
    lines = [""]
    for part in re.split(r" (?=-)", command):
        if len(lines[-1]) + len(part) > width:
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n".join(lines)


if __name__ == "__main__":
    main()
