"""An adb that is none: it answers as the real one does, and its phones are folders.

Started by a small program called adb that `install` puts into a folder for the PATH. What is
attached, and what is wrong with it, stands in a JSON file:

    {"devices": [{"serial": "R5", "state": "device", "model": "Pixel_6", "root": "/tmp/phone", …}]}

A phone's shell is this machine's `sh`, with its absolute paths led into the phone's folder and
Android's own commands (getprop, dumpsys, taskset) in front. A pushed benchmark_model, of which only
the ELF header counts, becomes `fake_benchmark_model.py`. The texts are those of adb 35 and of
Android's mksh.
"""

# ruff: noqa: T201

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PATHS = ("/data/", "/sys/", "/proc/", "/sdcard")
PROPERTIES = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 6",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.product.cpu.abilist": "arm64-v8a,armeabi-v7a,armeabi",
    "ro.build.version.release": "14",
    "ro.soc.manufacturer": "Google",
    "ro.soc.model": "Tensor",
}
COMMANDS = {
    "getprop": 'grep "^$1=" "$FAKE_PHONE/properties" | cut -d= -f2-',
    "dumpsys": 'cat "$FAKE_PHONE/dumpsys-$1"',
    "taskset": 'echo "$1" >> "$FAKE_PHONE/masks"; shift; exec "$@"',
    "uname": "echo aarch64",
}
THERMAL = """\
IsStatusOverride: false
Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=38.1, mType=0, mName=AP, mStatus=0}
\tTemperature{mValue=32.2, mType=2, mName=BAT, mStatus=0}
"""


def install(folder: Path, *phones: dict[str, Any]) -> Path:
    """Make an adb with these phones; its folder is to be put on the PATH.

    Args:
        folder: Where all of it is kept.
        phones: What differs from a sound Pixel 6: "serial", "state", "model", "properties",
            "trouble", a list of what this file and `fake_benchmark_model` look for, and "output":
            "litert" (a benchmark_model with random inputs only), "old" or "new" (with outputs).
    """
    (folder / "bin").mkdir(parents=True)
    listed = []
    for number, phone in enumerate(phones):
        serial = phone.get("serial", f"SERIAL{number}")
        listed.append({"state": "device", "model": "Pixel_6", **phone, "serial": serial})
        listed[-1]["root"] = str(_make_phone(folder / "phones" / serial, phone))
    (folder / "state.json").write_text(json.dumps({"devices": listed}))
    _program(
        folder / "bin" / "adb",
        f'FAKE_ADB="{folder}" exec "{sys.executable}" -S "{HERE / "fake_adb.py"}" "$@"',
    )
    return folder / "bin"


