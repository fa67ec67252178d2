"""Settings of the site: ``make docs``. Nothing is fetched while it is built or read."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

from pygments.lexers.special import TextLexer
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]

project = "dsconvert"
author = "The dsconvert authors"
release = version_of("dsconvert")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["example-run", "schema"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]  # included files begin at a heading of their own
nitpicky = False  # signatures name numpy's and Keras' classes, whose sites are not asked

html_theme = "furo"  # its fonts are the system's
html_title = f"dsconvert {release}"
html_copy_source = False

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

PAGES_OUTSIDE = {
    "../README.md": "index.md",
    "../CHANGELOG.md": "changes.md",
    "../CONTRIBUTING.md": "contributing.md",
    "../SECURITY.md": "security.md",
    "../benchmarks/RESULTS.md": "results.md",
}
"""Files of the repository that have a page of the site."""


def link_to_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Let links to files outside docs/ lead to their pages of the site."""
    depth = "../" * name.count("/")
    for path, page in PAGES_OUTSIDE.items():
        source[0] = source[0].replace(f"]({depth}{path}", f"]({depth}{page}")


def setup(app: Sphinx) -> None:
    """Connect the above."""
    app.connect("source-read", link_to_pages)
    app.add_lexer("mermaid", TextLexer)  # drawn on GitHub; text here, as drawing needs a script
    sys.path.insert(0, str(ROOT))
