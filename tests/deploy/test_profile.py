"""Measurements say what was measured, and nothing about wrong answers."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dsconvert.base.errors import InputError
from dsconvert.deploy.profiling.latency import compare, summarize, verdict
from dsconvert.deploy.profiling.profile import profile
from dsconvert.deploy.profiling.records import Measurement

SHARED = Path(os.environ.get("DSCONVERT_SHARED", Path(__file__).parents[3] / "shared"))


def save_chain(path, matmuls: int, *, nodes=(), width: int = 256) -> Path:
    """A chain of products with one random matrix that keeps lengths: time grows with its own."""
    weight = np.random.default_rng(0).normal(size=(width, width)) / np.sqrt(width)
    names = [f"x{i}" for i in range(matmuls + 1)]
    chain = [
        helper.make_node("MatMul", [before, "w"], [after]) for before, after in pairwise(names)
    ]
    return save(
        path,
        [*chain, *(nodes or [helper.make_node("Identity", [names[-1]], ["y"])])],
        ("x0", "y"),
        ["n", width],
        [onnx.numpy_helper.from_array(weight.astype(np.float32), "w")],
    )


def save(path, nodes, names, shape, initializers=()) -> Path:
    """Write an .onnx file with one input and one output of this shape."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names]
    graph = helper.make_graph(nodes, "graph", values[:1], values[1:], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def test_slower_and_faster_are_told_apart(tmp_path):
    middle, long, short = (save_chain(tmp_path / f"{n}.onnx", n) for n in (10, 40, 2))
    steps = []

    class Progress:
        def __init__(self, label, total):
            self.total = total

        def __enter__(self):
            return lambda: steps.append(self.total)

        def __exit__(self, *error):
            return None

    first, slower, faster = profile(
        [middle, long, short], runs=50, min_seconds=0.1, warmup=3, progress=Progress
    )

    assert steps == [6] * 6
    assert first.comparison is None
    assert slower.comparison.verdict == "slower"
    assert slower.comparison.low > 2
    assert faster.comparison.verdict == "faster"
    assert faster.comparison.high < 0.5
    assert faster.comparison.baseline == str(middle)
    for one in (first, slower, faster):
        latency = one.latency
        assert one.runs == len(latency.samples_ms) >= 50
        assert (
            0
            < latency.min_ms
            <= latency.p50_ms
            <= latency.p90_ms
            <= latency.p95_ms
            <= latency.p99_ms
            <= latency.max_ms
            == max(latency.samples_ms)
        )
        assert latency.inferences_per_s == pytest.approx(1000 / latency.p50_ms)
        assert (one.warmup, one.threads, one.batch, one.failure) == (3, 1, 1, "")
        assert one.size_bytes == Path(one.path).stat().st_size
        assert (one.runtime, one.runtime_version) == ("ONNX Runtime", onnxruntime_version())
        assert one.cpu
        assert "run on random inputs" in one.notes
        assert one.startup.load_ms > 0
        assert one.startup.first_run_ms > 0
        assert one.startup.peak_memory_mib > one.startup.memory_increase_mib > 0
    assert len({one.sha256 for one in (first, slower, faster)}) == 3


def onnxruntime_version() -> str:
    import onnxruntime

    return onnxruntime.__version__


def test_copies_of_one_file_hardly_differ(tmp_path):
    a, b = (save_chain(tmp_path / name, 10) for name in ("a.onnx", "b.onnx"))
    _, copy = profile([a, b], runs=300)
    assert copy.comparison.ratio == pytest.approx(1, abs=0.1)
    assert copy.comparison.low <= copy.comparison.ratio <= copy.comparison.high


def test_measurement_survives_json(tmp_path):
    (measurement,) = profile([save_chain(tmp_path / "m.onnx", 2)], runs=5, min_seconds=0)
    encoded = msgspec.json.encode(measurement)
    assert encoded.startswith(b'{"schema":"dsconvert.measurement/1"')
    assert msgspec.json.decode(encoded, type=Measurement) == measurement
    assert measurement.runs == 5


def test_peak_memory_is_the_files_own(tmp_path):
    """A file 32 MiB larger needs so much more; what this process holds does not count."""
    ballast = np.ones(400 * 2**17)  # 400 MiB
    small = save_chain(tmp_path / "small.onnx", 1, width=256)
    large = save_chain(tmp_path / "large.onnx", 1, width=2896)
    one, other = (m.startup for m in profile([small, large], runs=1, min_seconds=0))
    assert other.memory_increase_mib - one.memory_increase_mib > 30
    assert one.peak_memory_mib < 300
    assert ballast[0] == 1


def test_wrong_answer_has_no_latency(tmp_path):
    sound = save_chain(tmp_path / "sound.onnx", 2)
    wrong = save_chain(
        tmp_path / "wrong.onnx",
        2,
        nodes=[
            helper.make_node("Sub", ["x2", "x2"], ["zero"]),
            helper.make_node("Div", ["x2", "zero"], ["y"]),
        ],
    )
    first, failed = profile([sound, wrong], runs=5, min_seconds=0)
    assert first.latency is not None
    assert (failed.latency, failed.comparison) == (None, None)
    assert failed.failure == "its outputs hold NaN or infinity"


def test_inputs_by_name_order_or_alone(tmp_path):
    path = save_chain(tmp_path / "m.onnx", 2)
    data = np.zeros((7, 256), np.float32)
    for inputs in (data, [data], {"x0": data, "other": data}):
        (measurement,) = profile([path], inputs=inputs, runs=1, min_seconds=0)
        assert measurement.notes == () or "random" not in " ".join(measurement.notes)
        assert measurement.batch == 1


class TestRefusals:
    def test_before_anything_is_loaded(self, tmp_path):
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"not a model")
        for paths, options, message in (
            ([], {}, "no files"),
            ([broken], {"threads": 0}, "threads must be 1"),
            ([broken], {"runs": 0}, "runs must be 1"),
            ([broken], {"warmup": -1}, "warmup must be 0"),
            ([broken, tmp_path / "missing.onnx"], {}, "does not exist"),
            ([broken, tmp_path / "model.h5"], {}, "is a Keras model"),
            ([broken], {}, "is not an ONNX model"),
        ):
            with pytest.raises(InputError, match=message):
                profile(paths, **options)

    def test_keras_files_get_the_command_to_export_them(self, tmp_path):
        with pytest.raises(InputError) as refused:
            profile([tmp_path / "model.keras"])
        assert "dsconvert export" in refused.value.words.hint

    def test_free_sizes_need_inputs(self, tmp_path):
        path = tmp_path / "free.onnx"
        save(path, [helper.make_node("Relu", ["x"], ["y"])], ("x", "y"), ["n", 3, "h", "w"])
        with pytest.raises(InputError, match=r"input x has free sizes \(n×3×\?×\?\)") as refused:
            profile([path])
        assert "input data" in refused.value.hint
        (measurement,) = profile([path], inputs=np.zeros((2, 3, 8, 9)), runs=1, min_seconds=0)
        assert measurement.latency is not None

    def test_name_that_is_missing(self, tmp_path):
        path = save_chain(tmp_path / "m.onnx", 1)
        with pytest.raises(InputError, match="no array for input x0; there are arrays for y"):
            profile([path], inputs={"y": np.zeros((1, 256))})


