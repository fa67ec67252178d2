"""What the page says in words, from the figures of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from dsconvert.formats.layer_names import operator_layer

from .. import formatting

Run = Mapping[str, Any]


class PageWords:
    """Sentences and cells of the page.

    Args:
        runs: Reports, as plain values.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = runs

    @property
    def title(self) -> str:
        """Return the title of the page."""
        return " and ".join(dict.fromkeys(self.name(run) for run in self._runs))

    def name(self, run: Run) -> str:
        """Return the model's file."""
        return PurePath(run["model"]).name

    def best(self, run: Run) -> Mapping[str, Any] | None:
        """Return the recommended file."""
        return self._file(run, run["recommended"])

    def baseline(self, run: Run) -> Mapping[str, Any] | None:
        """Return the file that the others are compared with."""
        return self._file(run, run["baseline"])

    def headline(self, run: Run) -> str:
        """Return what was gained, in one line."""
        best, first = self.best(run), self.baseline(run)
        if best is None or first is None:
            return "No file can be recommended"
        if best["name"] == first["name"]:
            return "The original file is the one to use"
        parts = []
        if best["timing"]:
            parts.append(f"{1 / best['timing']['ratio']:.2f}× as fast")
        parts.append(_smaller(first["size_bytes"], best["size_bytes"]))
        return ", ".join(parts)

    def cards(self, run: Run) -> list[tuple[str, str, str]]:
        """Return the figures of the first screen: what, the value, and against what."""
        best, first = self.best(run), self.baseline(run)
        if best is None or first is None:
            return []
        found = []
        if best["timing"] and first["timing"]:
            now, then = best["timing"], first["timing"]
            versus = f"{1 / now['ratio']:.2f}× as fast, 95 %: {1 / now['high']:.2f}–"
            versus += f"{1 / now['low']:.2f}; was {self.time(then)}"
            found.append(("Latency", self.time(now), versus))
        size = f"{_smaller(first['size_bytes'], best['size_bytes'])}; was "
        size += formatting.kib(first["size_bytes"])
        found.append(("Size", formatting.kib(best["size_bytes"]), size))
        if isinstance(best["macs"], int) and isinstance(first["macs"], int):
            fewer = formatting.change(first["macs"], best["macs"])
            macs = f"{fewer}; was {formatting.short(first['macs'])}"
            found.append(("MACs", formatting.short(best["macs"]), macs))
        found.append(self._accuracy(run, best))
        return found

    def _accuracy(self, run: Run, best: Mapping[str, Any]) -> tuple[str, str, str]:
        score, whole = best["score"], run["original"]
        if score and whole and score["value"] is not None and whole["value"] is not None:
            value = formatting.amount(score["value"], score["unit"])
            told = f"was {formatting.amount(whole['value'], whole['unit'])}"
            if score["low"] is not None:
                low = formatting.amount(score["low"], score["unit"]).removesuffix(" %")
                told = f"95 %: {low}–{formatting.amount(score['high'], score['unit'])}; {told}"
            return score["title"], value, told
        kind = run["loss_of"] or "loss"
        return kind.capitalize(), formatting.percent(best["loss"], 2), "against the original model"

    def time(self, timing: Mapping[str, Any] | None) -> str:
        """Return a time with its unit; "–" where it was not measured."""
        if timing is None:
            return "–"
        if timing["unit"] == "ms":
            return formatting.ms(timing["value"])
        return f"{formatting.short(timing['value'])} {timing['unit']}"

    def faster(self, timing: Mapping[str, Any] | None) -> str:
        """Return how many times as fast, with the interval."""
        if timing is None:
            return "–"
        ratio, low, high = (1 / timing[key] for key in ("ratio", "high", "low"))
        return f"{ratio:.2f}× ({low:.2f}–{high:.2f})"

    def score(self, run: Run, file: Mapping[str, Any]) -> str:
        """Return a file's metric with its interval, or what it keeps."""
        score = file["score"]
        if not score or score["value"] is None:
            return "–"
        value = formatting.amount(score["value"], score["unit"])
        if score["low"] is None:
            return value
        low, high = (formatting.amount(score[key], score["unit"]) for key in ("low", "high"))
        return f"{value} ({low.removesuffix(' %')}–{high.removesuffix(' %')})"

    def lost(self, run: Run, file: Mapping[str, Any]) -> str:
        """Return what a file loses, or gains."""
        if file["loss"] is not None and file["loss"] < 0:
            return f"gains {formatting.amount(-file['loss'], run['loss_unit'])}"
        return formatting.amount(file["loss"], run["loss_unit"])

    def groups(self, file: Mapping[str, Any]) -> list[tuple[str, str, str, str, str]]:
        """Return a line per output and group of channels: how close it is to the original's."""
        found = []
        for output in file["fidelity"]:
            measure = output.get("measure") or {}
            groups = measure.get("groups") or [{"channels": None, "sqnr_db": output["sqnr_db"]}]
            for group in groups:
                decibels = group.get("sqnr_db")
                same = output["relative_error"] == 0
                told = f"{decibels:.1f} dB" if decibels is not None else "equal" if same else "–"
                agree = formatting.percent(output.get("top1_agreement"))
                nats = output.get("kl_nats")
                divergence = "–" if nats is None else f"{nats:.3g}"
                found.append((output["name"], _channels(group), told, agree, divergence))
        return found

    def stays(self, run: Run) -> list[tuple[str, int]]:
        """Return the reasons why layers stay, with how many."""
        found: dict[str, int] = {}
        for layer in run["layers"]:
            if not layer["becomes"]:
                found[layer["reason"]] = found.get(layer["reason"], 0) + 1
        return sorted(found.items(), key=lambda one: -one[1])

    def slowest(self, file: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Return the operators that take longest, by the names of their layers."""
        operators = file["operators"]
        if isinstance(operators, str):
            return []
        slowest = sorted(operators, key=lambda one: -one["p50_ms"])[:6]
        if not file["name"].endswith(".tflite"):
            return slowest
        return [one | {"name": operator_layer(one["name"])} for one in slowest]

    def _file(self, run: Run, name: str) -> Mapping[str, Any] | None:
        return next((file for file in run["files"] if name and file["name"] == name), None)


def _smaller(before: int, after: int) -> str:
    if min(before, after) <= 0:
        return "of unknown size"
    if after > before:
        return f"{after / before:.2f}× larger"
    return f"{before / after:.2f}× smaller"


def _channels(group: Mapping[str, Any]) -> str:
    from dsconvert.base.output_fidelity.channel_groups import named

    ranges = group.get("channels")
    return named(tuple((first, last) for first, last in ranges)) if ranges else "all"