def binary(path: Path, machine: int = 183, bits: int = 2) -> Path:
    """A file with the header of an ELF program; 183 is aarch64."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = b"\x7fELF" + bytes([bits, 1, 1]) + bytes(9) + (3).to_bytes(2, "little")
    path.write_bytes(header + machine.to_bytes(2, "little") + bytes(44))
    return path


def _make_phone(root: Path, phone: dict[str, Any]) -> Path:
    for number in range(4):
        cpufreq = root / f"sys/devices/system/cpu/cpu{number}/cpufreq"
        cpufreq.mkdir(parents=True)
        (cpufreq / "scaling_governor").write_text("schedutil\n" if number < 2 else "performance\n")
        (cpufreq / "scaling_cur_freq").write_text(f"{300000 * (number + 1)}\n")
        (cpufreq / "cpuinfo_max_freq").write_text("2802000\n" if number == 3 else "1803000\n")
    (root / "sys/devices/system/cpu/possible").write_text("0-3\n")
    for number, (kind, value) in enumerate(
        [("battery", 31000), ("cpu-big", 52300), ("cpu-little", 48000), ("bcl_volt", 91000)]
    ):
        zone = root / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(kind + "\n")
        (zone / "temp").write_text(f"{value}\n")
    (root / "proc").mkdir()
    (root / "proc/meminfo").write_text("MemTotal:        7744840 kB\n")
    (root / "proc/loadavg").write_text("1.25 1.10 1.05 2/900 12345\n")
    (root / "data/local/tmp").mkdir(parents=True)
    properties = PROPERTIES | phone.get("properties", {})
    (root / "properties").write_text("".join(f"{n}={v}\n" for n, v in properties.items()))
    (root / "dumpsys-thermalservice").write_text(THERMAL)
    (root / "dumpsys-battery").write_text("Current Battery Service state:\n  temperature: 290\n")
    commands = COMMANDS | (
        {"chmod": "true"} if "chmod does nothing" in phone.get("trouble", ()) else {}
    )
    (root / "bin").mkdir()
    for name, script in commands.items():
        _program(root / "bin" / name, script)
    return root


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def main(words: list[str]) -> int:
    """What adb does with these arguments."""
    state = json.loads((Path(os.environ["FAKE_ADB"]) / "state.json").read_text())
    if words[:1] == ["devices"]:
        print("* daemon not running; starting now at tcp:5037\n* daemon started successfully")
        print("List of devices attached")
        for device in state["devices"]:
            print(_line(device))
        print()
        return 0
    devices = state["devices"]
    if words[:1] == ["-s"]:
        devices = [device for device in devices if device["serial"] == words[1]]
        if not devices:
            return _error(f"adb: device '{words[1]}' not found")
        words = words[2:]
    if not devices:
        return _error("adb: no devices/emulators found")
    if len(devices) > 1:
        return _error("adb: more than one device/emulator")
    (device,) = devices
    if device["state"] != "device":
        return _error(f"adb: device {device['state']}")
    if "vanishes" in device.get("trouble", ()) and words[0] == "push":
        return _error(
            f"adb: error: failed to get feature set: device '{device['serial']}' not found"
        )
    return {"shell": _shell, "push": _push, "pull": _pull}[words[0]](device, words[1:])


def _line(device: dict[str, Any]) -> str:
    if device["state"] == "no permissions":
        return (
            f"{device['serial']:22} no permissions (missing udev rules? user is in the plugdev "
            "group); see [http://developer.android.com/tools/device.html] usb:1-1 transport_id:1"
        )
    more = f"product:oriole model:{device['model']} device:oriole transport_id:1"
    return f"{device['serial']:22} {device['state']} usb:1-1 " + (
        more if device["state"] == "device" else "transport_id:1"
    )


def _error(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


def _shell(device: dict[str, Any], words: list[str]) -> int:
    """As the real one: the words are joined by blanks, and the phone's shell parses the line."""
    root = device["root"]
    if "slow" in device.get("trouble", ()):
        time.sleep(12)
    line = re.sub(rf"(?<![\w.])({'|'.join(PATHS)})", lambda found: root + found[1], " ".join(words))
    environment = os.environ | {
        "PATH": f"{root}/bin:{os.environ['PATH']}",
        "FAKE_PHONE": root,
        "FAKE_PYTHON": sys.executable,
        "FAKE_TROUBLE": json.dumps(device.get("trouble", ())),
        "FAKE_OUTPUT": device.get("output", "litert"),
    }
    done = subprocess.run(
        ["sh", "-c", line], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    text = done.stdout.decode().replace(root, "")
    # dash says "sh: 1: /x: Permission denied", Android's mksh says it in words of its own.
    text = re.sub(
        r"(?m)^(?:sh: )?\d+: (?:exec: )?(\S+): (Permission denied|not found|Exec format error)$",
        lambda found: f"/system/bin/sh: {found[1]}: {_MKSH[found[2]]}",
        re.sub(r"(?m)^sh: (?=\d+: )", "", text),
    )
    if "old phone" in device.get("trouble", ()):  # without the shell protocol of 2016
        text = text.replace("\n", "\r\n")
        sys.stdout.write(text)
        return 0
    sys.stdout.write(text)
    return done.returncode


_MKSH = {
    "Permission denied": "can't execute: Permission denied",
    "not found": "inaccessible or not found",
    "Exec format error": "not executable: 64-bit ELF file",
}


def _push(device: dict[str, Any], words: list[str]) -> int:
    source, target = Path(words[0]), Path(device["root"] + words[1])
    if not source.is_file():
        return _error(f"adb: error: cannot stat '{source}': No such file or directory")
    if not target.parent.is_dir():
        return _error(
            f"adb: error: failed to copy '{source}' to '{words[1]}': remote couldn't create file: "
            "No such file or directory"
        )
    shutil.copyfile(source, target)
    trouble = device.get("trouble", ())
    if target.name == "benchmark_model":
        starts = "/dev/null" if "noexec" in trouble else "/bin/sh"
        script = f'exec "$FAKE_PYTHON" -S "{HERE / "fake_benchmark_model.py"}" "$@"\n'
        if "other processor" in trouble:  # with exit code 1, unlike other shells
            script = 'echo "/system/bin/sh: $0: not executable: 64-bit ELF file"; exit 1\n'
        target.write_text(f"#!{starts}\n{script}")
        if "lost bit" not in trouble and "chmod does nothing" not in trouble:
            target.chmod(target.stat().st_mode | stat.S_IXUSR)
    print(f"{source}: 1 file pushed, 0 skipped. 25.9 MB/s ({source.stat().st_size} bytes in 0.2s)")
    return 0


def _pull(device: dict[str, Any], words: list[str]) -> int:
    source = Path(device["root"] + words[0])
    if not source.is_file():
        return _error(
            f"adb: error: failed to stat remote object '{words[0]}': No such file or directory"
        )
    shutil.copyfile(source, words[1])
    print(f"{words[0]}: 1 file pulled, 0 skipped.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
