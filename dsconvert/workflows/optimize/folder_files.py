"""The files of a run's folder that say what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dsconvert.base.files import sha256
from dsconvert.base.json_text import indented
from dsconvert.base.messages import note

from ..outputs import write_json
from .ledger import write_bytes, write_text

if TYPE_CHECKING:
    from dsconvert.models.data.preprocess import Preprocessing

    from ..results.optimized import OptimizeResult
    from .work import Work

REPORT, PAGE, MANIFEST, RECIPE, PROGRAM = (
    "report.json",
    "report.html",
    "manifest.json",
    "recipe.toml",
    "run.py",
)


def write_results(work: Work, result: OptimizeResult, preprocessing: Preprocessing | None) -> None:
    """Write report.json and all that is made from it, each in one step."""
    from .native_programs import native_programs
    from .recipe_file import recipe_text
    from .run_program import program_text

    folder = work.folder
    write_json(result, folder / REPORT, overwrite=True)
    write_text(folder / RECIPE, recipe_text(work, preprocessing))
    if result.recommended:
        best = next(file for file in result.files if file.name == result.recommended)
        write_text(folder / PROGRAM, program_text(best, result.preprocessing))
        for name, text in native_programs(best, result.preprocessing).items():
            write_text(folder / name, text)
    manifest = {
        "schema": "dsconvert.manifest/1",
        "model": {"path": result.model, "sha256": result.sha256},
        "data": result.data,
        "seed": work.options.seed,
        "options": vars(work.options),
        "environment": result.environment,
        "stages": result.stages,
        "files": _hashes(work),
    }
    _write_page(work)
    encoded = indented(manifest)
    write_bytes(folder / MANIFEST, encoded + b"\n")


def _write_page(work: Work) -> None:
    """Write report.html; where what draws its charts is missing, say so."""
    from dsconvert.base.errors import MissingExtra

    from ..report import report

    try:
        report(work.folder)
    except MissingExtra as error:
        note(f"no {PAGE}: {error.words.message} {error.words.hint}")


def _hashes(work: Work) -> dict[str, str]:
    found = {}
    for place in ("", "files", "models"):
        for path in sorted((work.folder / place).iterdir()):
            known = path.is_file() and not path.name.startswith(".") and path.name != MANIFEST
            if known and path.suffix not in (".txt", ".html"):
                found[str(path.relative_to(work.folder))] = sha256(path)
    return found
