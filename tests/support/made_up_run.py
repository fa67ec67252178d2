"""The report of a run that nobody made: every part of the page has something to show."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HOSTILE = "</script><img src=x onerror=alert(1)>"
"""A layer's name, as anybody may put it into a model file."""


def _file(name: str, model: str, form: str, time: float, score: float, size: int) -> dict[str, Any]:
    metric = {
        **{"name": "top1", "title": "top-1", "unit": "share", "larger_is_better": True},
        **{"value": score, "low": score - 0.02, "high": score + 0.02, "interval": "wilson"},
        **{"samples": 500, "reason": ""},
    }
    fidelity = {
        **{"name": "scores", "finite": True, "sqnr_db": 31.2, "relative_error": 0.03},
        **{"max_abs_error": 0.1, "kl_nats": 0.01, "top1_agreement": 0.98},
        **{"reference_classes": 10, "measure": _measure()},
    }
    operators = [
        {"name": f"conv/{kind}", "type": "CONV_2D", "p50_ms": time / 4, "share": 0.25, "kind": kind}
        for kind in ("convolution", "depthwise", "pointwise", "dense")
    ]
    return {
        **{"name": name, "model": model, "form": form, "failure": "", "sha256": "0" * 64},
        **{"command": f"dsconvert export model.keras -o run/files/{name}", "size_bytes": size},
        "macs": 1_000_000 if model == "original" else 250_000,
        "timing": {
            **{"unit": "ms", "value": time, "p90": 1.1 * time, "ratio": time},
            **{"low": 0.97 * time, "high": 1.03 * time, "verdict": "faster"},
        },
        **{"timing_failure": "", "score": metric, "fidelity": [fidelity], "loss": 0.9 - score},
        **{"verified": True, "failures": [], "operators": operators, "notes": ["a note"]},
    }


def _measure() -> dict[str, Any]:
    group = {
        **{"channels": [[0, 9]], "peak": 1.0, "sqnr_db": 31.0, "variation_db": 31.0},
        **{"spread": 1.0, "noise": 0.03, "probabilities": True},
    }
    return {
        **{"name": "scores", "axis": 1, "channels": 10, "samples": 500, "positions": 1},
        **{"peak": 1.0, "not_finite": 0, "bad_channels": [], "groups": [group]},
        **{"constant": None, "classes": None, "defects": []},
    }


def made_up_run(**changed: Any) -> dict[str, Any]:
    """Return the content of a report.json."""
    failed = _file("rewritten-float16.tflite", "rewritten", "tflite-float16", 1.0, 0.9, 1)
    failed |= {"failure": "its outputs are not finite", "timing": None, "score": None}
    cost = {"value": 1.0, "ratio_low": 0.9, "ratio_high": 1.1, "faster": True}
    layer = {"name": "stem", "becomes": "", "before": cost, "after": None, "data_error": None}
    layers = [
        layer | {"reason": "a stem of 3 input channels", "output_error": None},
        layer
        | {"name": HOSTILE, "becomes": "2 × depthwise-first", "reason": "", "data_error": 0.03}
        | {"after": cost | {"value": 0.3}, "output_error": 0.01},
    ]
    epochs = [
        {"epoch": n, "loss": None if n == 0 else 0.2 / n, "harm": 0.3 / (n + 1), "seconds": 1.0}
        | {"fidelity": []}
        for n in range(3)
    ]
    whole = _file("", "original", "", 1.0, 0.9, 1)["score"]
    return {
        **{"schema": "dsconvert.optimized/1", "model": "model.keras", "sha256": "1" * 64},
        **{"data": "images.npz", "folder": "run", "dry": False, "target_latency": "0.5x"},
        **{"max_drop": "1%", "missed": "", "rewritten": True, "not_rewritten": ""},
        **{"loss_of": "top-1", "loss_unit": "share", "original": whole},
        "potential": {
            **{"convolutions": 2, "replaceable": 1, "share": 0.9, "of": "MACs"},
            **{"at_most": 4.0, "pays": True},
        },
        **{"baseline": "original-float32.tflite", "recommended": "rewritten-int8.tflite"},
        "why": "4.00× as fast",
        "files": [
            _file("original-float32.tflite", "original", "tflite-float32", 1.0, 0.9, 400_000),
            _file("rewritten-float32.tflite", "rewritten", "tflite-float32", 0.4, 0.895, 120_000),
            _file("rewritten-int8.tflite", "rewritten", "tflite-int8", 0.25, 0.894, 50_000),
            failed,
        ],
        **{"layers": layers, "unit": "ms", "target": "LiteRT float32, 1 thread"},
        **{"training": epochs, "best_epoch": 2, "environment": {"python": "3.11"}},
        "preprocessing": {"scale": 1.0, "mean": None, "std": None, "channels_first": False},
        "warnings": ["the machine was busy"],
        "stages": [{"stage": "plan", "title": "Plan", "seconds": 1.0, "failure": ""}],
        "dsconvert": "0.1.0",
        **changed,
    }


def written(place: Path, **changed: Any) -> Path:
    """Write such a report into a folder."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "report.json").write_text(json.dumps(made_up_run(**changed)))
    return place
