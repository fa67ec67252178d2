#!/usr/bin/env bash
# Makes a Debian arm64 tree with Python and the runtimes, to run under qemu-user:
#
#   tests/arm64/setup.sh [FOLDER]
#
# FOLDER is $DSCONVERT_ARM64, or ~/.cache/dsconvert/arm64. Nothing is done where it is complete.
# Needs root (debootstrap makes device files), debootstrap, dpkg-deb, qemu-aarch64-static, a network.
# tests/deploy/test_arm64.py runs in it, and is skipped where it is not.
set -euo pipefail
folder=${1:-${DSCONVERT_ARM64:-${XDG_CACHE_HOME:-$HOME/.cache}/dsconvert/arm64}}
python=${PYTHON:-python3}
suite=bookworm # its Python is 3.11, its glibc 2.36
if [ -e "$folder/complete" ]; then
    echo "$folder"
    exit
fi
for tool in debootstrap dpkg-deb qemu-aarch64-static; do
    command -v "$tool" >/dev/null || {
        echo "$tool is missing: apt-get install debootstrap dpkg qemu-user-static" >&2
        exit 1
    }
done
rm -rf "$folder"
mkdir -p "$folder"
# --foreign: only the first stage, since the second one would run arm64 programs.
debootstrap --arch=arm64 --variant=minbase --foreign \
    --include=python3,libstdc++6,libgomp1 "$suite" "$folder/tree" >"$folder/log" 2>&1 || {
    tail -5 "$folder/log" >&2
    exit 1
}
for package in "$folder"/tree/var/cache/apt/archives/*.deb; do
    dpkg-deb -x "$package" "$folder/tree"
done
rm -rf "$folder"/tree/var/cache/apt
# Wheels of another machine are unpacked, not installed. What LiteRT and ONNX Runtime list beside
# numpy, these tests do not import.
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --python-version 3.11 --platform manylinux_2_27_aarch64 --platform manylinux_2_28_aarch64 \
    --platform manylinux2014_aarch64 --dest "$folder/wheels" \
    numpy ai-edge-litert onnxruntime flatbuffers >&2
for wheel in "$folder"/wheels/*.whl; do
    "$python" -m zipfile -e "$wheel" "$folder/packages"
done
rm -rf "$folder/wheels"
# The cpuinfo library of both runtimes crashes on the file of another architecture: this one is
# bound over it.
for core in 0 1; do
    cat <<CPU
processor	: $core
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

CPU
done >"$folder/cpuinfo"
touch "$folder/complete"
echo "$folder"
