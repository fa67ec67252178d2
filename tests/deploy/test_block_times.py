"""Blocks are timed in turns, or estimated. No test asserts a time."""

import logging
import sys
from itertools import count

import numpy as np
import pytest
from cost_blocks import FIRST, MIDDLE, MULTIPLIER, ONE, SMALL, STRIDED, TWO, U55
from refusals import refuses

from dsconvert.base.errors import InputError, MissingExtra
from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.converter.core.types import Figure
from dsconvert.deploy.costs import (
    Target,
    estimate,
    measured_costs,
    on_device,
)
from dsconvert.deploy.costs.on_device import DeviceBench
from dsconvert.deploy.costs.relative import REFERENCE
from dsconvert.deploy.devices.device import MachineState, Report, TimedFile
from dsconvert.deploy.devices.records import DeviceInfo
from dsconvert.deploy.runner.timing import time_in_rounds


class Clock:
    """A clock that only the invocations move."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now

    def takes(self, durations_ms):
        """An invocation that takes the next of these times."""
        runs = count()

        def run():
            self.now += int(1e6 * durations_ms[next(runs) % len(durations_ms)])

        return run


class TestTiming:
    def test_rounds_and_their_end(self):
        clock = Clock()
        fast, slow = time_in_rounds(
            [clock.takes([1]), clock.takes([3])], 7, 0.1, 0, max_runs=1000, clock=clock
        )
        assert set(fast) == {1}
        assert set(slow) == {3}
        # 0.2 s for both; a round is 6 runs of each, one of them untimed: 24 ms, so 9 rounds.
        assert len(fast) == len(slow) == 45

    def test_fewest_and_most_runs(self):
        for seconds, most, expected in ((0, 1000, 10), (9, 40, 40)):
            clock = Clock()
            (times,) = time_in_rounds([clock.takes([1])], 7, seconds, 0, max_runs=most, clock=clock)
            assert len(times) == expected


class Timed:
    """A device where the files of a job take these times."""

    def __init__(self, samples):
        self.samples = samples

    def measure_all(self, jobs, **options):
        self.jobs, self.options = jobs, options
        times = [[1.0], *self.samples]  # the reference block is first
        files = tuple(TimedFile("LiteRT", "1", "", samples_ms=tuple(one)) for one in times)
        info = DeviceInfo(name="host", cpu="", architecture="", cores=1)
        return [Report(info, MachineState(), MachineState(), files)]


class TestMeasuring:
    @pytest.fixture
    def timed(self, monkeypatch):
        """Measure on a device where the forms take the times given for them."""
        real = on_device.block_files

        def timed(durations, **options):
            def block_files(block, forms, suffix, precision):
                made = real(block, forms, suffix, precision)
                if block == REFERENCE:
                    return made
                failed = [durations[choice] for choice in forms]
                return [
                    why if isinstance(why, Exception) else one
                    for one, why in zip(made, failed, strict=True)
                ]

            monkeypatch.setattr(on_device, "block_files", block_files)
            device = Timed([one for one in durations.values() if not isinstance(one, Exception)])
            choices = [choice for choice in durations if choice is not None]
            (found,) = DeviceBench(device, Target(), **options).measure([(SMALL, choices)])
            assert found.reference == 1
            return found.costs, device

        return timed

    def test_faster_only_beyond_the_noise(self, timed):
        noise = np.random.default_rng(0).lognormal(0, 0.05, (4, 1000))
        costs, _ = timed(
            {None: noise[0], ONE: 0.5 * noise[1], TWO: 2 * noise[2], FIRST: 0.995 * noise[3]}
        )
        assert costs.original == Figure(value=pytest.approx(1, rel=0.05))
        half, double, same = costs.choices
        assert [figure.faster for figure in costs.choices] == [True, False, False]
        for figure, ratio in ((half, 0.5), (double, 2), (same, 0.995)):
            assert figure.value == pytest.approx(ratio, rel=0.05)
            assert figure.ratio_low < ratio < figure.ratio_high
            assert figure.ratio_high / figure.ratio_low < 1.1

    def test_noise_widens_the_interval(self, timed):
        calm, wild = (
            timed({None: noise[0], ONE: 0.97 * noise[1]})[0].choices[0]
            for noise in (
                np.random.default_rng(0).lognormal(0, deviation, (2, 1000))
                for deviation in (0.01, 0.5)
            )
        )
        assert calm.faster
        assert not wild.faster
        assert wild.ratio_low < calm.ratio_low < calm.ratio_high < wild.ratio_high

    def test_what_is_asked_of_the_device(self, timed):
        _, device = timed({None: [100.0], ONE: [50.0]}, seconds=0.1)
        (job,) = device.jobs
        assert (job.runs, job.min_seconds, len(job.cases)) == (30, pytest.approx(0.1 / 3), 3)
        assert device.options == {"startup": False, "max_runs": 400}

    def test_choice_that_cannot_run_has_no_figure(self, timed, caplog):
        caplog.set_level(logging.WARNING)
        costs, _ = timed({None: [1.0], ONE: RuntimeError("no kernel"), TWO: [2.0]})
        assert costs.choices[0] is None
        assert costs.choices[1].value == 2
        assert "3×3 convolution 8→8 on 8×8 as 1 × depthwise-first (sum)" in caplog.text
        assert "no kernel" in caplog.text

    def test_original_that_cannot_run_is_refused(self, timed):
        with pytest.raises(InputError, match=r"the 3×3 convolution 8→8 on 8×8 .*: no kernel"):
            timed({None: RuntimeError("no kernel"), ONE: [1.0]})
        with pytest.raises(MissingExtra):
            timed({None: [1.0], ONE: MissingExtra("no LiteRT")})

    @pytest.mark.parametrize("precision", ["float32", "int8"])
    @pytest.mark.parametrize("runtime", ["litert", "ort"])
    def test_real_runtimes(self, tmp_path, runtime, precision):
        target = Target(runtime=runtime, precision=precision)
        choices = [ONE, FIRST, TWO, MULTIPLIER]
        (costs,) = measured_costs(target, cache=tmp_path, seconds=0.01).costs([(SMALL, choices)])
        assert costs.original.value > 0
        for figure in costs.choices:
            assert figure.value > 0
            assert 0 < figure.ratio_low <= figure.ratio_high

    def test_block_that_is_none(self, tmp_path):
        empty = Block(
            input_size=(2, 2), in_channels=8, out_channels=8, kernel_size=(3, 3), padding="valid"
        )
        with pytest.raises(InputError, match="3×3 convolution 8→8 on 2×2, padding valid"):
            measured_costs(Target(), cache=tmp_path).costs([(empty, [ONE])])


class TestVela:
    def test_cycles_are_repeatable_and_fewer_for_a_pair(self, tmp_path):
        first, second = (
            measured_costs(U55, cache=tmp_path / name).costs([(MIDDLE, [ONE, MULTIPLIER])])[0]
            for name in ("a", "b")
        )
        assert first == second
        pair, multiplier = first.choices
        assert pair.value < first.original.value
        assert pair.faster
        assert pair.ratio_low == pair.ratio_high == pair.value / first.original.value
        assert multiplier.value > pair.value

    def test_accelerators_differ(self, tmp_path):
        small, large = (
            measured_costs(Target(precision="int8", device=f"ethos-u55-{macs}"), cache=tmp_path)
            .costs([(MIDDLE, [])])[0]
            .original.value
            for macs in (32, 256)
        )
        assert small > 2 * large

    def test_form_that_stays_on_the_cpu_has_no_cost(self, tmp_path, caplog):
        """The NPU has no depthwise convolution of stride 4."""
        (costs,) = measured_costs(U55, cache=tmp_path).costs([(STRIDED, [ONE])])
        assert costs.original.value > 0
        assert costs.choices == (None,)
        assert "ethos-u55-128 leaves a part of it to the CPU" in caplog.text

    def test_files_that_it_cannot_take(self, tmp_path):
        garbage = tmp_path / "garbage.tflite"
        garbage.write_bytes(b"garbage" * 10)
        for path, accelerator, message in (
            (garbage, "ethos-u55-128", "garbage.tflite cannot be compiled for ethos-u55-128 by V"),
            (garbage, "ethos-u54", "unknown accelerator 'ethos-u54'"),
            (tmp_path / "missing.tflite", "ethos-u55-128", "missing.tflite does not exist"),
        ):
            with pytest.raises(InputError, match=message):
                estimate(path, accelerator)

    def test_without_it_the_extra_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "ethosu.vela", None)
        with refuses("missing-extra") as refused:
            measured_costs(U55, cache=tmp_path)
        assert "dsconvert[ethosu]" in refused.value.hint