def test_runner_that_does_not_start_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    (measurement,) = profile([save_chain(tmp_path / "m.onnx", 1)], runs=1, min_seconds=0)
    assert (measurement.startup, measurement.latency) == (None, None)
    assert measurement.failure == "the runner failed on host: exit code 1"


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_ctrl_c_leaves_neither_process_nor_files(tmp_path):
    path = save_chain(tmp_path / "m.onnx", 1)
    (tmp_path / "temporary").mkdir()
    script = """
import signal
import sys
from dsconvert.deploy.profiling.profile import profile
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell's & starts
profile([sys.argv[1]], runs=10**9)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
    )
    try:
        report = wait_for(lambda: next((tmp_path / "temporary").glob("*/report.json"), None))
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "KeyboardInterrupt" in complaints
    assert not report.parent.exists()
    assert not any(str(report.parent) in line for line in command_lines())


def wait_for(found, seconds=60.0):
    """What a function finds in the end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if (one := found()) is not None:
            return one
        time.sleep(0.05)
    raise TimeoutError


def command_lines():
    """Of all processes."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            yield path.read_bytes().decode(errors="replace")


def test_inside_a_running_loop(tmp_path):
    """As in notebooks."""
    path = save_chain(tmp_path / "m.onnx", 1)

    async def notebook():
        return profile([path], runs=1, min_seconds=0)

    (measurement,) = asyncio.run(notebook())
    assert measurement.failure == ""


class TestLatency:
    def test_percentiles_and_throughput(self):
        latency = summarize([float(n) for n in range(1, 102)], batch=2)
        assert (latency.p50_ms, latency.p90_ms, latency.p99_ms) == (51, 91, 100)
        assert (latency.p95_ms, latency.min_ms, latency.max_ms) == (96, 1, 101)
        assert latency.mean_ms == 51
        assert latency.std_ms == pytest.approx(np.sqrt((101**2 - 1) / 12))
        assert latency.inferences_per_s == pytest.approx(2 * 1000 / 51)

    def test_common_disturbances_cancel(self):
        """Twice the time in every round: the interval closes around 2, whatever the noise."""
        noise = np.random.default_rng(0).lognormal(size=300)
        comparison = compare("a", summarize(noise, 1), summarize(2 * noise, 1), seed=0)
        assert (comparison.low, comparison.high) == (pytest.approx(2), pytest.approx(2))

    def test_interval_covers_the_true_ratio(self):
        """Independent noise of known medians: 95 % of intervals should cover, 90 % must."""
        rng = np.random.default_rng(0)
        covered = 0
        for seed in range(100):
            a, b = rng.lognormal(0, 0.1, 300), rng.lognormal(np.log(1.02), 0.1, 300)
            comparison = compare("a", summarize(a, 1), summarize(b, 1), seed)
            covered += comparison.low <= 1.02 <= comparison.high
        assert covered >= 90

    @pytest.mark.parametrize(
        ("low", "high", "said"),
        [
            (0.9, 0.98, "faster"),
            (0.9, 0.995, "no measurable difference"),
            (0.9, 1.1, "no measurable difference"),
            (1.005, 1.1, "no measurable difference"),
            (1.02, 1.1, "slower"),
        ],
    )
    def test_verdict(self, low, high, said):
        assert verdict(low, high, 0.01) == said


@pytest.mark.parametrize(
    "name", ["mnist_cntk_op8", "squeezenet_fp16", "ultraface_rfb_320", "resnet8_int8_qdq"]
)
def test_real_models(name):
    path = SHARED / f"models/onnx/{name}.onnx"
    if not path.exists():
        pytest.skip("the shared models are not here")
    (measurement,) = profile([path], runs=5, min_seconds=0)
    assert measurement.latency is not None


def test_a_number_beside_a_signal_is_timed(tmp_path):
    """As the sampling rate of a speech detector."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["rate"], ["r"], to=TensorProto.FLOAT),
            helper.make_node("Mul", ["signal", "r"], ["y"]),
        ],
        "g",
        [value("signal", TensorProto.FLOAT, ["n", 8]), value("rate", TensorProto.INT64, [])],
        [value("y", TensorProto.FLOAT, ["n", 8])],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    model = onnx.load(path)
    model.ir_version = 9
    onnx.save(model, path)
    (measured,) = profile([path], runs=3, warmup=1, min_seconds=0)
    assert measured.failure == ""
    assert measured.latency is not None
