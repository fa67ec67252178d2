"""Costs: of one moment, relative to a reference, kept. No test asserts a time."""

import json
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from cost_blocks import FIRST, MIDDLE, ONE, OTHER, SMALL, TWO, U55, values
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.converter.core.planning.cost_model import BlockCosts
from dsconvert.converter.core.types import Choice, Figure
from dsconvert.deploy.costs import (
    MeasuredCosts,
    Target,
    measured_costs,
    target_for,
)
from dsconvert.deploy.costs.block_files import block_files
from dsconvert.deploy.costs.cache import Cache
from dsconvert.deploy.costs.on_device import DeviceBench
from dsconvert.deploy.costs.relative import REFERENCE, Measured, scaled
from dsconvert.deploy.devices.device import MachineState, Report, TimedFile
from dsconvert.deploy.devices.records import DeviceInfo


class TestTarget:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"runtime": "tvm"}, "unknown runtime 'tvm'; allowed: litert, ort"),
            ({"precision": "int4"}, "unknown precision 'int4'; allowed: float32, int8"),
            ({"device": "ethos-u99"}, "unknown device 'ethos-u99'; allowed: host, ethos-u55-32"),
            ({"threads": 0}, "threads must be 1 or more, got 0"),
            ({"device": "ethos-u55-128"}, "ethos-u55-128 runs int8 .tflite files only"),
            (
                {"device": "ethos-u65-256", "precision": "int8", "runtime": "ort"},
                "got runtime ort and precision int8",
            ),
            (
                {"device": "ethos-u55-32", "precision": "int8", "threads": 2},
                "ethos-u55-32 has no threads to choose, got 2",
            ),
        ],
    )
    def test_refusals(self, options, message):
        with pytest.raises(InputError, match=message):
            Target(**options)

    def test_what_is_not_said_is_what_the_device_runs(self, tmp_path, monkeypatch):
        """A phone runs no .onnx files, whatever its owner calls it."""
        settings = tmp_path / "devices.toml"
        settings.write_text('[phones.pixel]\nserial = "R5CR1"\n')
        monkeypatch.setenv("DSCONVERT_DEVICES", str(settings))
        for suffix, device, found in (
            (".onnx", "host", ("ort", "float32")),
            (".tflite", "host", ("litert", "float32")),
            (".onnx", "adb", ("litert", "float32")),
            (".onnx", "pixel", ("litert", "float32")),
            (".onnx", "ethos-u55-128", ("litert", "int8")),
        ):
            target = target_for(suffix, device=device)
            assert (target.runtime, target.precision) == found
        with pytest.raises(InputError, match=r"pixel runs \.tflite files only, got runtime ort"):
            target_for(".onnx", device="pixel", runtime="ort")

    def test_memory_is_no_time(self):
        with refuses("device-without-times"):
            Target(device="mcu")

    def test_words(self, tmp_path):
        words = measured_costs(Target(threads=2), cache=tmp_path).target
        assert words.startswith("LiteRT float32, 2 threads, ")
        assert measured_costs(U55, cache=tmp_path).target.startswith("Ethos-U55-128 int8, esti")
        assert measured_costs(U55, cache=tmp_path).unit == "cycles"


class Counted:
    """A bench that counts: figure n of call k is 100·k + n; it needs no reference."""

    def __init__(self, fails=()):
        self.calls = []
        self.fails = fails

    def measure(self, asked):
        return [Measured(costs=self.one(block, choices)) for block, choices in asked]

    def reference(self):
        return None

    def one(self, block, choices):
        self.calls.append((block, tuple(choices)))
        base = 100 * len(self.calls)
        return BlockCosts(
            original=Figure(value=base),
            choices=tuple(
                None if choice in self.fails else Figure(value=base + n, ratio_low=0.5)
                for n, choice in enumerate(choices, 1)
            ),
        )


