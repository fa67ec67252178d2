"""Phones by adb, with a program that answers as adb does (`fake_adb`)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import fake_adb
import numpy as np
import pytest
from block_form import save_block
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.base.predictor import Array
from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.converter.core.types import Choice
from dsconvert.deploy.costs import Target, measured_costs, target_for
from dsconvert.deploy.devices import android
from dsconvert.deploy.devices.adb import AdbDevice, binary_place
from dsconvert.deploy.devices.adb_shell import listed
from dsconvert.deploy.devices.benchmark_turns import split_outputs
from dsconvert.deploy.devices.device import Case, Job, Report
from dsconvert.deploy.devices.elf import architecture
from dsconvert.deploy.profiling.latency import compare, summarize
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.deploy.runtimes.tensor_info import TensorInfo

Plug = Callable[..., Path]


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plug:
    """Put an adb with these phones on the PATH, and a benchmark_model into the cache."""

    def make(*phones: dict[str, object]) -> Path:
        bin_folder = fake_adb.install(tmp_path / "adb", *phones)
        monkeypatch.setenv("PATH", f"{bin_folder}:/usr/bin:/bin")
        return tmp_path / "adb" / "phones"

    monkeypatch.delenv("ADB", raising=False)
    monkeypatch.setenv("DSCONVERT_CACHE", str(tmp_path / "cache"))
    fake_adb.binary(binary_place("arm64-v8a"))
    return make


def case(folder: Path, name: str = "m.tflite", channels: int = 2, precision: str = "int8") -> Case:
    """A convolution as a .tflite file, with random inputs."""
    block = Block(input_size=(4, 4), in_channels=3, out_channels=channels, kernel_size=(3, 3))
    path = save_block(folder / name, block, None, precision)
    runtime = open_runtime(path)
    image = np.random.default_rng(0).normal(size=(1, 4, 4, 3)).astype(np.float32)
    return Case(path, "litert", (image,), runtime.inputs, runtime.outputs)


def measure(job: Job, name: str = "adb", **options: object) -> Report:
    return AdbDevice(name, **options).measure_all([job])[0]  # type: ignore[arg-type]


def expected(one: Case) -> Array:
    (output,) = open_runtime(one.path).predict(list(one.inputs))
    return output


def left_behind(phones: Path) -> list[str]:
    return [path.name for path in phones.glob("*/data/local/tmp/*")]


def test_a_phone_measures_two_files_in_turns(plug: Plug, tmp_path: Path) -> None:
    phones = plug({"output": "new"})
    small = case(tmp_path, "a.tflite", 2)
    large = case(tmp_path, "b.tflite", 64, "float32")
    report = measure(Job((small, large), runs=6, min_seconds=0, per_op=True, cpus=(2, 3)))
    first, second = report.files
    assert first.failure == second.failure == ""
    assert len(first.samples_ms) == len(second.samples_ms) == 6
    # The stand-in takes 1 µs per byte, and one more in each process.
    assert min(second.samples_ms) * 1e3 > large.path.stat().st_size
    assert np.median(first.samples_ms) < np.median(second.samples_ms)
    for one, found in ((small, first), (large, second)):
        assert found.outputs is not None
        np.testing.assert_allclose(found.outputs[0], expected(one), rtol=1e-5, atol=1e-5)
    order = (phones / "SERIAL0" / "order").read_text().split()
    assert order[:2] == ["0", "1"]  # the start-ups
    turns = [order[i : i + 2] for i in range(2, 14, 2)]
    assert all(sorted(turn) == ["0", "1"] for turn in turns)
    assert ["0", "1"] in turns
    assert ["1", "0"] in turns
    assert order[14:] == ["0", "1"]  # the operators
    assert {*(phones / "SERIAL0" / "masks").read_text().split()} == {"c"}
    assert left_behind(phones) == []


def test_what_one_file_s_record_says(plug: Plug, tmp_path: Path) -> None:
    plug({})
    report = measure(Job((case(tmp_path),), runs=3, min_seconds=0, per_op=True))
    (file,) = report.files
    assert file.runtime == "benchmark_model"
    assert file.runtime_version.startswith("sha256:")
    assert not isinstance(file.startup, str)
    assert (file.startup.load_ms, file.startup.peak_memory_mib) == (1.5, 9.25)
    assert file.startup.memory_increase_mib == 2.5
    assert not isinstance(file.operators, str)
    assert [(row.type, row.p50_ms) for row in file.operators] == [
        ("CONV_2D", 0.3),
        ("SOFTMAX", 0.1),
    ]
    assert any("sample is one process" in note for note in report.notes)


def test_what_the_phone_says_of_itself(plug: Plug, tmp_path: Path) -> None:
    plug({})
    info = AdbDevice().describe()
    assert info.cpu == "Google Pixel 6 (Google Tensor)"
    assert (info.architecture, info.cores, info.system) == ("aarch64", 4, "Android 14")
    assert info.memory_mib == pytest.approx(7744840 / 1024)
    assert list(info.runtimes) == ["benchmark_model"]
    assert not info.emulated
    report = measure(Job((case(tmp_path),), runs=1, min_seconds=0))
    assert report.info == info
    state = report.before
    assert (state.governor, state.load, state.throttled) == ("performance, schedutil", 1.25, True)
    assert (state.frequency_mhz, state.max_frequency_mhz) == (300, 2802)
    assert state.temperature_c == 52.3  # of the big cores: 91 "degrees" are a voltage


def test_the_state_is_that_of_the_cores_in_use(plug: Plug, tmp_path: Path) -> None:
    plug({})
    report = measure(Job((case(tmp_path),), runs=1, min_seconds=0, cpus=(2,)))
    assert report.after.governor == "performance"
    assert (report.after.frequency_mhz, report.after.max_frequency_mhz) == (900, 1803)


def test_without_zones_the_temperature_is_the_service_s_then_the_battery_s() -> None:
    service = "\tTemperature{mValue=44.8, mType=0, mName=AP, mStatus=0}\n  temperature: 290\n"
    assert android.read_state("zone:battery=31000\n" + service, ()).temperature_c == 44.8
    assert android.read_state("zone:cpu-0=-274000\n" + service, ()).temperature_c == 44.8
    assert android.read_state("  temperature: 290\n", ()).temperature_c == 29
    assert android.read_state("zone:cpu-0=47\n", ()).temperature_c == 47
    nothing = android.read_state("loadavg=\nzone:=\n", ())
    assert (nothing.load, nothing.governor, nothing.temperature_c) == (None, None, None)
    assert nothing.throttled is None


def test_an_emulator_is_no_phone(plug: Plug) -> None:
    plug({"properties": {"ro.kernel.qemu": "1"}})
    assert AdbDevice().describe().emulated


@pytest.mark.parametrize("trouble", [["lost bit"], ["old phone"]])
def test_what_phones_do_and_is_put_right(plug: Plug, tmp_path: Path, trouble: list[str]) -> None:
    plug({"trouble": trouble})
    (file,) = measure(Job((case(tmp_path),), runs=2, min_seconds=0)).files
    assert (file.failure, len(file.samples_ms)) == ("", 2)


@pytest.mark.parametrize(
    ("trouble", "message", "hint"),
    [
        ("chmod does nothing", "cannot be made executable", "/data/local/tmp"),
        ("noexec", "can't execute: Permission denied", "noexec"),
        ("cannot link", "CANNOT LINK EXECUTABLE", "static build"),
        ("other processor", "not executable: 64-bit ELF file", "another architecture"),
        ("vanishes", "push benchmark_model", "cable"),
    ],
)
def test_a_program_that_does_not_start_is_said_before_anything_runs(
    plug: Plug, tmp_path: Path, trouble: str, message: str, hint: str
) -> None:
    phones = plug({"trouble": [trouble]})
    with pytest.raises(InputError) as caught:
        measure(Job((case(tmp_path),), runs=1))
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert left_behind(phones) == []
    assert not (phones / "SERIAL0" / "order").exists()


def test_several_phones_need_a_name(plug: Plug, tmp_path: Path) -> None:
    plug({"serial": "R5CR1"}, {"serial": "emulator-5554", "model": "sdk_gphone64"})
    with pytest.raises(InputError) as caught:
        AdbDevice().describe()
    assert "2 devices: R5CR1 (Pixel 6), emulator-5554 (sdk gphone64)" in caught.value.message
    assert "--device adb:R5CR1" in caught.value.words.hint
    assert AdbDevice("adb:emulator-5554").describe().name == "adb:emulator-5554"
    with refuses("device-not-found"):
        AdbDevice("adb:XYZ").describe()


@pytest.mark.parametrize(
    ("state", "hint"),
    [("offline", "adb reconnect"), ("unauthorized", "allow USB debugging"),
     ("no permissions", "udev")],
)  # fmt: skip
def test_a_phone_that_cannot_be_used_says_what_to_do(plug: Plug, state: str, hint: str) -> None:
    plug({"serial": "R5", "state": state})
    for name in ("adb", "adb:R5"):
        with pytest.raises(InputError) as caught:
            AdbDevice(name).describe()
        assert "R5 is " in caught.value.message
        assert hint in caught.value.hint
    assert not listed()[0].usable


def test_the_one_usable_phone_is_taken(plug: Plug) -> None:
    plug({"serial": "A", "state": "offline"}, {"serial": "B"})
    assert AdbDevice().describe().cores == 4


def test_no_phone_and_no_adb(plug: Plug, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plug()
    with refuses("device-not-found"):
        AdbDevice().describe()
    monkeypatch.setenv("PATH", str(tmp_path))
    with refuses("adb-not-found") as caught:
        AdbDevice().describe()
    assert "platform tools" in caught.value.hint
    monkeypatch.setenv("ADB", "/nowhere/adb")
    with pytest.raises(InputError, match=r"\$ADB is /nowhere/adb"):
        AdbDevice().describe()


def test_a_binary_of_another_architecture_is_not_pushed(plug: Plug, tmp_path: Path) -> None:
    phones = plug({})
    intel = fake_adb.binary(tmp_path / "benchmark_model", machine=62)
    assert architecture(intel) == "x86_64"
    with pytest.raises(InputError) as caught:
        measure(Job((case(tmp_path),)), benchmark_binary=intel)
    assert "is for x86_64; adb runs aarch64, arm" in caught.value.message
    fake_adb.binary(binary_place("arm64-v8a"), machine=62)
    with pytest.raises(InputError, match="is for x86_64, not for arm64-v8a"):
        measure(Job((case(tmp_path),)))
    (tmp_path / "app.apk").write_bytes(b"PK\x03\x04" + bytes(40))
    with refuses("not-a-program"):
        measure(Job((case(tmp_path),)), benchmark_binary=tmp_path / "app.apk")
    assert left_behind(phones) == []


def test_a_64_bit_phone_runs_a_32_bit_program(plug: Plug, tmp_path: Path) -> None:
    plug({})
    binary_place("arm64-v8a").unlink()
    with pytest.raises(InputError) as caught:
        measure(Job((case(tmp_path),)))
    assert str(binary_place("arm64-v8a")) in caught.value.message
    assert "android_aarch64_benchmark_model" in caught.value.hint
    assert AdbDevice().describe().runtimes == {}
    fake_adb.binary(binary_place("armeabi-v7a"), machine=40, bits=1)
    (file,) = measure(Job((case(tmp_path),), runs=1, min_seconds=0)).files
    assert file.failure == ""


def test_an_old_binary_takes_inputs_and_gives_no_outputs(plug: Plug, tmp_path: Path) -> None:
    plug({"output": "old"})
    one = case(tmp_path)
    (file,) = measure(Job((one,), runs=2, min_seconds=0)).files
    assert file.failure == ""
    assert file.outputs is None
    assert any("not compared" in note for note in file.notes)
    # It prints no median: the average, which is 2 µs more.
    assert min(file.samples_ms) * 1e3 == pytest.approx(one.path.stat().st_size + 2 + 2)


def test_a_binary_with_random_inputs_only_says_so(plug: Plug, tmp_path: Path) -> None:
    plug({"output": "litert"})
    (file,) = measure(Job((case(tmp_path),), runs=2, min_seconds=0)).files
    assert (file.failure, file.outputs) == ("", None)
    assert any("this benchmark_model takes no others" in note for note in file.notes)
    assert any("not compared" in note for note in file.notes)


def test_a_binary_that_refuses_inputs_is_timed_without(plug: Plug, tmp_path: Path) -> None:
    plug({"trouble": ["refuses inputs"], "output": "new"})
    (file,) = measure(Job((case(tmp_path),), runs=2, min_seconds=0)).files
    assert (file.failure, len(file.samples_ms)) == ("", 2)
    assert file.outputs is None
    assert any("should have 2 dimensions" in note for note in file.notes)


def test_a_crash_is_the_failure_of_its_file_alone(plug: Plug, tmp_path: Path) -> None:
    phones = plug({"trouble": ["crashes on 0"]})
    files = (case(tmp_path, "a.tflite"), case(tmp_path, "b.tflite", 8))
    first, second = measure(Job(files, runs=3, min_seconds=0, per_op=True)).files
    assert "Segmentation fault" in first.failure
    assert "139" in first.failure
    assert (first.samples_ms, first.outputs) == ((), None)
    assert first.startup == first.operators == first.failure
    assert (second.failure, len(second.samples_ms)) == ("", 3)
    assert left_behind(phones) == []


def test_a_file_that_the_binary_cannot_load(plug: Plug, tmp_path: Path) -> None:
    plug({"trouble": ["bad model"]})
    (file,) = measure(Job((case(tmp_path),), runs=1)).files
    assert file.failure.startswith("Failed to load model /data/local/tmp/dsconvert-")


def test_a_process_that_hangs_is_ended(plug: Plug, tmp_path: Path) -> None:
    phones = plug({"trouble": ["hangs"]})
    start = time.monotonic()
    (file,) = measure(Job((case(tmp_path),), runs=1), process_s=1.0).files
    assert file.failure == "it did not end within 1 s"
    assert time.monotonic() - start < 30  # it would sleep for 60 s, twice
    assert left_behind(phones) == []


def test_onnx_files_are_refused_at_once(plug: Plug, tmp_path: Path) -> None:
    phones = plug({})
    other = Case(tmp_path / "m.onnx", "ort", (), (), ())
    with pytest.raises(InputError, match=r"m\.onnx cannot be profiled by adb") as caught:
        measure(Job((case(tmp_path), other)))
    assert "dsconvert export" in caught.value.words.hint
    assert left_behind(phones) == []


def info(name: str, *shape: int | None) -> TensorInfo:
    return TensorInfo(name=name, shape=shape, dtype="float32")


def test_outputs_are_split_by_their_shapes() -> None:
    values = np.arange(10, dtype=np.float32)
    inputs = (np.zeros((2, 3), np.float32),)
    two = Case(
        Path("m"), "litert", inputs, (info("x", 2, 3),), (info("a", 2, 3), info("b", None, 2))
    )
    first, second = split_outputs(values.tobytes(), two) or ((), ())
    np.testing.assert_array_equal(first, values[:6].reshape(2, 3))
    np.testing.assert_array_equal(second, values[6:].reshape(2, 2))
    assert split_outputs(values[:9].tobytes(), two) is None
    assert split_outputs(np.append(values, 1).astype(np.float32).tobytes(), two) is None
    free = Case(Path("m"), "litert", inputs, (), (info("a", 2, None),))
    (found,) = split_outputs(values.tobytes(), free) or ((),)
    np.testing.assert_array_equal(found, values.reshape(2, 5))
    assert split_outputs(values[:9].tobytes(), free) is None


def test_ten_samples_have_an_interval() -> None:
    samples = np.random.default_rng(0).normal(1, 0.2, (2, 10))
    first, other = (summarize([float(s) for s in row], 1) for row in samples)
    comparison = compare("a", first, other, 0)
    assert comparison.low < comparison.ratio < comparison.high
    assert comparison.verdict == "no measurable difference"


def test_blocks_are_timed_on_a_phone_whatever_it_is_called(
    plug: Plug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phones = plug({"serial": "R5CR1", "output": "new"})
    settings = tmp_path / "devices.toml"
    settings.write_text('[phones.pixel]\nserial = "R5CR1"\n')
    monkeypatch.setenv("DSCONVERT_DEVICES", str(settings))
    block = Block(input_size=(8, 8), in_channels=8, out_channels=8, kernel_size=(3, 3))
    target = target_for(".onnx", device="pixel")
    assert target.runtime == "litert"
    costs = measured_costs(target, cache=tmp_path / "costs", seconds=0.0)
    assert costs.target.endswith("(adb:R5CR1)")
    (found,) = costs.costs([(block, [Choice(pairs=1, order="depthwise-first")])])
    assert found.original.value > 0
    assert found.choices[0].value > 0
    assert left_behind(phones) == []


@pytest.mark.parametrize("device", ["adb", "adb:SERIAL0", "pixel"])
def test_costs_of_blocks_on_a_phone(
    plug: Plug, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """A plan for a phone that devices.toml names is a plan for that phone."""
    plug({"serial": "SERIAL0"})
    monkeypatch.setenv("DSCONVERT_DEVICES", str(tmp_path / "devices.toml"))
    (tmp_path / "devices.toml").write_text('[phones.pixel]\nserial = "SERIAL0"\n')
    block = Block(input_size=(4, 4), in_channels=3, out_channels=4, kernel_size=(3, 3))
    costs = measured_costs(Target(device=device), cache=tmp_path / "costs", seconds=0.0)
    ((found),) = costs.costs([(block, [Choice(pairs=1, order="depthwise-first")])])
    assert found.original.value > 0
    assert found.choices[0] is not None
    with pytest.raises(InputError) as refused:
        Target(device=device, runtime="ort")
    assert refused.value.code == "runtime-not-on-device"
