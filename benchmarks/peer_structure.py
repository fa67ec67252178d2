"""Networks at a share of their MACs without training: ours and those of others.

Every network is written as a .tflite file and judged on the same test images; all files of one
network then take turns in one run. The stem stays as it is, but for channel pruning, which has to
cut it. Each method gives every layer the same share of its MACs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import images, table, write_json
from peer_networks import composed, convolutions, pruned, spatial_svd
from peer_tools import KEPT, MODELS, figure, kept, program, version_of

SHARES = (0.3, 0.5, 0.7)
EPOCHS, TRAINED, TRAINED_SHARE = 3, 20_000, 0.5
"""Of the table of trained networks, and the only share there."""
REFINED = "500steps"
CALIBRATED, TESTED = 1000, 2000
"""Unlabelled images for ours, and test images, the same for all."""
NETWORKS = KEPT.parent / "networks"


class Network(NamedTuple):
    """A trained network and its data.

    Attributes:
        name: In `peer_tools.MODELS`.
        model: The Keras model.
        data: Its images.
        scale: What the images are multiplied by.
    """

    name: str
    model: Any
    data: Path
    scale: float

    @classmethod
    def of(cls, name: str, models: Path, data: Path) -> Network:
        """Load one by its name."""
        import dsconvert as ds

        one = MODELS[name]
        return cls(name, ds.load(one.place(models)).model, one.images(data), one.scale)

    def images(self, count: int) -> Any:
        """Draw training images as the network takes them."""
        return images(self.data, count) * np.float32(self.scale)

    def top1(self, model: Any) -> float:
        """Judge a model or a file on the test images."""
        import dsconvert as ds

        prepared = ds.Preprocessing(scale=self.scale)
        found = ds.evaluate(model, self.data, samples=TESTED, preprocessing=prepared).top1
        assert found is not None
        return found.value


class Case(NamedTuple):
    """What a method gets.

    Attributes:
        model: The network.
        share: Of its MACs or, where a plan is made for it, of its time.
        limit: MACs at most.
        calibration: Unlabelled images.
    """

    model: Any
    share: float
    limit: float
    calibration: Any


class Method(NamedTuple):
    """How a network becomes smaller.

    Attributes:
        make: Makes the Keras network.
        peer: Whose tool it is, in `peer_tools.PEERS`; empty for ours.
        by: Who is named beside it where there is no peer.
        form: What its file is quantized to.
    """

    make: Callable[[Case], Any]
    peer: str = ""
    by: str = "dsconvert"
    form: str = "none"


def show(name: str, models: Path, data: Path, shares: Sequence[float] = SHARES) -> None:
    """Make what is missing, time all files together and print the table."""
    network = Network.of(name, models, data)
    calibration = network.images(CALIBRATED)
    rows = [_original(network, calibration, form) for form in ("none", "int8")]
    for share in shares:
        rows += _at(network, share, calibration)
    files = [NETWORKS / f"{row['cell']}.tflite" for row in rows if "top1" in row]
    times = _times(name, files, calibration)
    columns = [
        "method",
        "of",
        "asked",
        "M MACs",
        "top-1 %",
        "p50 µs",
        "to float32",
        "KiB",
        "s",
    ]
    cells = [_cells(row, times) for row in rows]
    title = f"{name} at a share of its MACs, without labels; LiteRT, one thread"
    table(title, columns, cells)


def _cells(row: dict[str, Any], times: dict[str, dict[str, float]]) -> list[str]:
    timed = times.get(row["cell"], {})
    return [
        row["method"],
        row["by"],
        figure(row["share"], 1, 2) if row["share"] else "",
        figure(row.get("macs"), 1e-6, 2),
        figure(row["top1"], 100, 2) if "top1" in row else row["failure"],
        figure(timed.get("p50_ms"), 1000),
        figure(timed.get("ratio"), 1, 3),
        figure(row.get("bytes"), 1 / 1024, 0),
        figure(row.get("seconds"), 1, 0),
    ]


def _times(name: str, files: list[Path], calibration: Any) -> dict[str, dict[str, float]]:
    from dsconvert.deploy.profiling.profile import profile

    cell = f"structure-{name}-times"
    found = kept(cell)
    if found is None or set(found) != {file.stem for file in files}:
        found = {}
        measured = profile(files, inputs=[calibration[:32]], runs=300, min_seconds=2)
        for file, one in zip(files, measured, strict=True):
            assert one.latency is not None, one.failure
            ratio = one.comparison.ratio if one.comparison else 1.0
            found[file.stem] = {"p50_ms": one.latency.p50_ms, "ratio": ratio}
        write_json(KEPT / f"{cell}.json", found)
    return dict(found)


def _original(network: Network, calibration: Any, form: str) -> dict[str, Any]:
    cell = f"structure-{network.name}-{'float32' if form == 'none' else form}"
    found = kept(cell)
    if found is None or not (NETWORKS / f"{cell}.tflite").exists():
        began = time.perf_counter()
        found = {
            "method": "original" if form == "none" else "int8 only",
            "by": "" if form == "none" else "dsconvert",
            "share": None,
            **_written(cell, network, network.model, form, calibration, began),
        }
        write_json(KEPT / f"{cell}.json", found)
    return dict(found)


def _written(
    cell: str, network: Network, model: Any, form: str, calibration: Any, began: float
) -> dict[str, Any]:
    """Export a network, keep it beside the file, and judge the file."""
    import dsconvert as ds
    from dsconvert.converter.inspect import inspect

    seconds = time.perf_counter() - began
    NETWORKS.mkdir(parents=True, exist_ok=True)
    file = NETWORKS / f"{cell}.tflite"
    given = None if form == "none" else calibration
    options = ds.ExportOptions(quantize=form)
    ds.export(model, file, options, calibration=given, overwrite=True)
    model.save(file.with_suffix(".keras"))
    return {
        "cell": cell,
        "macs": inspect(model).macs,
        "top1": network.top1(file),
        "bytes": file.stat().st_size,
        "seconds": seconds,
    }


def _at(network: Network, share: float, calibration: Any) -> Iterator[dict[str, Any]]:
    """Yield the rows of one share."""
    from dsconvert.base.errors import DsconvertError
    from dsconvert.converter.inspect import inspect

    limit = share * (inspect(network.model).macs or 0)
    for title, method in METHODS.items():
        cell = _cell(network.name, share, title)
        found = kept(cell)
        lost = not (NETWORKS / f"{cell}.tflite").exists()
        if found is None or ("top1" in found and lost):
            began = time.perf_counter()
            by = version_of(method.peer) if method.peer else method.by
            found = {"method": title, "by": by, "share": share, "cell": cell}
            try:
                made = method.make(Case(network.model, share, limit, calibration))
                found |= _written(cell, network, made, method.form, calibration, began)
            except (RuntimeError, ValueError, DsconvertError) as error:
                found["failure"] = str(getattr(error, "message", error))[:160]
            write_json(KEPT / f"{cell}.json", found)
        yield dict(found)


def _cell(name: str, share: float, method: str) -> str:
    words = method.replace(":", "").replace(",", "").split()
    return "-".join(["structure", name, str(share), *words])


# After the same epochs.


def trained(name: str, models: Path, data: Path) -> None:
    """Train the networks of one share alike, without labels, and print the table."""
    network = Network.of(name, models, data)
    rows = (_trained(network, title) for title in TRAINABLE)
    columns = ["method", "M MACs", "start %", f"after {EPOCHS} epochs %"]
    title = f"{name} at {TRAINED_SHARE:g} of its MACs, then {EPOCHS} epochs without labels"
    table(title, columns, rows)


def _trained(network: Network, method: str) -> list[str]:
    import dsconvert as ds

    start = _cell(network.name, TRAINED_SHARE, method)
    before, cell = kept(start), f"{start}-trained"
    if before is None or "top1" not in before:
        return [method, "–", "not made", "–"]
    found = kept(cell)
    if found is None:
        student = ds.load(NETWORKS / f"{start}.keras").model
        settings = ds.FinetuneSettings(epochs=EPOCHS)
        ds.finetune(student, network.model, network.images(TRAINED), settings)
        found = {"top1": network.top1(student)}
        write_json(KEPT / f"{cell}.json", found)
    tops = (figure(one["top1"], 100, 2) for one in (before, found))
    return [method, figure(before["macs"], 1e-6, 2), *tops]


# Ours.


def _rewritten(case: Case, **wishes: Any) -> Any:
    from dsconvert.converter.core.planning.limits import parse_limit
    from dsconvert.converter.rewrite import rewrite

    limit = parse_limit(f"{case.limit / 1e6:.4f}M", "macs")
    made = rewrite(case.model, macs=limit, **wishes)
    if (made.report.macs_after or 0) > case.limit * 1.005:
        raise ValueError("this form cannot be as small")
    return made.model


def _fitted(case: Case, block: str) -> Any:
    return _rewritten(case, calibration=case.calibration, block=block)


def _planned(case: Case, refine: str, *, time: bool = False) -> Any:
    """Plan for the share of the MACs, or of the time on LiteRT, and rewrite by the plan."""
    import dsconvert as ds

    macs = f"{case.limit / 1e6:.4f}M"
    goals = ds.Goals(latency=f"{case.share:g}x") if time else ds.Goals(macs=macs)
    target = ds.Target("litert") if time else None
    given = {"calibration": case.calibration}
    plan = ds.plan(case.model, goals=goals, target=target, **given)
    return ds.rewrite(case.model, plan=plan, refine=refine, **given).model


# Others'.


def _tensorly(case: Case, method: str) -> Any:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = convolutions(case.model, case.limit, method)
        np.savez(folder / "kernels.npz", **{one.name: one.kernel for one in found})
        np.savez(folder / "ranks.npz", **{one.name: one.ranks for one in found})
        words = (folder / "kernels.npz", folder / "ranks.npz", folder / "factors.npz")
        program("tensorly", "tensorly_factors.py", method, *words)
        factors = np.load(folder / "factors.npz")
        parts = {one.name: [factors[f"{one.name}.{i}"] for i in range(3)] for one in found}
    return composed(case.model, parts, method)


def _spatial(case: Case) -> Any:
    found = convolutions(case.model, case.limit, "spatial")
    parts = {one.name: spatial_svd(one.kernel, int(one.ranks[0])) for one in found}
    return composed(case.model, parts, "spatial")


METHODS = {
    "weights-only SVD pairs": Method(lambda case: _rewritten(case, method="svd", block="linear")),
    "separable from scratch": Method(
        lambda case: _rewritten(case, method="random", block="linear")
    ),
    "spatial SVD": Method(_spatial, by="numpy"),
    "Tucker-2": Method(lambda case: _tensorly(case, "tucker"), "tensorly"),
    "CP": Method(lambda case: _tensorly(case, "cp"), "tensorly"),
    "channels by magnitude": Method(lambda case: pruned(case.model, case.limit), "torch-pruning"),
    "ours: pairs": Method(lambda case: _fitted(case, "linear")),
    "ours: blocks": Method(lambda case: _fitted(case, "three-factor")),
    "ours: planned": Method(lambda case: _planned(case, "0")),
    "ours: planned, refined": Method(lambda case: _planned(case, REFINED)),
    "ours: for time, refined": Method(lambda case: _planned(case, REFINED, time=True)),
    "ours: planned, refined, int8": Method(lambda case: _planned(case, REFINED), form="int8"),
}
TRAINABLE = tuple(title for title, method in METHODS.items() if method.form == "none")