class Calming(Counted):
    """A bench whose figures are given, one for each block in turn."""

    def __init__(self, *figures):
        super().__init__()
        self.figures = list(figures)

    def one(self, block, choices):
        costs, figure = super().one(block, choices), self.figures.pop(0)
        return scaled(costs, figure / costs.original.value)


def model(folder, measurement, **conditions):
    return MeasuredCosts("ms", "a test", measurement, Cache(folder, conditions))


class TestCache:
    def test_second_call_measures_nothing(self, tmp_path):
        counted = Counted(fails=[TWO])
        asked = [(SMALL, [ONE, TWO, FIRST]), (OTHER, [FIRST])]
        first = model(tmp_path, counted).costs(asked)
        assert len(counted.calls) == 2
        assert values(first[0]) == [101, None, 103]
        for again in (model(tmp_path, counted), model(tmp_path, counted)):
            assert again.costs(asked) == first
            assert again.costs([(SMALL, [FIRST])])[0].choices == (first[0].choices[2],)
        assert len(counted.calls) == 2
        assert len(list(tmp_path.rglob("*.json"))) == 2

    def test_equal_blocks_are_measured_once_and_together(self, tmp_path):
        counted = Counted()
        both = model(tmp_path, counted).costs([(SMALL, [ONE]), (SMALL, [TWO, ONE]), (SMALL, [])])
        assert counted.calls == [(SMALL, (ONE, TWO))]
        assert [values(costs) for costs in both] == [[101], [102, 101], []]

    def test_other_choices_are_measured_with_the_known_ones(self, tmp_path):
        counted = Counted()
        model(tmp_path, counted).costs([(SMALL, [ONE])])
        model(tmp_path, counted).costs([(SMALL, [TWO])])
        assert counted.calls[1] == (SMALL, (ONE, TWO))
        (known,) = model(tmp_path, counted).costs([(SMALL, [ONE, TWO])])
        assert len(counted.calls) == 2
        assert (known.original.value, values(known)) == (200, [201, 202])

    def test_multiplier_of_one_is_the_plain_pair(self, tmp_path):
        counted = Counted()
        same = Choice(pairs=1, order="depthwise-first", lowering="multiplier")
        (costs,) = model(tmp_path, counted).costs([(SMALL, [same, ONE])])
        assert counted.calls == [(SMALL, (ONE,))]
        assert values(costs) == [101, 101]

    def test_other_conditions_are_other_costs(self, tmp_path):
        counted = Counted()
        for conditions in ({"version": "1"}, {"version": "2"}, {"threads": "1"}):
            model(tmp_path, counted, **conditions).costs([(SMALL, [ONE])])
        assert len(counted.calls) == len(list(tmp_path.rglob("*.json"))) == 3

    @pytest.mark.parametrize(
        "damage", ["cut", "empty", "binary", "figures", "schema", "block", "target", "reference"]
    )
    def test_damaged_files_are_ignored_and_replaced(self, tmp_path, damage):
        counted = Counted()
        model(tmp_path, counted).costs([(SMALL, [ONE])])
        (path,) = tmp_path.rglob("*.json")
        text = path.read_text()
        content = json.loads(text)
        if damage == "figures":
            content["costs"]["choices"] = []
        elif damage == "schema":
            content["schema"] = "dsconvert.block-costs/1"
        elif damage == "block":
            content["block"]["in_channels"] = 9
        elif damage == "reference":
            content["reference"] = 0.0
        elif damage == "target":
            content["conditions"]["version"] = "2"
        damaged = {"cut": text[:40].encode(), "empty": b"", "binary": b"\xff\x00"}
        path.write_bytes(damaged.get(damage, json.dumps(content).encode()))
        (costs,) = model(tmp_path, counted).costs([(SMALL, [ONE])])
        assert (len(counted.calls), values(costs)) == (2, [201])
        model(tmp_path, counted).costs([(SMALL, [ONE])])
        assert len(counted.calls) == 2

    def test_folder_that_cannot_be_made_is_no_failure(self, tmp_path, caplog):
        (tmp_path / "file").write_text("in the way")
        (costs,) = model(tmp_path / "file", Counted()).costs([(SMALL, [ONE])])
        assert values(costs) == [101]
        assert "cannot be kept" in caplog.text

    def test_folder_of_the_environment(self, tmp_path, monkeypatch):
        monkeypatch.setenv("DSCONVERT_CACHE", str(tmp_path / "chosen"))
        model(None, Counted()).costs([(SMALL, [ONE])])
        assert len(list((tmp_path / "chosen").rglob("*.json"))) == 1

    def test_real_measurements_are_kept(self, tmp_path):
        steps = []

        class Progress:
            def __init__(self, label, total):
                self.total = total

            def __enter__(self):
                return lambda: steps.append(self.total)

            def __exit__(self, *error):
                return None

        asked = [(SMALL, [ONE]), (OTHER, [ONE, TWO])]
        options = {"cache": tmp_path, "progress": Progress, "seconds": 0.01}
        first = replace(measured_costs(Target(), **options), present=1.0).costs(asked)
        assert steps == [2, 2]
        assert replace(measured_costs(Target(), **options), present=1.0).costs(asked) == first
        assert steps == [2, 2]
        measured_costs(Target(threads=2), **options).costs(asked[:1])
        assert steps == [2, 2, 1]


