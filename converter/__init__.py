"""The rewrite: trained convolutions become depthwise + pointwise pairs.

`inspect` shows what a model's convolutions are and what rewriting them would do; `prospect` finds
out what each may become, what that costs and what it harms; `rewrite` does it and returns a
`Rewritten`: the new model, the plan and a report.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.types import Plan
    from .inspection import Inspection, inspect
    from .planner import prospect
    from .rewriting import Rewritten, rewrite

_HOME = {
    "Inspection": ".inspection",
    "Plan": ".core.types",
    "Rewritten": ".rewriting",
    "inspect": ".inspection",
    "prospect": ".planner",
    "rewrite": ".rewriting",
}

__all__ = ["Inspection", "Plan", "Rewritten", "inspect", "prospect", "rewrite"]


def __getattr__(name: str) -> Any:
    # Looked up late: the command line lives in this package and must start without numpy.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name], __name__), name)
