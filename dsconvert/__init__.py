"""Rewrite trained convolutions, fine-tune, export, quantize and profile the result.

A typical run::

    import dsconvert as ds

    planned = ds.plan("model.h5", calibration="images.npz", goals=ds.Goals(latency="0.5x"))
    small = ds.rewrite("model.h5", plan=planned, calibration="images.npz")
    tuned = ds.finetune(small.model, "model.h5", "images.npz")
    ds.export(tuned.model, "model.tflite", ds.ExportOptions(quantize="int8"),
              calibration="images.npz")
    print(ds.profile("model.tflite"))

A model is a path, a `keras.Model`, an `onnx.ModelProto`, or what `load` returns. Results print as
tables, and ``to_dict()`` gives them as plain values. Importing this is cheap: everything is looked
up when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from inspect import isfunction
from typing import TYPE_CHECKING, Any

from .base.keras_settings import with_own_settings

if TYPE_CHECKING:
    from .base.errors import DsconvertError, GateFailed, InputError, MissingExtra
    from .converter.core.planning.goals import Goals
    from .deploy.costs.target import Target
    from .deploy.verification.tolerances import Thresholds
    from .models.data.datasets import Data
    from .models.data.preprocess import Preprocessing
    from .models.training.settings import FinetuneSettings
    from .workflows.compare import compare
    from .workflows.data_for import load_data
    from .workflows.devices import devices, doctor
    from .workflows.evaluate import evaluate
    from .workflows.export import export
    from .workflows.export_options import ExportOptions
    from .workflows.finetune import finetune
    from .workflows.import_onnx import import_onnx
    from .workflows.inspect import inspect
    from .workflows.load import load
    from .workflows.model_files import ModelFile
    from .workflows.optimize.optimize import optimize
    from .workflows.optimize.options import OptimizeOptions
    from .workflows.plan import AccuracyGoal, plan
    from .workflows.plan_session import PlanOptions
    from .workflows.profile import ProfileOptions, profile
    from .workflows.report import report
    from .workflows.rewrite import RewriteOptions, rewrite
    from .workflows.sweep import sweep
    from .workflows.verify import verify

_PLACES = {
    "base.errors": ("DsconvertError", "GateFailed", "InputError", "MissingExtra"),
    "converter.core.planning.goals": ("Goals",),
    "deploy.costs.target": ("Target",),
    "deploy.verification.tolerances": ("Thresholds",),
    "models.data.datasets": ("Data",),
    "models.data.preprocess": ("Preprocessing",),
    "models.training.settings": ("FinetuneSettings",),
    "workflows.compare": ("compare",),
    "workflows.data_for": ("load_data",),
    "workflows.devices": ("devices", "doctor"),
    "workflows.evaluate": ("evaluate",),
    "workflows.export": ("export",),
    "workflows.export_options": ("ExportOptions",),
    "workflows.finetune": ("finetune",),
    "workflows.import_onnx": ("import_onnx",),
    "workflows.inspect": ("inspect",),
    "workflows.load": ("load",),
    "workflows.model_files": ("ModelFile",),
    "workflows.optimize.optimize": ("optimize",),
    "workflows.optimize.options": ("OptimizeOptions",),
    "workflows.plan": ("AccuracyGoal", "plan"),
    "workflows.plan_session": ("PlanOptions",),
    "workflows.profile": ("ProfileOptions", "profile"),
    "workflows.report": ("report",),
    "workflows.rewrite": ("RewriteOptions", "rewrite"),
    "workflows.sweep": ("sweep",),
    "workflows.verify": ("verify",),
}
_MODULE_OF = {name: module for module, names in _PLACES.items() for name in names}

__all__ = [
    "AccuracyGoal",
    "Data",
    "DsconvertError",
    "ExportOptions",
    "FinetuneSettings",
    "GateFailed",
    "Goals",
    "InputError",
    "MissingExtra",
    "ModelFile",
    "OptimizeOptions",
    "PlanOptions",
    "Preprocessing",
    "ProfileOptions",
    "RewriteOptions",
    "Target",
    "Thresholds",
    "compare",
    "devices",
    "doctor",
    "evaluate",
    "export",
    "finetune",
    "import_onnx",
    "inspect",
    "load",
    "load_data",
    "optimize",
    "plan",
    "profile",
    "report",
    "rewrite",
    "sweep",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Look a public name up when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("dsconvert")
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'dsconvert' has no attribute {name!r}")
    found = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    if isfunction(found):
        found = with_own_settings(found)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    """Show what a user needs."""
    return __all__
