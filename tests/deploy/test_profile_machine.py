"""What a machine says, from made-up files of Linux; and what that makes doubtful."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from dsconvert.deploy.devices.records import DeviceInfo, MachineState
from dsconvert.deploy.profiling.machine_warnings import doubts
from dsconvert.deploy.runner import machine

BOARD = {
    "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd03\n\nprocessor\t: 4\nCPU part\t: 0xd09\n",
    "proc/device-tree/model": "Hardkernel ODROID-N2\0",
    "proc/meminfo": "MemTotal:        3719168 kB\n",
    "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1000000\n",
    "sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq": "1896000\n",
    "sys/devices/system/cpu/cpu4/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu4/cpufreq/scaling_cur_freq": "1700000\n",
    "sys/devices/system/cpu/cpu4/cpufreq/cpuinfo_max_freq": "1800000\n",
    "sys/class/thermal/thermal_zone0/temp": "41500\n",
    "sys/class/thermal/thermal_zone1/temp": "200000\n",
    "sys/class/thermal/cooling_device0/type": "thermal-cpufreq-0\n",
    "sys/class/thermal/cooling_device0/cur_state": "0\n",
    "sys/class/hwmon/hwmon0/temp1_input": "52000\n",
}


@pytest.fixture
def board(tmp_path: Path) -> Path:
    for name, text in BOARD.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


class TestMachine:
    def test_a_board_is_named_by_its_model_and_cores(self, board: Path) -> None:
        assert machine.cpu_name(board) == "Hardkernel ODROID-N2 (Cortex-A53 + Cortex-A73)"
        said = machine.describe(board)
        assert said["memory_mib"] == 3719168 / 1024
        assert said["system"].startswith("Debian GNU/Linux 12 (bookworm), ")

    def test_an_x86_by_its_maker(self, board: Path) -> None:
        (board / "proc/cpuinfo").write_text("model name\t: Some CPU: 3 GHz\ncpu MHz\t: 2600.5\n")
        assert machine.cpu_name(board) == "Some CPU: 3 GHz"

    def test_state_is_that_of_the_cores_in_use(self, board: Path) -> None:
        both, one = machine.state([0, 4], board), machine.state([4], board)
        assert (both["governor"], one["governor"]) == ("ondemand, performance", "performance")
        assert (both["frequency_mhz"], one["frequency_mhz"]) == (1000, 1700)
        assert (both["max_frequency_mhz"], one["max_frequency_mhz"]) == (1896, 1800)
        assert one["temperature_c"] == 52  # the sensor at 200 °C is not connected
        assert one["throttled"] is False

    def test_throttling_by_the_kernel_or_a_pi(self, board: Path) -> None:
        state = board / "sys/class/thermal/cooling_device0/cur_state"
        state.write_text("2\n")
        assert machine.state([0], board)["throttled"] is True
        state.write_text("0\n")
        word = board / "sys/devices/platform/soc/soc:firmware/get_throttled"
        word.parent.mkdir(parents=True)
        word.write_text("50000\n")  # it was, since it was switched on; it is not now
        assert machine.state([0], board)["throttled"] is False
        word.write_text("50005\n")
        assert machine.state([0], board)["throttled"] is True

    def test_silence_is_none(self, tmp_path: Path) -> None:
        said = machine.state([0], tmp_path)
        assert set(said) == set(MachineState.__struct_fields__)
        del said["load"]
        assert set(said.values()) == {None}
        assert machine.describe(tmp_path)["memory_mib"] is None
        assert machine.peak_bytes(tmp_path) is None

    def test_this_machine(self) -> None:
        MachineState(**machine.state())
        DeviceInfo(name="host", **machine.describe())
        assert machine.describe()["cores"] == os.cpu_count()
        if Path("/proc/self/status").exists():
            assert machine.peak_bytes() >= machine.resident_bytes() > 1 << 20


@pytest.mark.parametrize("name", ["machine", "timing", "operators", "litert_profiler"])
def test_what_goes_to_boards_imports_nothing_else_and_reads_as_python_3_9(name: str) -> None:
    import sys

    path = Path(machine.__file__).with_name(f"{name}.py")
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            roots = {node.module.split(".")[0]}
        else:
            continue
        assert roots <= {*sys.stdlib_module_names, "numpy"}


INFO = DeviceInfo(name="host", cpu="c", architecture="a", cores=4)
QUIET = {"load": 0.5, "governor": "performance", "frequency_mhz": 2000, "temperature_c": 40.0}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ({}, {}, []),
        ({"load": 4.5}, {}, ["the machine was busy: load 4.5 on 4 cores"]),
        ({}, {"load": 4.5}, []),  # one of them is the measurement's own
        ({}, {"load": 5.5}, ["the machine became busy: load 5.5 on 4 cores"]),
        ({"governor": "schedutil"}, {}, []),
        (
            {"governor": "ondemand, performance"},
            {},
            ["the governor ondemand changes the frequency as it likes"],
        ),
        ({"throttled": True}, {}, ["the processor slowed itself down before it was measured"]),
        ({}, {"throttled": True}, ["the processor slowed itself down while it was measured"]),
        ({}, {"temperature_c": 51.0}, ["it warmed from 40 to 51 °C"]),
        ({}, {"frequency_mhz": 1700}, ["its frequency fell from 2000 to 1700 MHz"]),
        ({}, {"max_frequency_mhz": 3000}, ["it ran at 2000 MHz of 3000"]),
        (dict.fromkeys(QUIET), dict.fromkeys(QUIET), []),
    ],
)
def test_doubts(before: dict, after: dict, said: list[str]) -> None:
    states = MachineState(**QUIET | before), MachineState(**QUIET | after)
    assert doubts(INFO, *states, busy=1) == said


def test_more_threads_than_cores() -> None:
    state = MachineState()
    assert doubts(INFO, state, state, busy=5) == ["5 threads on 4 cores"]
    assert doubts(INFO, state, state, busy=2, cpus=1) == ["2 threads on 1 core"]
