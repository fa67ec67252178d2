"""The charts of the page, as Vega-Lite specifications with their data in them.

Colours come from the page, by theme: see page.js.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..formatting import percent

Run = Mapping[str, Any]
Spec = dict[str, Any]
_KINDS = ("convolution", "depthwise", "pointwise", "dense", "other", "unknown")
_SCHEMA = "https://vega.github.io/schema/vega-lite/v6.json"
_ROW = 30
"""Pixels of a row of bars."""
_AROUND = 105
"""Pixels of the axis and the legend above and below the bars."""


def charts(runs: Sequence[Run]) -> dict[str, Spec]:
    """Return the charts that these runs have figures for, by their names on the page.

    Args:
        runs: One or two reports, as plain values.
    """
    found: dict[str, Spec | None] = {"pareto": _pareto(runs)}
    for number, run in enumerate(runs):
        found[f"layers-{number}"] = _layers(run)
        found[f"training-{number}"] = _training(run)
        found[f"operators-{number}"] = _operators(run)
    return {name: spec for name, spec in found.items() if spec is not None}


def kept(run: Run, file: Mapping[str, Any]) -> tuple[float, str] | None:
    """Return how good a file is, with the title of that axis; None where nobody knows."""
    score, lost = file.get("score"), file.get("loss")
    if score and score.get("value") is not None:
        share = score["unit"] == "share"
        unit = " (%)" if share else f" ({score['unit']})" if score["unit"] else ""
        return (100 if share else 1) * score["value"], f"{score['title']}{unit}"
    if lost is None:
        return None
    if run["loss_of"] == "noise":
        return -10 * math.log10(max(lost, 1e-12)), "SQNR against the original (dB)"
    return 100 * (1 - lost), "same class as the original (%)"


def _pareto(runs: Sequence[Run]) -> Spec | None:
    rows, title, unit = [], "", "ms"
    for run in runs:
        for file in run["files"]:
            timing, quality = file.get("timing"), kept(run, file)
            if file["failure"] or timing is None or quality is None:
                continue
            title, unit = quality[1], timing["unit"]
            rows.append(
                {
                    "file": file["name"],
                    "model": file["model"] if len(runs) == 1 else run["folder"],
                    "format": file["form"],
                    "time": timing["value"],
                    "quality": round(quality[0], 3),
                    "KiB": round(file["size_bytes"] / 1024, 1),
                    "faster": round(1 / timing["ratio"], 2),
                    "use": file["name"] == run["recommended"],
                }
            )
    if not rows:
        return None
    where = "time of one inference (ms)" if unit == "ms" else "cycles of one inference"
    encoding = {
        "x": _measure("time", where, zero=False, padding=30),
        "y": _measure("quality", title, zero=False, padding=30),
    }
    points = {
        "mark": {"type": "point", "filled": True, "opacity": 0.75, "stroke": "white"},
        "encoding": {
            "size": {
                "field": "KiB",
                "type": "quantitative",
                "scale": {"range": [80, 900]},
                "legend": None,
            },
            "color": {"field": "model", "type": "nominal", "title": None},
            "shape": {"field": "format", "type": "nominal", "title": None},
            "tooltip": [
                _tip("file", "file"),
                _tip("format", "format"),
                _tip("time", where, ".4~g"),
                _tip("faster", "times as fast"),
                _tip("quality", title),
                _tip("KiB", "size, KiB", ",.1f"),
            ],
        },
    }
    ring = {
        "transform": [{"filter": "datum.use"}],
        "mark": {"type": "point", "filled": False, "strokeWidth": 2.5, "size": 1500},
        "encoding": {"color": {"value": "ring"}},
    }
    name = {
        "transform": [{"filter": "datum.use"}],
        "mark": {"type": "text", "dy": -28, "fontWeight": "bold"},
        "encoding": {"text": {"value": "use this"}},
    }
    told = "Each file by its time and its accuracy; the area is its size. Up and left is better."
    return _chart(rows, told, height=340, layer=[ring, points, name], encoding=encoding)


def _layers(run: Run) -> Spec | None:
    rows = []
    for layer in run["layers"]:
        before, after = layer.get("before"), layer.get("after")
        if before is None:
            continue
        common = {
            "layer": layer["name"],
            "becomes": layer["becomes"] or f"stays: {layer['reason']}",
            "output error": _short(layer.get("output_error")),
            "error of its output": percent(layer.get("data_error")),
        }
        rows.append({**common, "when": "before", "cost": before["value"]})
        if after is not None:
            rows.append({**common, "when": "after", "cost": after["value"]})
    if not rows:
        return None
    unit = run["unit"] or "cost"
    spec = {
        "mark": {"type": "bar", "cornerRadiusEnd": 2},
        "encoding": {
            "y": {"field": "layer", "type": "nominal", "sort": None, "title": None},
            "yOffset": {"field": "when", "sort": ["before", "after"]},
            "x": _measure("cost", f"time of the layer ({unit})", zero=True),
            "color": {
                "field": "when",
                "type": "nominal",
                "sort": ["before", "after"],
                "title": None,
            },
            "tooltip": [
                _tip("layer", "layer"),
                _tip("when", "when"),
                _tip("cost", f"time, {unit}", ".4~g"),
                _tip("becomes", "decision"),
                _tip("output error", "output error"),
                _tip("error of its output", "error of its output"),
            ],
        },
    }
    height = _ROW * len({row["layer"] for row in rows}) + _AROUND
    return _chart(rows, "Time of each convolution before and after.", height=height, **spec)


def _training(run: Run) -> Spec | None:
    rows = [
        {
            "epoch": epoch["epoch"],
            "error": epoch["harm"],
            "kept": epoch["epoch"] == run["best_epoch"],
            "loss": _short(epoch.get("loss")),
        }
        for epoch in run["training"]
        if epoch.get("harm") is not None
    ]
    if len(rows) < 2:
        return None
    tips = [
        _tip("epoch", "epoch"),
        _tip("error", "output error", ".4~g"),
        _tip("loss", "training loss"),
        _tip("kept", "kept"),
    ]
    encoding = {
        "x": {
            "field": "epoch",
            "type": "quantitative",
            "axis": {"values": [row["epoch"] for row in rows], "format": "d"},
            "title": "epoch (0: as it was fitted)",
        },
        "y": _measure("error", "output error, held-out images", zero=True),
        "tooltip": tips,
    }
    layer = [
        {"mark": {"type": "line", "strokeWidth": 2}},
        {"mark": {"type": "point", "filled": True, "size": 90}},
    ]
    told = "Output error against the original model, epoch by epoch."
    return _chart(rows, told, height=240, layer=layer, encoding=encoding)


def _operators(run: Run) -> Spec | None:
    rows = list(_kind_rows(run))
    if not rows:
        return None
    spec = {
        "mark": {"type": "bar"},
        "encoding": {
            "y": {"field": "file", "type": "nominal", "sort": None, "title": None},
            "x": {
                "field": "time",
                "type": "quantitative",
                "title": "time of the operators while profiled (ms)",
                "stack": "zero",
            },
            "color": {"field": "kind", "type": "nominal", "sort": list(_KINDS), "title": None},
            "order": {"field": "rank", "type": "quantitative"},
            "tooltip": [
                _tip("file", "file"),
                _tip("kind", "kind"),
                _tip("time", "ms", ".4~g"),
                _tip("share", "share"),
                _tip("count", "operators"),
            ],
        },
    }
    told = "Where the time of each file goes, by kind of operator."
    height = _ROW * len({row["file"] for row in rows}) + _AROUND
    return _chart(rows, told, height=height, **spec)


def _kind_rows(run: Run) -> Iterator[dict[str, Any]]:
    for file in run["files"]:
        operators = file["operators"]
        if file["failure"] or isinstance(operators, str) or not operators:
            continue
        whole = sum(one["p50_ms"] for one in operators)
        for rank, kind in enumerate(_KINDS):
            found = [one["p50_ms"] for one in operators if (one["kind"] or "unknown") == kind]
            if found:
                yield {
                    "file": file["name"],
                    "kind": kind,
                    "rank": rank,
                    "time": sum(found),
                    "share": percent(sum(found) / whole if whole else None),
                    "count": len(found),
                }


def _chart(rows: list[dict[str, Any]], told: str, **spec: Any) -> Spec:
    return {
        "$schema": _SCHEMA,
        "description": told,
        "width": "container",
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": rows},
        **spec,
    }


def _measure(field: str, title: str, *, zero: bool, padding: int = 0) -> Spec:
    return {
        "field": field,
        "type": "quantitative",
        "title": title,
        "scale": {"zero": zero, "padding": padding, "nice": not padding},
    }


def _tip(field: str, title: str, form: str = "") -> Spec:
    return {"field": field, "title": title, **({"format": form} if form else {})}


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"