class Changing:
    """A device whose files take a time by their size, at a speed that changes.

    Attributes:
        slow: What all times are multiplied by, one factor per job, and so on from the last one.
    """

    def __init__(self):
        self.slow = [1.0]

    def measure_all(self, jobs, **options):
        reports = []
        for job in jobs:
            slow = self.slow.pop(0) if len(self.slow) > 1 else self.slow[0]
            files = tuple(
                TimedFile("ORT", "1", "", samples_ms=(slow * one.path.stat().st_size / 1e3,) * 9)
                for one in job.cases
            )
            info = DeviceInfo(name="host", cpu="", architecture="", cores=1)
            reports.append(Report(info, MachineState(), MachineState(), files))
        return reports


class TestTogether:
    """Blocks cannot cost more than the network that holds them, but for what starts cost."""

    ASKED = ((SMALL, [ONE]), (MIDDLE, [ONE, TWO]))

    def costs(self, folder, whole, *figures, present=0.0):
        bench = Calming(*figures)
        costs = replace(model(folder, bench), whole=whole, present=present)
        return costs.costs(self.ASKED), bench

    def test_what_a_busy_moment_left_is_measured_again(self, tmp_path):
        self.costs(tmp_path, None, 300, 300)
        found, bench = self.costs(tmp_path, 200, 90, 110)
        assert [one.original.value for one in found] == pytest.approx([90, 110])
        assert bench.calls == [(SMALL, (ONE,)), (MIDDLE, (ONE, TWO))]
        found, bench = self.costs(tmp_path, 200)  # and kept
        assert [one.original.value for one in found] == pytest.approx([90, 110])

    def test_what_is_still_too_much_keeps_its_shares(self, tmp_path):
        found, _ = self.costs(tmp_path, 160, 500, 500, 300, 500)
        assert [one.original.value for one in found] == pytest.approx([75, 125])
        assert values(found[1]) == pytest.approx([125 * 401 / 400, 125 * 402 / 400])

    @pytest.mark.parametrize(("whole", "present"), [(200, 0.0), (20, 500.0)])
    def test_a_little_more_is_the_price_of_each_start(self, tmp_path, whole, present):
        found, bench = self.costs(tmp_path, whole, 110, 130, present=present)
        assert [one.original.value for one in found] == pytest.approx([110, 130])
        assert len(bench.calls) == 2

    def test_estimates_are_what_they_are(self, tmp_path):
        found, bench = self.costs(tmp_path, 100, 110, 130, present=None)
        assert [one.original.value for one in found] == pytest.approx([110, 130])
        assert len(bench.calls) == 2


