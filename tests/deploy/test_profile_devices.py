"""A device that answers wrong has no latency, and what it answers is all that is believed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from block_form import save_block
from click.testing import CliRunner
from onnx import TensorProto, helper
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.deploy.devices.device import DeviceInfo, Job, MachineState, Report, TimedFile
from dsconvert.deploy.devices.host import HostDevice
from dsconvert.deploy.devices.local_transport import LocalTransport
from dsconvert.deploy.devices.records import OperatorTime, Startup
from dsconvert.deploy.devices.registry import find_device, open_device
from dsconvert.deploy.profiling.profile import profile
from dsconvert.deploy.runner.machine import usable_cpus
from dsconvert.deploy.runtimes.registry import open_runtime

CORES = usable_cpus()
STARTUP = Startup(load_ms=1, first_run_ms=2, peak_memory_mib=3, memory_increase_mib=1)


def save_model(path: Path, scale: float = 0.0) -> Path:
    """A product with a random matrix; with a scale, its output is quantized by it."""
    weight = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    tensors = [onnx.numpy_helper.from_array(weight, "w")]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")]
    if scale:
        tensors += [
            onnx.numpy_helper.from_array(np.float32(scale), "s"),
            onnx.numpy_helper.from_array(np.int8(0), "z"),
        ]
        nodes[0].output[0] = "real"
        nodes += [
            helper.make_node("QuantizeLinear", ["real", "s", "z"], ["q"]),
            helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
        ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("x", 64), ("y", 8))
    ]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], tensors)
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


class Board:
    """A device that runs files here, and then changes what it found."""

    name = "ssh:board"

    def __init__(self, *, emulated: bool = False, change=lambda outputs: outputs, **timed) -> None:
        self.emulated, self.change, self.timed = emulated, change, timed
        self.jobs: list[Job] = []

    def describe(self) -> DeviceInfo:
        info = {"cpu": "Cortex-A53", "architecture": "aarch64", "cores": 4}
        return DeviceInfo(name=self.name, **info, emulated=self.emulated)

    def measure_all(self, jobs, progress) -> list[Report]:
        (job,) = jobs
        self.jobs.append(job)
        files = []
        for case in job.cases:
            prepared = open_runtime(case.path).prepare(case.inputs)
            prepared.run()
            found = {
                "startup": STARTUP,
                "samples_ms": [2.0, 1.0, 3.0],
                "outputs": self.change(prepared.read()),
                "operators": (OperatorTime(name="product", type="MatMul", p50_ms=1, share=1),),
                "notes": ("of the file",),
            }
            files.append(TimedFile("ONNX Runtime", "1.2.3", **found | self.timed))
        state = MachineState(governor="performance")
        return [Report(self.describe(), state, state, tuple(files), ("of the board",))]


@pytest.fixture
def on(monkeypatch):
    """Make profile find this device, whatever the name."""

    def use(board: Board) -> Board:
        entry = replace(find_device("ssh:board"), open=lambda: board)
        monkeypatch.setattr(sys.modules[profile.__module__], "find_device", lambda *name: entry)
        return board

    return use


def measure(tmp_path: Path, scale: float = 0.0, **options):
    path = save_model(tmp_path / "m.onnx", scale)
    return profile([path, path], device="ssh:board", **options)[0]


class TestAnswers:
    def test_a_right_one_is_recorded_as_the_device_says(self, tmp_path, on) -> None:
        board = on(Board())
        one = measure(tmp_path, threads=2, cpus=[1, 3], runs=7, min_seconds=0.25, per_op=True)
        assert one.failure == ""
        assert one.latency.p50_ms == 2
        assert (one.runtime_version, one.cpu, one.cpus) == ("1.2.3", "Cortex-A53", (1, 3))
        assert one.startup == STARTUP
        assert (one.device, one.before) == (board.describe(), MachineState(governor="performance"))
        assert one.notes == ("of the board", "run on random inputs", "of the file")
        assert [(op.name, op.kind) for op in one.operators] == [("product", "dense")]
        (job,) = board.jobs
        assert (job.threads, job.cpus, job.runs, job.per_op) == (2, (1, 3), 7, True)

    def test_rounding_is_no_difference(self, tmp_path, on) -> None:
        on(Board(change=lambda outputs: tuple(o * np.float32(1 + 1e-5) for o in outputs)))
        assert measure(tmp_path).failure == ""

    def test_a_wrong_one_has_no_latency(self, tmp_path, on) -> None:
        on(Board(change=lambda outputs: tuple(o * np.float32(1.01) for o in outputs)))
        one = measure(tmp_path)
        assert one.latency is None
        assert one.failure.startswith("a wrong answer: y: SQNR 40.0 dB; at least 60 dB required")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda outputs: (), "it gave 0 outputs, this machine 1"),
            (lambda outputs: (outputs[0].T,), "output y has the shape 8×1, on this machine 1×8"),
            (lambda outputs: (outputs[0] * np.nan,), "its outputs hold NaN or infinity"),
        ],
    )
    def test_neither_has_one_of_another_form(self, tmp_path, on, change, said: str) -> None:
        on(Board(change=change))
        one = measure(tmp_path)
        assert (one.latency, one.gmacs_per_s) == (None, None)
        assert said in one.failure

    def test_a_quantized_one_may_be_rougher(self, tmp_path, on) -> None:
        """A step of 1 is a tenth of these outputs: 20 dB pass where int8 is stored, not else."""
        on(Board(change=lambda outputs: tuple(o + 1 for o in outputs)))
        assert measure(tmp_path, scale=1.0).failure == ""
        assert "a wrong answer" in measure(tmp_path).failure
        on(Board(change=lambda outputs: tuple(-o for o in outputs)))
        assert "at least 10 dB required" in measure(tmp_path, scale=1.0).failure

    def test_what_is_not_given_is_not_compared_and_said(self, tmp_path, on) -> None:
        on(Board(outputs=None))
        one = measure(tmp_path)
        assert one.latency is not None
        assert "its outputs were not compared with this machine's" in one.notes

    def test_emulated_times_are_none(self, tmp_path, on) -> None:
        on(Board(emulated=True))
        one = measure(tmp_path, per_op=True)
        assert (one.latency, one.startup) == (None, None)
        assert one.failure == "emulated: the times of an emulated processor are no latency"
        assert one.operators == "unavailable: emulated"
        on(Board(emulated=True, change=lambda outputs: tuple(-o for o in outputs)))
        assert "a wrong answer" in measure(tmp_path).failure

    def test_a_failure_and_no_timings_are_failures(self, tmp_path, on) -> None:
        on(Board(failure="Illegal instruction", samples_ms=(), outputs=None))
        assert measure(tmp_path).failure == "Illegal instruction"
        on(Board(samples_ms=()))
        assert measure(tmp_path).failure == "the device gave no timings"

    def test_what_a_device_cannot_tell_is_said(self, tmp_path, on) -> None:
        on(Board(startup="no second process", operators="unavailable: no profiler"))
        one = measure(tmp_path)
        assert "load time and memory are unavailable: no second process" in one.notes
        assert one.operators == "unavailable: no profiler"


class TestTwoSteps:
    def test_two_steps_of_the_outputs_scale_are_always_allowed(self, tmp_path) -> None:
        """An output of a few steps has no SQNR to speak of."""
        from dsconvert.deploy.runtimes.tensor_info import TensorInfo
        from dsconvert.deploy.verification.device_outputs import wrong_answer

        path = save_model(tmp_path / "m.onnx", 1.0)
        info = TensorInfo(name="y", shape=(1, 4), dtype="int8", scale=0.1, zero_point=0)
        here = np.array([[0.1, 0, -0.1, 0.2]], np.float32)
        for steps, allowed in ((1, True), (2, True), (3, False)):
            said = wrong_answer(path, [info], [here], [here + np.float32(0.1 * steps)])
            assert (said == "") is allowed


class TestHost:
    def test_it_is_a_device(self, tmp_path) -> None:
        (one,) = profile([save_model(tmp_path / "m.onnx")], runs=1, min_seconds=0)
        assert one.device == HostDevice().describe()
        assert one.macs == 64 * 8
        assert one.weight_bytes == 64 * 8 * 4
        assert one.activation_bytes == (64 + 8) * 4

    def test_what_is_not_installed_leaves_the_times(self, tmp_path, monkeypatch) -> None:
        path = save_model(tmp_path / "m.onnx")
        monkeypatch.setitem(sys.modules, "onnx", None)
        (one,) = profile([path], runs=1, min_seconds=0)
        assert one.latency is not None
        assert one.gmacs_per_s is None
        for figure in (one.macs, one.weight_bytes, one.activation_bytes):
            assert figure.startswith("unavailable: onnx is needed to read .onnx files")

    def test_it_may_be_emulated_itself(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setattr("dsconvert.deploy.runner.emulation.is_emulated", lambda: True)
        (one,) = profile([save_model(tmp_path / "m.onnx")], runs=1, min_seconds=0)
        assert (one.latency, one.startup) == (None, None)
        assert one.failure.startswith("emulated")

    @pytest.mark.skipif(not CORES, reason="this system cannot keep a process on cores")
    def test_cores_are_kept_for_workers_alone(self, tmp_path, monkeypatch) -> None:
        seen: list[list[int]] = []
        real = LocalTransport.get

        async def get(self, path):
            found = await real(self, path)
            if path.endswith("report.json"):
                job = json.loads(Path(path).with_name("job.json").read_text())
                seen.append(job["cpus"])
            return found

        monkeypatch.setattr(LocalTransport, "get", get)
        (one,) = profile([save_model(tmp_path / "m.onnx")], cpus=CORES[-1:], runs=1, min_seconds=0)
        assert one.failure == ""
        assert one.cpus == tuple(CORES[-1:])
        assert seen == [CORES[-1:]]
        assert usable_cpus() == CORES

    @pytest.mark.skipif(not CORES, reason="this system cannot keep a process on cores")
    def test_there_is_no_such_core(self, tmp_path) -> None:
        missing = max(CORES) + 1
        with pytest.raises(InputError, match=f"no core {missing} to use; allowed: {CORES[0]}"):
            profile([save_model(tmp_path / "m.onnx")], cpus=[CORES[0], missing])

    def test_a_session_that_runs_elsewhere_is_an_error(self, tmp_path, monkeypatch) -> None:
        import onnxruntime

        monkeypatch.setattr(
            onnxruntime.InferenceSession, "get_providers", lambda self: ["OtherProvider"]
        )
        with refuses("provider-not-used"):
            profile([save_model(tmp_path / "m.onnx")])


class TestRefusals:
    def test_names(self) -> None:
        assert open_device("host").name == "host"
        for name in ("hst", "host:1", "ethos-u55"):
            with refuses("unknown-device"):
                open_device(name)
        for name in ("ssh", "ssh:", "adb:"):
            with refuses("unknown-device"):
                open_device(name)
        for name, unit in (("ethos-u55-128", "cycles"), ("mcu", ""), ("ssh:mcu", "ms")):
            assert find_device(name).capabilities.unit == unit

    def test_a_runtime_that_does_not_run_the_format(self, tmp_path) -> None:
        path = save_model(tmp_path / "m.onnx")
        with pytest.raises(InputError, match=r"litert runs \.tflite files only, ONNX Runtime runs"):
            profile([path], runtime="litert")
        with refuses("unknown-runtime"):
            profile([path], runtime="tvm")
        (one,) = profile([path], runtime="ort", runs=1, min_seconds=0)
        assert one.failure == ""

    def test_estimates_have_no_cores(self, tmp_path) -> None:
        path = save_model(tmp_path / "m.onnx")
        with refuses("option-not-applicable"):
            profile([path], device="ethos-u55-128", per_op=True)

    @pytest.mark.parametrize("cpus", ["a", "3-1", "1,,2", "-1", "1-"])
    def test_cores_that_are_none(self, tmp_path, cpus: str) -> None:
        path = save_model(tmp_path / "m.onnx")
        result = CliRunner().invoke(main, ["profile", str(path), "--cpus", cpus])
        assert result.exit_code == 2
        assert "write them as 4-7 or 0,2,4" in result.output


def test_cores_as_the_kernel_lists_them() -> None:
    from dsconvert.cli.profile import Cpus

    assert Cpus().convert("4-7,1,5", None, None) == (1, 4, 5, 6, 7)


def test_a_tflite_file_needs_no_framework(tmp_path) -> None:
    """Start-up is imports: TensorFlow takes seconds, ONNX and SciPy tenths of one."""
    block = Block(input_size=(9, 9), in_channels=3, out_channels=4, kernel_size=(3, 3))
    path = save_block(tmp_path / "m.tflite", block)
    code = f"""
