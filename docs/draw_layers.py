"""Draw the packages and their imports in docs/architecture.md: ``python docs/draw_layers.py``.

The picture is read from the code: an arrow stands for at least one import. ``--check`` writes
nothing and ends with exit code 1 if the page is not current.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
LAYERS = (
    ("cli",),
    ("workflows",),
    ("deploy",),
    ("converter", "models"),
    ("formats",),
    ("base",),
)
_ROOMS = ("converter", "models", "deploy")


def imports() -> dict[tuple[str, str], int]:
    """Count, for each pair of top-level packages, the modules of one that import the other."""
    import grimp

    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "dsconvert_drawn"
        shutil.copytree(ROOT / "dsconvert", package)
        for room in _ROOMS:
            shutil.copytree(ROOT / room, package / room)
        for file in package.rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            file.write_text(re.sub(r"\bdsconvert\.", "dsconvert_drawn.", text), encoding="utf-8")
        sys.path.insert(0, folder)
        try:
            graph = grimp.build_graph("dsconvert_drawn", cache_dir=None)
        finally:
            sys.path.remove(folder)
    found: dict[tuple[str, str], set[str]] = {}
    for importer in graph.modules:
        for imported in graph.find_modules_directly_imported_by(importer):
            pair = (_package(importer), _package(imported))
            if all(pair) and pair[0] != pair[1]:
                found.setdefault(pair, set()).add(importer)
    return {pair: len(modules) for pair, modules in found.items()}


def _package(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def mermaid(arrows: set[tuple[str, str]]) -> str:
    """Return the picture as a Mermaid flowchart, which GitHub draws.

    An arrow that follows from others through the layer below is left out, as in a Hasse diagram.
    """
    order = {name: level for level, layer in enumerate(LAYERS) for name in layer}
    lines = ["flowchart TD"]
    lines += [f"    {name}" for layer in LAYERS for name in layer]
    shown = {
        (a, b)
        for a, b in arrows
        if a in order
        and b in order
        and not any((a, c) in arrows and (c, b) in arrows for c in order if c not in (a, b))
    }
    lines += [f"    {a} --> {b}" for a, b in sorted(shown, key=lambda p: (order[p[0]], p))]
    return "\n".join(lines)


def page(text: str) -> str:
    """Return the page with the picture put between its marks."""
    picture = f"```mermaid\n{mermaid(set(imports()))}\n```\n"
    marked = re.compile(r"(<!-- drawn from the imports -->\n).*?(<!-- end -->)", re.DOTALL)
    return marked.sub(lambda match: match[1] + picture + match[2], text)


def main() -> int:
    """Write the page, or check it."""
    text = PAGE.read_text(encoding="utf-8")
    drawn = page(text)
    if "--check" in sys.argv[1:]:
        return int(drawn != text)
    PAGE.write_text(drawn, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
