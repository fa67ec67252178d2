"""One file that holds the page: figures, charts, styles and the library that draws."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dsconvert.base.cache_folder import cache_folder
from dsconvert.base.errors import require
from dsconvert.base.files import replacing

from .. import formatting
from .charts import charts
from .words import PageWords

_HERE = Path(__file__).parent


def page(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of one run, or of two side by side, as HTML.

    Args:
        runs: Reports, as plain values.

    Raises:
        MissingExtra: If what draws the charts is not installed.
    """
    jinja2 = require("jinja2", "report", "to make report.html")
    template = _templates(jinja2).get_template("page.html")
    words = PageWords(runs)
    text: str = template.render(
        runs=runs,
        words=words,
        title=words.title,
        charts=charts(runs),
        style=(_HERE / "page.css").read_text(encoding="utf-8"),
        script=(_HERE / "page.js").read_text(encoding="utf-8"),
        library=_library(),
    )
    return text


@functools.cache
def _templates(jinja2: Any) -> Any:
    """Return what reads templates and keeps them, compiled: that takes as long as a page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE),
        autoescape=True,  # names in a model file are anybody's
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "kib": formatting.kib,
        "percent": lambda value: formatting.percent(value, 2),
        "ms": formatting.ms,
        "short": formatting.short,
    }
    return environment


def _library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, which the package holds.

    Bundling takes seconds: the script is kept in the cache.
    """
    vl_convert = require("vl_convert", "report", "to draw charts")
    kept = cache_folder() / f"vega-{vl_convert.__version__}-{_VEGA_LITE}.js"
    bundle = _sound(kept)
    if bundle is None:
        bundle = str(vl_convert.javascript_bundle(vl_version=_VEGA_LITE))
        content = bundle.encode()
        kept.parent.mkdir(parents=True, exist_ok=True)
        with replacing(kept, overwrite=True) as temporary:
            temporary.write_bytes(hashlib.sha256(content).hexdigest().encode() + b"\n" + content)
    return bundle.replace("</script", "<\\/script")


def _sound(path: Path) -> str | None:
    """Return what is kept in a file below its SHA-256; None where it is damaged or not there."""
    try:
        digest, _, content = path.read_bytes().partition(b"\n")
    except OSError:
        return None
    sound = digest.decode(errors="replace") == hashlib.sha256(content).hexdigest()
    return content.decode() if sound else None


_VEGA_LITE = "6.1"
"""The release that is bundled; the specifications name its schema."""
