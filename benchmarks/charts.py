"""Charts and tables of what the benchmarks kept.

    python benchmarks/charts.py            results/tables.md, results/charts/*.svg
    python benchmarks/charts.py --docs     also the tables and charts of docs/
    python benchmarks/charts.py --quick    of a quick run

A chart is drawn where its results are there; what is missing is named.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from common import QUICK, RESULTS

DOCS = Path(__file__).parents[1] / "docs"
STYLE = {
    "svg.hashsalt": "dsconvert",
    "svg.fonttype": "none",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "figure.figsize": (6.4, 4.0),
    "figure.constrained_layout.use": True,
}
OLD, NEW, FRESH = "#777777", "#0b6e4f", "#d1495b"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--docs", action="store_true")
    chosen = parser.parse_args()
    if chosen.quick and chosen.docs:
        parser.error("the documents show no quick run")
    folder = QUICK if chosen.quick else RESULTS
    join_tables(folder)
    draw_all(folder, folder / "charts")
    if chosen.docs:
        draw_all(folder, DOCS / "charts")
        fill(DOCS / "published.md", folder / "published")
        fill(DOCS / "comparison.md", folder / "peers")


def markdown(record: Any) -> str:
    """Return a kept table as it was printed."""
    lines = [f"| {' | '.join(record['columns'])} |", f"|{'---|' * len(record['columns'])}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in record["rows"]])


def join_tables(folder: Path) -> None:
    """All tables in one file, script by script, each with its machine."""
    text = []
    for script in sorted(path for path in folder.iterdir() if path.is_dir()):
        records = [json.loads(path.read_text()) for path in sorted(script.glob("*.json"))]
        records = [record for record in records if "columns" in record]
        if records and script.name != "quick":
            text.append(f"## {script.name}\n")
            for record in records:
                text += [f"### {record['title']}\n", markdown(record), f"\n{record['machine']}\n"]
    (folder / "tables.md").write_text("\n".join(text))
    print(folder / "tables.md")


def fill(document: Path, folder: Path) -> None:
    """Put the kept tables between the document's markers.

    A marker is ``<!-- table: NAME -->``, the table ends at ``<!-- end -->``.
    """

    def table(match: re.Match[str]) -> str:
        path = folder / f"{match[1]}.json"
        if not path.exists():
            print(f"{document.name}: {match[1]} was not run, left as it is")
            return match[0]
        return f"<!-- table: {match[1]} -->\n{markdown(json.loads(path.read_text()))}\n<!-- end -->"

    pattern = r"<!-- table: ([\w-]+) -->\n.*?<!-- end -->"
    document.write_text(re.sub(pattern, table, document.read_text(), flags=re.DOTALL))


def draw_all(results: Path, charts: Path) -> None:
    """Every chart whose results are there."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update(STYLE)
    import matplotlib.pyplot as plt

    charts.mkdir(parents=True, exist_ok=True)
    steps, cells = results / "published" / "steps", results / "peers" / "cells"
    drawings: dict[str, tuple[Callable[[Any, Path], None], Path]] = {
        "epochs": (epochs, steps),
        "accuracy-macs": (accuracy_macs, steps),
        "mobilenet": (mobilenet, steps),
        "ratio": (ratio, steps),
        "peers-resnet8": (partial(peers, "resnet8"), cells),
        "peers-vgg6": (partial(peers, "vgg6"), cells),
        "peers-cifar10_cnn": (partial(peers, "cifar10_cnn"), cells),
        "peers-cifar100_four": (partial(peers, "cifar100_four"), cells),
    }
    for name, (draw, folder) in drawings.items():
        figure, axes = plt.subplots()
        try:
            draw(axes, folder)
        except FileNotFoundError as error:
            print(f"{name}: not drawn, {Path(error.filename).stem} was not run")
            continue
        finally:
            plt.close(figure)
        figure.savefig(charts / f"{name}.svg", metadata={"Date": None})
        print(charts / f"{name}.svg")


def _step(steps: Path, name: str) -> Any:
    return json.loads((steps / f"{name}.json").read_text())["result"]


def epochs(axes: Any, steps: Path) -> None:
    """Accuracy over epochs: trained from scratch against the trained network rewritten."""
    full, fresh = _step(steps, "vgg-standard"), _step(steps, "vgg-separable")
    kept = _step(steps, "vgg-rewritten")
    axes.axhline(full["top1"], color=OLD, lw=1, label="the trained standard network")
    history = fresh["history"]
    axes.plot(
        range(1, len(history) + 1), history, "o-", color=FRESH, label="separable from scratch"
    )
    axes.plot(
        (0, kept["epochs"]),
        (kept["before"], kept["top1"]),
        "s-",
        color=NEW,
        label="trained network rewritten, then fine-tuned",
    )
    if len(history) == 10:
        axes.plot([10], [74.58], "x", color="black", label="published, 50,000 images")
    axes.set(xlabel="epochs of the separable network", ylabel="top-1 %", title="VGG-block network")
    axes.legend(fontsize=8)


