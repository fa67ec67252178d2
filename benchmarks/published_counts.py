"""Every count that the articles print, from the graphs that are built and from their ONNX files."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import slug
from steps import Bench


def counts(bench: Bench) -> None:
    from dsconvert.models.reference import REFERENCES

    def rows() -> Iterator[list[Any]]:
        for one in REFERENCES:
            for figure in one.published:
                yield [one.name, _told(figure), figure.text, f"{_count(one.name, figure):,}"]

    bench.table("Published counts", ["network", "count of", "published", "ours"], rows())


def _count(name: str, figure: Any) -> int:
    from dsconvert.converter.inspect import inspect
    from dsconvert.models.reference import build as draw

    found = inspect(draw(name, figure.settings))
    macs, dense = found.macs or 0, found.dense_macs or 0
    return {
        "parameters": found.params,
        "kernels": found.kernels or 0,
        "macs": macs,
        "macs-without-dense": macs - dense,
    }[figure.quantity]


def _told(figure: Any) -> str:
    settings = figure.settings
    said = "separable" if settings.separable else "standard"
    said += f", α = {settings.alpha:g}" if settings.alpha != 1 else ""
    said += f", {settings.input_shape[0]}×{settings.input_shape[1]}"
    said += ", shallow" if settings.shallow else ""
    return f"{said}: {figure.quantity.replace('-', ' ')}"


# 4. MobileNet.


def mobilenet(bench: Bench) -> None:
    from dsconvert.models.reference import reference

    figures = iter(reference("mobilenet").published)
    rows = []
    for macs, kernels in zip(figures, figures, strict=True):
        assert macs.settings == kernels.settings
        if bench.quick and macs.settings.alpha > 0.5:
            continue
        told = _told(macs).split(":")[0]
        cells = bench.shelf.step(
            f"mobilenet-{slug(told)}", {}, lambda m=macs, k=kernels: _row(m, k)
        )
        rows.append([told, *cells])
    bench.table(
        "4. MobileNet, from the Keras graph and from its ONNX file",
        [
            "network",
            "Mult-Adds, M: published",
            "Keras",
            "ONNX",
            "parameters, M: published",
            "Keras",
            "ONNX",
        ],
        rows,
    )
    bench.table(
        "4. MobileNet, where the cost is",
        ["layers", "Mult-Adds %: published", "ours", "parameters %: published", "ours"],
        _shares(reference("mobilenet").settings(separable=True)),
    )


def _row(macs: Any, kernels: Any) -> list[str]:
    graphs = _both(macs.settings)
    cells = [macs.text.removesuffix(" M"), *(_macs(one, macs) for one in graphs)]
    return [
        *cells,
        kernels.text.removesuffix(" M"),
        *(f"{one.kernels / 1e6:.3f}" for one in graphs),
    ]


def _macs(found: Any, figure: Any) -> str:
    if figure.quantity == "macs":
        return f"{found.macs / 1e6:.1f}"
    without = (found.macs - found.dense_macs) / 1e6
    return f"{without:.1f} ({found.macs / 1e6:.1f} with the dense layer)"


def _both(settings: Any) -> tuple[Any, Any]:
    import onnx

    from dsconvert.converter.inspect import inspect
    from dsconvert.deploy.exporting.export import export
    from dsconvert.models.reference import build as draw

    model = draw("mobilenet", settings)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export(model, path, gate=False)
        return inspect(model), inspect(onnx.load(path))


def _shares(settings: Any) -> list[list[str]]:
    """Return the paper's Table 2."""
    from dsconvert.converter.core.fitting.cost import conv_macs, conv_params
    from dsconvert.converter.inspect import inspect
    from dsconvert.models.reference import build as draw

    found = inspect(draw("mobilenet", settings))
    macs, kernels = found.macs or 1, found.kernels or 1
    totals = {"1×1": [0, 0], "depthwise 3×3": [macs, kernels], "3×3": [0, 0], "dense": [0, 0]}
    for row in found.convolutions:
        if row.spec is not None:  # what is depthwise already is the rest
            kind = totals["1×1" if row.spec.taps == 1 else "3×3"]
            kind[0] += conv_macs(row.spec) or 0
            kind[1] += conv_params(row.spec)
    totals["dense"] = [found.dense_macs or 0] * 2  # one position: a MAC for each weight
    for kind in ("1×1", "3×3", "dense"):
        for column in (0, 1):
            totals["depthwise 3×3"][column] -= totals[kind][column]
    printed = {
        "1×1": ("94.86", "74.59"),
        "depthwise 3×3": ("3.06", "1.06"),
        "3×3": ("1.19", "0.02"),
        "dense": ("0.18", "24.33"),
    }
    return [
        [
            kind,
            printed[kind][0],
            f"{100 * own[0] / macs:.2f}",
            printed[kind][1],
            f"{100 * own[1] / kernels:.2f}",
        ]
        for kind, own in totals.items()
    ]
