"""Which devices there are, and what is missing for which job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import fake_adb
import pytest
from block_form import save_block
from click.testing import CliRunner
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.deploy.devices.accelerators import NPUS
from dsconvert.deploy.devices.adb import AdbDevice, binary_place
from dsconvert.deploy.devices.config import config_path, known
from dsconvert.deploy.devices.listing import ListedDevice, list_devices
from dsconvert.deploy.devices.registry import open_device
from dsconvert.deploy.profiling import doctor

NAMED = """
[boards.kitchen]
host = "127.0.0.1"
user = "nobody"
port = 1

[phones.pixel]
serial = "R5CR1"
"""


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings and caches of our own, and neither adb nor phones."""
    monkeypatch.setenv("DSCONVERT_DEVICES", str(tmp_path / "devices.toml"))
    monkeypatch.setenv("DSCONVERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))  # this machine may have an adb
    monkeypatch.delenv("ADB", raising=False)
    return tmp_path


def plug(folder: Path, monkeypatch: pytest.MonkeyPatch, *phones: dict[str, object]) -> None:
    monkeypatch.setenv("PATH", f"{fake_adb.install(folder / 'adb', *phones)}:/usr/bin:/bin")


def by_name(devices: tuple[ListedDevice, ...]) -> dict[str, ListedDevice]:
    return {one.name: one for one in devices}


def test_where_names_are_kept(monkeypatch: pytest.MonkeyPatch, places: Path) -> None:
    assert config_path() == places / "devices.toml"
    monkeypatch.delenv("DSCONVERT_DEVICES")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/settings")
    assert config_path() == Path("/settings/dsconvert/devices.toml")
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert config_path() == Path.home() / ".config/dsconvert/devices.toml"
    assert known(places / "none.toml").devices == {}


def test_names_open_devices_with_their_settings(places: Path) -> None:
    config_path().write_text(NAMED + 'benchmark_binary = "~/tools/benchmark_model"\n')
    board, phone = open_device("kitchen"), open_device("pixel")
    assert board.name == "ssh:nobody@127.0.0.1:1"
    assert isinstance(phone, AdbDevice)
    assert phone.name == "adb:R5CR1"
    with pytest.raises(InputError, match=str(Path.home() / "tools/benchmark_model")):
        phone._find_binary(["arm64-v8a"])
    with pytest.raises(InputError, match="/other does not exist"):
        open_device("pixel", Path("/other"))._find_binary(["arm64-v8a"])  # type: ignore[attr-defined]
    with refuses("option-not-applicable"):
        open_device("host", Path("/other"))
    with pytest.raises(InputError, match=r"unknown device 'garden'.*devices\.toml"):
        open_device("garden")


def test_an_address_with_colons_is_in_brackets() -> None:
    config_path().write_text('[boards.six]\nhost = "fe80::1"\n')
    assert open_device("six").name == "ssh:[fe80::1]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[boards", "cannot be read"),
        ("[boards.a]\nuser = 'x'\n", "missing required field `host`"),
        ("[boards.a]\nhost = 'x'\nprot = 22\n", "unknown field `prot`"),
        ("[boards.a]\nhost = 'x'\nport = '22'\n", "Expected `int | null`, got `str`"),
        ("[phones.host]\nserial = 'x'\n", "'host' cannot be the name"),
        ("[phones.ethos-u55-128]\nserial = 'x'\n", "'ethos-u55-128' cannot be the name"),
        ("[boards.a]\nhost = 'x'\n[phones.a]\nserial = 'x'\n", "a is both"),
    ],
)
def test_settings_that_are_not_understood(text: str, message: str) -> None:
    config_path().write_text(text)
    with pytest.raises(InputError) as caught:
        known()
    assert message in caught.value.message
    assert "devices.toml" in caught.value.message