def accuracy_macs(axes: Any, steps: Path) -> None:
    """Accuracy against MACs, of all three forms."""
    from dsconvert.converter.inspect import inspect
    from dsconvert.models.loading import load

    names = {
        "vgg-standard": ("standard", OLD),
        "vgg-separable": ("separable from scratch", FRESH),
        "vgg-rewritten": ("rewritten, fine-tuned", NEW),
    }
    for name, (label, color) in names.items():
        found = _step(steps, name)
        macs = (inspect(load(steps.parent / "models" / f"{name}.keras").model).macs or 0) / 1e6
        bounds = [[found["top1"] - found["low"]], [found["high"] - found["top1"]]]
        axes.errorbar([macs], [found["top1"]], yerr=bounds, fmt="o", color=color, capsize=3)
        side = "right" if name == "vgg-standard" else "left"
        shift = -8 if side == "right" else 8
        axes.annotate(
            f"{label}, {found['epochs']} epochs" if found["epochs"] != "given" else label,
            (macs, found["top1"]),
            textcoords="offset points",
            xytext=(shift, 4),
            ha=side,
            fontsize=8,
        )
    axes.set(xlabel="M MACs per image", ylabel="top-1 %", title="VGG-block network", xlim=(0, None))


def mobilenet(axes: Any, steps: Path) -> None:
    """Mult-Adds over α and over ρ, ours against the paper's."""
    from dsconvert.converter.inspect import inspect
    from dsconvert.models.reference import BuildSettings, build, reference

    printed = [
        figure
        for figure in reference("mobilenet").published
        if figure.quantity.startswith("macs")
        and figure.settings.separable
        and not figure.settings.shallow
    ]
    widths = [one for one in printed if one.settings.input_shape[0] == 224]
    sizes = [one for one in printed if one.settings.alpha == 1]
    for chosen, color, label in ((widths, NEW, "width α"), (sizes, FRESH, "resolution ρ")):
        shares = [one.settings.alpha * one.settings.input_shape[0] / 224 for one in chosen]
        axes.plot(shares, [one.value for one in chosen], "x", color="black", ms=8)
        ours = []
        for one in chosen:
            settings: BuildSettings = one.settings
            ours.append((inspect(build("mobilenet", settings)).macs or 0) / 1e6)
        axes.plot(shares, ours, "o-", color=color, mfc="none", label=f"{label}, from the graph")
    axes.plot([], [], "x", color="black", label="published")
    axes.set(xlabel="α, or ρ", ylabel="M Mult-Adds", title="MobileNet", ylim=(0, None))
    axes.legend(fontsize=8)


def ratio(axes: Any, steps: Path) -> None:
    """Return what a pair costs of its convolution: 1/N + 1/k²."""
    import numpy as np

    from dsconvert.converter.core.fitting.cost import conv_macs, pair_macs
    from dsconvert.converter.core.types import ConvSpec

    filters = np.arange(8, 513)
    for kernel, color in ((3, NEW), (5, OLD), (7, FRESH)):
        label = f"{kernel}×{kernel}: 1/N + 1/{kernel * kernel}"
        axes.plot(filters, 1 / filters + 1 / kernel**2, "-", color=color, label=label)
        counted = []
        for n in (16, 32, 64, 128, 256, 512):
            spec = ConvSpec(
                name="layer",
                kernel_size=(kernel, kernel),
                in_channels=64,
                out_channels=n,
                padding="same",
                input_sizes=((32, 32),),
            )
            pair = pair_macs(spec, "depthwise-first", 1) or 0
            counted.append((n, pair / (conv_macs(spec) or 1)))
        axes.plot(*zip(*counted, strict=True), "o", color=color, mfc="none")
    axes.set(xlabel="output channels N", ylabel="MACs of a pair / of its convolution", xscale="log")
    axes.set(title="The cost model, lines, and what is counted", ylim=(0, 0.25))
    axes.legend(fontsize=8)


PEERS = {
    "weights-only SVD pairs": ("v", "#8c8c8c"),
    "spatial SVD": ("^", "#b07aa1"),
    "Tucker-2": ("s", "#f28e2b"),
    "CP": ("D", "#4e79a7"),
    "channels by magnitude": ("x", FRESH),
    "separable from scratch": ("+", FRESH),
    "ours: pairs": ("o", NEW),
    "ours: blocks": ("s", NEW),
    "ours: planned": ("^", NEW),
    "ours: planned, refined": ("*", NEW),
    "ours: for time, refined": ("P", NEW),
    "ours: planned, refined, int8": ("h", NEW),
}
"""Marks and colours of the methods."""


def peers(network: str, axes: Any, cells: Path) -> None:
    """Accuracy over the measured time, of ours and of other people's networks, untrained."""
    times = json.loads((cells / f"structure-{network}-times.json").read_text())
    rows = [json.loads(path.read_text()) for path in cells.glob(f"structure-{network}-*.json")]
    found = {row["cell"]: row for row in rows if row.get("cell") in times}
    for cell, row in found.items():
        if row["share"] is None:
            axes.plot(times[cell]["ratio"], 100 * row["top1"], "h", color="black", ms=8)
            told = row["method"] if row["method"] == "original" else "original, int8"
            place = (8, 8) if row["method"] == "original" else (-8, 8)
            point = (times[cell]["ratio"], 100 * row["top1"])
            axes.annotate(told, point, xytext=place, textcoords="offset points", ha="right")
    for method, (mark, color) in PEERS.items():
        own = sorted(
            (times[cell]["ratio"], 100 * row["top1"])
            for cell, row in found.items()
            if row["method"] == method
        )
        if own:
            axes.plot(*zip(*own, strict=True), ":", marker=mark, color=color, label=method, lw=1)
    axes.set(xlabel="time / the original's, LiteRT, one thread", ylabel="top-1 %", title=network)
    axes.set(ylim=(0, 100), xlim=(0, None))
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.01, 0.5))


if __name__ == "__main__":
    main()