import sys
from dsconvert.cli import main
main(["profile", {str(path)!r}, "--runs", "1", "--min-seconds", "0"], standalone_mode=False)
heavy = {{"tensorflow", "keras", "onnx", "onnxruntime", "scipy", "tf2onnx", "PIL", "asyncssh"}}
print("loaded:", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "loaded: []" in done.stdout
    assert "LiteRT" in done.stdout


def test_no_figure_is_cut_in_eighty_columns(tmp_path, monkeypatch):
    """Columns go as a whole."""
    monkeypatch.setenv("COLUMNS", "80")
    block = Block(input_size=(9, 9), in_channels=3, out_channels=4, kernel_size=(3, 3))
    paths = [str(save_block(tmp_path / f"a long name, {n}.tflite", block)) for n in range(2)]
    shown = CliRunner().invoke(main, ["profile", *paths, "--runs", "1", "--min-seconds", "0"])
    table = shown.stdout.partition("Note:")[0]
    assert shown.exit_code == 0, shown.output
    assert max(map(len, table.splitlines())) <= 80
    assert "LiteRT" in table
    cells = [cell for line in table.splitlines()[1:] for cell in line.split("  ")[1:]]
    assert not [cell for cell in cells if "…" in cell]
    assert "not shown at this width: min" in table