def test_all_devices_are_listed_whether_they_answer_or_not(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug(
        places,
        monkeypatch,
        {"serial": "R5CR1"},
        {"serial": "LOCKED", "state": "unauthorized"},
        {"serial": "OTHER", "model": "Pixel_3"},
    )
    fake_adb.binary(binary_place("arm64-v8a"))
    config_path().write_text(NAMED)
    found = by_name(list_devices(timeout_s=60).devices)
    assert list(found) == ["host", "adb:LOCKED", "adb:OTHER", "pixel", "kitchen", *NPUS, "mcu"]
    host, other, pixel = found["host"], found["adb:OTHER"], found["pixel"]
    assert host.info is not None
    assert host.state is not None
    assert {"litert", "ort"} <= set(host.info.runtimes)
    assert other.info is not None
    assert other.state is not None
    assert other.state.temperature_c == 52.3
    assert list(other.info.runtimes) == ["benchmark_model"]
    assert (pixel.address, pixel.reason) == ("adb:R5CR1", "")
    assert "unauthorized" in found["adb:LOCKED"].reason
    assert "USB debugging" in found["adb:LOCKED"].hint
    assert found["kitchen"].address == "ssh:nobody@127.0.0.1:1"
    assert found["kitchen"].info is None
    assert found["kitchen"].reason
    assert found["mcu"].method
    assert found["ethos-u65-256"].method == f"Vela {metadata.version('ethos-u-vela')}"


def test_a_device_that_does_not_answer_holds_nobody_up(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug(places, monkeypatch, {"serial": "A", "trouble": ["slow"]}, {"serial": "B"})
    start = time.monotonic()
    found = by_name(list_devices(timeout_s=5).devices)
    assert time.monotonic() - start < 11
    assert found["adb:A"].reason == "no answer within 5 s"
    assert found["adb:B"].info is not None


def test_without_adb_and_names_there_are_notes() -> None:
    listing = list_devices()
    assert list(by_name(listing.devices)) == ["host", *NPUS, "mcu"]
    assert any("adb is not on the PATH" in note for note in listing.notes)
    assert any("devices.toml" in note for note in listing.notes)


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """As if these distributions were not installed."""
    true = metadata.version

    def version(name: str) -> str:
        if name in names:
            raise metadata.PackageNotFoundError(name)
        return true(name)

    monkeypatch.setattr(metadata, "version", version)


def with_versions(monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    true = metadata.version

    def version(name: str) -> str:
        return versions.get(name.replace("-", "_")) or true(name)

    monkeypatch.setattr(metadata, "version", version)


def checks() -> dict[str, doctor.Check]:
    return {check.job: check for check in doctor.diagnose().checks}


def test_what_is_installed_here_is_sound() -> None:
    diagnosis = doctor.diagnose()
    assert diagnosis.passed
    found = {check.job: check for check in diagnosis.checks}
    for job in ("Python", "dsconvert itself", *doctor.EXTRAS.values()):
        assert found[job].status == "ok", found[job]
    assert "tensorflow" in found[doctor.EXTRAS["keras"]].found
    assert "tf2onnx" in found[doctor.EXTRAS["all"]].found


def test_a_missing_package_names_its_job_and_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnxruntime", "ethos-u-vela")
    diagnosis = doctor.diagnose()
    assert diagnosis.passed  # Keras models can be worked on
    found = {check.job: check for check in diagnosis.checks}
    onnx = found[doctor.EXTRAS["onnx"]]
    assert onnx.status == "missing"
    assert onnx.found.startswith("no onnxruntime, onnx ")
    assert onnx.fix == "pip install --upgrade 'dsconvert[onnx]'"
    assert found[doctor.EXTRAS["ethosu"]].fix == "pip install --upgrade 'dsconvert[ethosu]'"
    assert found[doctor.EXTRAS["all"]].status == "missing"


def test_neither_keras_nor_onnx_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnx", "keras")
    assert not doctor.diagnose().passed
    assert CliRunner().invoke(main, ["doctor"]).exit_code == 1


def test_versions_that_are_too_old_or_too_new(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, keras="2.15.0")
    keras = checks()[doctor.EXTRAS["keras"]]
    assert keras.status == "broken"
    assert "keras 2.15.0, needed" in keras.found
    with_versions(monkeypatch, keras="4.0.1")
    assert checks()[doctor.EXTRAS["keras"]].status == "broken"
    with_versions(monkeypatch, keras="3.99.0")
    found = checks()
    assert found[doctor.EXTRAS["keras"]].status == "ok"
    assert "keras 3.99.0 (3.15)" in found["versions"].found
    assert found["versions"].status == "ok"
    with_versions(monkeypatch, numpy="3.0.0")
    assert checks()["versions"].status == "doubtful"


def test_only_what_is_asked_for_on_this_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [
        "numpy>=1; python_version >= '3'",
        "tensorflow-cpu>=2; sys_platform != 'plan9' and extra == 'keras'",
        "tensorflow>=2; sys_platform == 'plan9' and extra == 'keras'",
        "dsconvert[keras]; extra == 'all'",
        "absent>=1; sys_platform == 'plan9'",
    ]
    monkeypatch.setattr(metadata, "requires", lambda name: asked if name == "dsconvert" else [])
    found = checks()
    assert found["dsconvert itself"].found == f"numpy {metadata.version('numpy')}"
    for extra in ("keras", "all"):
        assert found[doctor.EXTRAS[extra]].found.startswith("tensorflow")
        assert found[doctor.EXTRAS[extra]].status == "ok"


def test_packages_that_share_their_files(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, onnxruntime_gpu="1.22.0")
    found = checks()["onnxruntime"]
    assert found.status == "broken"
    assert found.fix.startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install")


def test_what_a_package_needs_and_does_not_get(monkeypatch: pytest.MonkeyPatch) -> None:
    with_versions(monkeypatch, protobuf="3.1.0")
    found = checks()["onnx"]
    assert found.status == "broken"
    assert "protobuf" in found.found
    assert "3.1.0 is installed" in found.found


def test_another_keras_backend(monkeypatch: pytest.MonkeyPatch, places: Path) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    found = checks()["Keras models"]
    assert "KERAS_BACKEND chooses the backend jax" in found.found
    monkeypatch.delenv("KERAS_BACKEND")
    monkeypatch.setenv("KERAS_HOME", str(places))
    (places / "keras.json").write_text('{"backend": "torch"}')
    assert "backend torch" in checks()["Keras models"].found
    (places / "keras.json").write_text('{"backend": "tensorflow"}')
    assert "Keras models" not in checks()


def test_phones_and_their_program(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = "profile on Android phones by adb"
    assert "platform tools" in checks()[job].fix
    plug(places, monkeypatch, {"serial": "A"}, {"serial": "B", "state": "offline"})
    phones = [check for check in doctor.diagnose().checks if check.job == job]
    assert [check.status for check in phones] == ["missing", "broken"]
    assert "1 usable phone, benchmark_model for none" in phones[0].found
    assert str(binary_place("arm64-v8a")) in phones[0].fix
    assert phones[1].found == "B is offline"
    fake_adb.binary(binary_place("arm64-v8a"))
    (first, _) = (check for check in doctor.diagnose().checks if check.job == job)
    assert (first.status, first.fix) == ("ok", "")
    assert "benchmark_model for arm64-v8a" in first.found


def test_a_noisy_machine_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    quiet: dict[str, Any] = {
        "load": 0.1, "governor": "performance", "frequency_mhz": 2000.0,
        "max_frequency_mhz": 2000.0, "temperature_c": 40.0, "throttled": False,
    }  # fmt: skip
    monkeypatch.setattr(doctor.machine, "state", lambda: quiet)
    job = "profile on this machine"
    assert checks()[job].status == "ok"
    noisy = quiet | {"load": 1000.0, "governor": "powersave", "throttled": True}
    monkeypatch.setattr(doctor.machine, "state", lambda: noisy)
    found = checks()[job]
    assert found.status == "doubtful"
    assert "load 1000.0" in found.found
    assert "powersave" in found.found
    assert "cpupower frequency-set -g performance" in found.fix
    assert "end other programs" in found.fix


def test_settings_are_looked_at() -> None:
    assert "named devices" not in checks()
    config_path().write_text(NAMED)
    assert checks()["named devices"].found.endswith("devices.toml: kitchen, pixel")
    config_path().write_text("[boards")
    assert checks()["named devices"].status == "broken"


@pytest.mark.parametrize("command", ["devices", "doctor"])
def test_the_commands_print_json_and_tables(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["schema"] == f"dsconvert.{command}/1"
    table = CliRunner().invoke(main, [command])
    assert table.exit_code == 0
    assert {"devices": "host", "doctor": "The basics work."}[command] in table.stdout


def test_the_table_of_devices(places: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plug(places, monkeypatch, {"serial": "A"}, {"serial": "B", "state": "offline"})
    config_path().write_text(NAMED)
    out = CliRunner().invoke(main, ["devices"]).stdout
    (row,) = (line for line in out.splitlines() if line.startswith("adb:A"))
    assert "Google Pixel 6 (Google Tensor)" in row
    assert "performance, schedutil" in row
    assert "52 throttled" in row
    assert "adb:B cannot be used: adb: B is offline." in out
    assert "kitchen (ssh:nobody@127.0.0.1:1) cannot be used: " in out
    assert "by estimate: ethos-u55-32, " in out


def test_profile_takes_the_program_it_is_told(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug(places, monkeypatch, {"output": "new"})
    block = Block(input_size=(4, 4), in_channels=3, out_channels=2, kernel_size=(3, 3))
    save_block(places / "m.tflite", block, None, "int8")
    words = ["profile", str(places / "m.tflite"), "--runs", "2", "--min-seconds", "0", "--json"]
    binary = ["--benchmark-binary", str(fake_adb.binary(places / "mine" / "benchmark_model"))]
    result = CliRunner().invoke(main, [*words, "--device", "adb", *binary])
    assert result.exit_code == 0, result.output
    (found,) = json.loads(result.stdout)
    assert found["failure"] == ""
    assert found["runtime"] == "benchmark_model"
    assert len(found["latency"]["samples_ms"]) == 2
    assert found["device"]["cpu"] == "Google Pixel 6 (Google Tensor)"
    assert not any("not compared" in note for note in found["notes"])
    without_one = CliRunner().invoke(main, [*words, "--device", "adb"])
    assert without_one.exit_code == 2
    assert "there is no benchmark_model for adb (arm64-v8a)" in without_one.stderr
    for device in ("mcu", "host"):
        refused = CliRunner().invoke(main, [*words, "--device", device, *binary])
        assert refused.exit_code == 2
        assert "Leave --benchmark-binary out" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "modules"),
    [
        (["devices"], ("tensorflow", "keras", "onnx", "onnxruntime")),
        (["doctor"], ("tensorflow", "keras", "onnx", "onnxruntime")),
        (["devices", "--help"], ("numpy", "scipy", "tensorflow")),
        (["doctor", "--help"], ("numpy", "scipy", "tensorflow")),
    ],
)
def test_no_framework_is_imported(arguments: list[str], modules: tuple[str, ...]) -> None:
    code = (
        "import sys\nfrom dsconvert.cli import main\n"
        f"main({arguments!r}, standalone_mode=False)\n"
        f"print('imported:', [name for name in {modules!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}
    )
    assert "imported: []" in done.stdout, done.stdout + done.stderr
