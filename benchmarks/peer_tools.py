"""Other people's tools, each in an environment of its own, made below build/peers by uv."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from common import RESNET8, RESULTS, VGG6

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "peers"
PROGRAMS = Path(__file__).parent / "peer_programs"
KEPT = RESULTS / "peers" / "cells"
SECONDS = 900
"""Bounds on one command."""


class Peer(NamedTuple):
    """A tool of others.

    Attributes:
        needs: What is installed for it; its version is that of the first.
        python: What it asks for. uv finds it on the PATH.
    """

    needs: tuple[str, ...]
    python: str = "3.11"


PEERS = {
    "ai-edge-quantizer": Peer(("ai-edge-quantizer",)),
    "tensorflow": Peer(("tensorflow-cpu",)),
    "onnxruntime": Peer(("onnxruntime", "onnx", "sympy")),
    "nncf": Peer(("nncf", "onnx", "onnxruntime")),
    "onnx2tf": Peer(("onnx2tf",), "3.12"),
    "tensorly": Peer(("tensorly",)),
    "torch-pruning": Peer(("torch-pruning", "torch"), "3.12"),
}


class Trained(NamedTuple):
    """A trained network.

    Attributes:
        file: Below the folder of models, or by itself.
        scale: What its images are multiplied by.
        data: The file of its images, beside that of CIFAR-10; empty for CIFAR-10 itself.
        made_by: The command that makes the file where nobody else did.
    """

    file: str | Path
    scale: float = 1.0
    data: str = ""
    made_by: str = ""

    def place(self, models: Path) -> Path:
        """Return where the network lies."""
        return models / self.file

    def images(self, cifar10: Path) -> Path:
        """Return where its images are."""
        return cifar10.with_name(self.data) if self.data else cifar10


MODELS = {
    "resnet8": Trained(RESNET8),
    "vgg6": Trained(VGG6),
    "cifar10_cnn": Trained("keras/cifar10_cnn_streamlit.keras", 1 / 255),
    "cifar100_four": Trained(
        RESULTS / "published" / "models" / "four-standard.keras",
        data="cifar100.npz",
        made_by="python benchmarks/published.py --only cifar100",
    ),
}


def environment(name: str) -> Path:
    """Make a peer's environment, if it is not there, and return its Python."""
    python = PLACE / name / "bin" / "python"
    if not python.exists():
        uv("venv", "--python", PEERS[name].python, PLACE / name)
        uv("pip", "install", "--python", python, *PEERS[name].needs)
    return python


def uv(*words: Any) -> str:
    return run([Path(sys.executable).with_name("uv"), *words, "--quiet"])


def version_of(name: str) -> str:
    """Return a peer and its version, as it is installed."""
    package = PEERS[name].needs[0]
    code = f"from importlib.metadata import version; print(version({package!r}))"
    return f"{package} {run([environment(name), '-c', code]).strip()}"


def program(name: str, file: str, *words: Any) -> str:
    """Run a file of peer_programs in a peer's environment, and return what it prints."""
    return run([environment(name), PROGRAMS / file, *words])


def dsconvert(*words: Any, allowed: tuple[int, ...] = (0,)) -> str:
    """Run our own command in a process of its own, as the peers are; its fault is told first."""
    return run([Path(sys.executable).with_name("dsconvert"), *words, "-q"], allowed, line=0)


def run(command: list[Any], allowed: tuple[int, ...] = (0,), line: int = -1) -> str:
    """Run a command within bounds, and return what it prints.

    Raises:
        RuntimeError: If it fails or takes too long, with one line of what it says.
    """
    told = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    words = list(map(str, command))
    try:
        done = subprocess.run(
            words, check=False, capture_output=True, text=True, timeout=SECONDS, env=told
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"not finished after {SECONDS} s") from None
    if done.returncode not in allowed:
        said = done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}"
        said = json.loads(said)["message"] if said.startswith('{"schema"') else said
        raise RuntimeError(" ".join(said.splitlines()[line].split())[:120])
    return done.stdout


def kept(name: str) -> Any:
    """Return the figures of a cell that was measured, or None."""
    path = KEPT / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def figure(value: float | None, factor: float = 1.0, digits: int = 1) -> str:
    return "–" if value is None else f"{factor * value:.{digits}f}"