class TestChangingSpeed:
    TARGET = Target(runtime="ort", device="ssh:board")  # whose files are not optimized for this CPU
    ASKED = ((SMALL, [ONE, TWO]), (MIDDLE, [ONE]))

    def bench(self, folder):
        device = Changing()
        bench = DeviceBench(device, self.TARGET, 0.0)
        return device, MeasuredCosts("ms", "a test", bench, Cache(folder, {}))

    def network(self, folder):
        """A file that stands for both convolutions, one after the other: no smaller than they."""
        path = folder / "network.onnx"
        wide = msgspec.structs.replace(MIDDLE, out_channels=96)
        (made,) = block_files(wide, [None], ".onnx", "float32")
        path.write_bytes(made)
        return path, [np.zeros((1, 64, 28, 28), np.float32)]

    @pytest.mark.parametrize("slower", [1.74, 0.4])
    def test_costs_of_another_hour_are_told_in_the_times_of_this_one(self, tmp_path, slower):
        """Absolute times would be wrong by 43 and by 150 percent."""
        device, costs = self.bench(tmp_path)
        path, inputs = self.network(tmp_path)
        calm, model = costs.beside(path, inputs)
        first = model.costs(self.ASKED)
        assert first[0].original.value == pytest.approx(0.001 * self.size(SMALL))

        device, costs = self.bench(tmp_path)
        device.slow = [slower]
        whole, model = costs.beside(path, inputs)
        assert whole == pytest.approx(slower * calm)
        for now, then in zip(model.costs(self.ASKED), first, strict=True):
            assert now.original.value == pytest.approx(slower * then.original.value)
            assert now.choices == tuple(
                msgspec.structs.replace(one, value=pytest.approx(slower * one.value))
                for one in then.choices
            )

    def size(self, block, choice=None):
        return len(block_files(block, [choice], ".onnx", "float32")[0])

    def test_a_speed_that_changes_while_blocks_are_measured(self, tmp_path):
        """All are told as of one moment: that of the network, whatever came after."""
        device, costs = self.bench(tmp_path)
        device.slow = [1.0, 3.0, 0.5]  # the network, one block, the other
        _, model = costs.beside(*self.network(tmp_path))
        for (block, choices), found in zip(self.ASKED, model.costs(self.ASKED), strict=True):
            figures = [found.original, *found.choices]
            for choice, figure in zip([None, *choices], figures, strict=True):
                assert figure.value == pytest.approx(0.001 * self.size(block, choice))

    def test_without_a_network_the_moment_is_the_first_question(self, tmp_path):
        device, costs = self.bench(tmp_path)
        costs.costs(self.ASKED)
        device, costs = self.bench(tmp_path)
        device.slow = [2.0, 7.0]  # asked for once
        for _ in range(2):
            (found,) = costs.costs([(SMALL, [])])
            assert found.original.value == pytest.approx(0.002 * self.size(SMALL))

    def test_what_is_kept(self, tmp_path):
        device, costs = self.bench(tmp_path)
        device.slow = [5.0]
        costs.costs([(SMALL, [ONE])])
        (path,) = tmp_path.rglob("*.json")
        kept = json.loads(path.read_text())
        size = self.size(REFERENCE)
        assert kept["reference"] == pytest.approx(0.005 * size)
        assert kept["costs"]["original"]["value"] == pytest.approx(self.size(SMALL) / size)

    def test_files_of_an_older_schema_are_left_alone(self, tmp_path):
        """Their times are absolute."""
        _, costs = self.bench(tmp_path)
        costs.costs([(SMALL, [ONE])])
        (path,) = tmp_path.rglob("*.json")
        old = json.loads(path.read_text()) | {"schema": "dsconvert.block-costs/1"}
        del old["reference"]
        old["costs"]["original"]["value"] = 1e6
        path.write_text(json.dumps(old))
        (found,) = costs.costs([(SMALL, [ONE])])
        assert found.original.value == pytest.approx(0.001 * self.size(SMALL))
