"""Two saved runs: paired rightly, refused where they say nothing, told apart where they do."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx_native import Net
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.deploy.devices.records import DeviceInfo, MachineState
from dsconvert.deploy.profiling.compare_runs import compare_runs, read_run
from dsconvert.deploy.profiling.latency import compare, summarize
from dsconvert.deploy.profiling.records import Estimate, Measurement


def record(path: str = "a.tflite", median: float = 1.0, **changes: object) -> Measurement:
    """A measurement of 300 noisy samples."""
    seed = sum(map(ord, path)) + int(1000 * median)
    samples = median * np.random.default_rng(seed).lognormal(0, 0.05, 300)
    standard = {
        "path": path,
        "sha256": path,
        "size_bytes": 1,
        "runtime": "LiteRT",
        "runtime_version": "2.3.0",
        "cpu": "Cortex-A53",
        "threads": 1,
        "batch": 1,
        "warmup": 1,
        "runs": 300,
        "startup": None,
        "latency": summarize(samples.tolist(), 1),
        "device": DeviceInfo(name="host", cpu="Cortex-A53", architecture="aarch64", cores=4),
        "before": MachineState(governor="performance"),
        "notes": ("run on random inputs",),
    }
    return Measurement(**standard | changes)


class TestPairs:
    def test_by_hash_then_by_name_then_what_is_left(self) -> None:
        first = [record("x/a.tflite"), record("x/b.tflite"), record("c.tflite")]
        second = [
            record("y/b.tflite", sha256="other"),
            record("moved.tflite", sha256="x/a.tflite"),
            record("d.tflite"),
        ]
        found = compare_runs(first, second)
        assert [(p.first, p.second, p.paired_by, p.same_file) for p in found.pairs] == [
            ("x/a.tflite", "moved.tflite", "hash", True),
            ("x/b.tflite", "y/b.tflite", "name", False),
            ("c.tflite", "d.tflite", "being the only ones left", False),
        ]
        assert (found.only_first, found.only_second) == ((), ())

    def test_what_is_in_one_run_only_is_listed(self) -> None:
        first = [record("a.tflite"), record("b.tflite")]
        second = [record("a.tflite"), record("c.tflite"), record("d.tflite")]
        found = compare_runs(first, second)
        assert found.only_first == ("b.tflite",)
        assert found.only_second == ("c.tflite", "d.tflite")

    def test_nothing_in_common(self) -> None:
        with pytest.raises(InputError, match=r"no file in common: a.tflite, b.tflite and c"):
            compare_runs([record("a.tflite"), record("b.tflite")], [record("c.tflite")])


class TestRatios:
    def test_a_difference_beyond_what_two_runs_leave_open(self) -> None:
        for median, said in ((0.8, "faster"), (1.25, "slower"), (1.0, "no measurable difference")):
            (pair,) = compare_runs([record()], [record(median=median)]).pairs
            assert pair.comparison.verdict == said
            assert pair.comparison.ratio == pytest.approx(median, rel=0.02)
            assert pair.comparison.low <= pair.comparison.ratio <= pair.comparison.high

    def test_two_runs_leave_more_open_than_one(self) -> None:
        """2.5 % are a difference between files that took turns, and none between two runs."""
        noise = np.random.default_rng(0).lognormal(0, 0.01, 600)
        a, b = summarize(noise[:300].tolist(), 1), summarize((1.025 * noise[300:]).tolist(), 1)
        assert compare("a", a, b, 0).verdict == "slower"
        assert compare("a", a, b, 0, paired=False).verdict == "no measurable difference"

    def test_the_interval_covers_the_true_ratio(self) -> None:
        """Independent noise of known medians: 95 % of intervals should cover, 90 % must."""
        rng = np.random.default_rng(0)
        covered = 0
        for seed in range(100):
            a = summarize(rng.lognormal(0, 0.1, 300).tolist(), 1)
            b = summarize(rng.lognormal(np.log(1.02), 0.1, 200).tolist(), 1)
            found = compare("a", a, b, seed, paired=False)
            covered += found.low <= 1.02 <= found.high
        assert covered >= 90

    def test_common_disturbances_do_not_cancel(self) -> None:
        """Paired, twice the same noise gives an interval of no width; of two runs it must not."""
        noise = np.random.default_rng(0).lognormal(0, 0.3, 300)
        found = compare("a", summarize(noise, 1), summarize(2 * noise, 1), 0, paired=False)
        assert found.high - found.low > 0.05

    def test_a_failure_has_no_ratio(self) -> None:
        failed = record(latency=None, failure="a wrong answer")
        (pair,) = compare_runs([record()], [failed]).pairs
        assert (pair.comparison, pair.second_p50_ms) == (None, None)
        assert pair.notes == ("failed in the second run: a wrong answer",)


DEVICE = DeviceInfo(name="ssh:pi", cpu="Cortex-A53", architecture="aarch64", cores=4)


class TestRefusals:
    @pytest.mark.parametrize(
        ("changes", "said", "allow"),
        [
            ({"device": DEVICE}, "the devices are host and ssh:pi", "device"),
            ({"cpu": "Cortex-A76"}, "the processors are Cortex-A53 and Cortex-A76", "cpu"),
            ({"threads": 4}, "the threads are 1 and 4", "threads"),
            ({"cpus": (2, 3)}, "the cores are all and 2, 3", "cpus"),
            ({"runtime": "ONNX Runtime"}, "the runtimes are LiteRT and ONNX Runtime", "runtime"),
            (
                {"runtime_version": "2.4.0"},
                "the runtime's versions are 2.3.0 and 2.4.0",
                "version",
            ),
        ],
    )
    def test_what_differs_is_said_and_can_be_allowed(self, changes, said, allow) -> None:
        with refuses("runs-not-comparable") as refused:
            compare_runs([record()], [record(**changes)])
        assert said in refused.value.message
        assert refused.value.words.hint.endswith(f": --allow {allow}")
        assert compare_runs([record()], [record(**changes)], allow=[allow]).allowed == (said,)

    def test_all_that_differs_is_said_at_once(self) -> None:
        with pytest.raises(InputError) as refused:
            compare_runs([record()], [record(threads=2, cpus=(0,))], allow=["device"])
        assert refused.value.words.hint.endswith(": --allow threads --allow cpus")
        assert "1 and 2; the cores" in refused.value.message

    def test_another_amount_of_work_cannot_be_allowed(self) -> None:
        with pytest.raises(InputError, match="samples per invocation are 1 and 8") as refused:
            compare_runs([record()], [record(batch=8)])
        assert refused.value.hint == ""
        with refuses("unknown-difference"):
            compare_runs([record()], [record(batch=8)], allow=["batch"])

    def test_estimates(self) -> None:
        estimate = Estimate(kind="npu", method="Vela")
        with refuses("estimates-not-comparable"):
            compare_runs([record()], [record(latency=None, estimate=estimate)])

    def test_what_may_explain_a_difference_is_noted(self) -> None:
        other = record(before=MachineState(governor="powersave"), notes=("it warmed",))
        assert compare_runs([record()], [other]).notes == (
            "in the second run it warmed",
            "one of the runs is on random inputs",
            "the governors are performance and powersave",
        )


class TestCommand:
    def save(self, path: Path, *records: Measurement) -> str:
        path.write_bytes(msgspec.json.encode(list(records)))
        return str(path)

    def test_prints_and_refuses(self, tmp_path: Path) -> None:
        first = self.save(tmp_path / "1.json", record(), record("b.tflite"))
        second = self.save(tmp_path / "2.json", record(median=0.5, threads=2))
        refused = CliRunner().invoke(main, ["compare", first, second])
        assert refused.exit_code == 2
        assert "the threads are 1 and 2" in refused.stderr
        result = CliRunner().invoke(main, ["compare", first, second, "--allow", "threads"])
        assert result.exit_code == 0
        assert "2.00× as fast" in result.stdout.replace("1.99×", "2.00×").replace("2.01×", "2.00×")
        assert "faster" in result.stdout
        assert "b.tflite: only in the first run" in result.stdout
        printed = CliRunner().invoke(
            main, ["compare", first, second, "--allow", "threads", "--json"]
        )
        assert json.loads(printed.stdout)["pairs"][0]["comparison"]["verdict"] == "faster"

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            (None, "cannot be read: No such file"),
            (b"TFL3", "is no saved run"),
            (b"{}", "is no saved run"),
            (b"[]", "is a run of no files"),
            (b'[{"schema": "dsconvert.measurement/2"}]', "is no saved run"),
        ],
    )
    def test_what_is_no_run(self, tmp_path: Path, content: bytes | None, said: str) -> None:
        path = tmp_path / "run.json"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=said):
            read_run(path)

    def test_what_profile_prints_is_read(self, tmp_path: Path) -> None:
        net = Net()
        net.conv("x", "y")
        onnx.save(net.model("y"), tmp_path / "net.onnx")
        words = ["profile", str(tmp_path / "net.onnx"), "--runs", "3", "--min-seconds", "0"]
        printed = CliRunner().invoke(main, [*words, "--json"])
        assert printed.exit_code == 0, printed.output
        (tmp_path / "run.json").write_text(printed.stdout)
        (one,) = read_run(tmp_path / "run.json")
        assert (one.path, one.runs) == (str(tmp_path / "net.onnx"), 3)
        assert one.latency is not None
        assert len(one.latency.samples_ms) == 3
