"""A small ONNX network on disk, and rewrites of it by commands."""

import numpy as np
import onnx
from click.testing import CliRunner
from onnx_native import Net, images

from dsconvert.cli import main


def network():
    """x → a → norm → relu → b → relu → pool → y, with one small and several large tensors."""
    net = Net()
    net.conv("x", "a", (6, 12), pads=[1] * 4)
    net.norm("a", "a.norm", 12)
    net.node("Relu", "a.norm", "r")
    net.conv("r", "b", (12, 16), pads=[1] * 4)
    net.node("Relu", "b", "s")
    net.node("GlobalAveragePool", "s", "pooled")
    net.node("Flatten", "pooled", "features")
    net.constant("w", (40, 16))
    net.constant("c", (40,))
    net.node("Gemm", "features w c", "y", transB=1, name="head")
    return net


def save_external(model, path, location="weights.bin", **more):
    onnx.save(model, path, save_as_external_data=True, location=location, size_threshold=0, **more)


def tensors(path):
    model = onnx.load(path, load_external_data=False)
    return {t.name: t for t in model.graph.initializer}


def place(tensor):
    return {entry.key: entry.value for entry in tensor.external_data}


def filled(tmp_path):
    """Write the network with its weights inside and beside it, and images."""
    onnx.save(network().model(), tmp_path / "model.onnx")
    (tmp_path / "external").mkdir()
    save_external(network().model(), tmp_path / "external" / "model.onnx")
    np.savez(tmp_path / "data.npz", x=images(20, 6, 9, 10))
    return tmp_path


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


def contents(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(folder, *words, code=2):
    """Run a command that fails, and see that it says one sentence and writes nothing."""
    before = contents(folder)
    result = call(*words)
    assert isinstance(result.exception, SystemExit), result.exception
    assert (result.exit_code, result.stdout) == (code, "")
    assert contents(folder) == before
    lines = [
        line
        for line in result.stderr.splitlines()
        if not line.endswith("…") and not line.startswith("Note: ")
    ]
    assert lines[0].startswith("Error: ")
    assert len(lines) <= 2
    assert len(lines[0]) < 600
    return " ".join(lines)
