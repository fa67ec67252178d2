"""ONNX files that cannot be used are refused in one sentence."""

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_native import Net
from rewrite_commands import call, filled, network, place, refused

from dsconvert.formats.onnx.open import open_onnx


@pytest.fixture
def folder(tmp_path):
    return filled(tmp_path)


def without_file(folder):
    (folder / "external" / "weights.bin").unlink()


def folder_instead(folder):
    without_file(folder)
    (folder / "external" / "weights.bin").mkdir()


def cut_short(folder):
    path = folder / "external" / "weights.bin"
    path.write_bytes(path.read_bytes()[:-1])


def changed(**entries):
    """Change where the last tensor, which no Conv reads, or the first, is said to be."""

    def break_it(folder, which=-1):
        path = folder / "external" / "model.onnx"
        model = onnx.load(path, load_external_data=False)
        tensor = model.graph.initializer[which]
        values = place(tensor) | entries
        del tensor.external_data[:]
        for key, value in values.items():
            if value is not None:
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
        path.write_bytes(model.SerializeToString())

    return break_it


class TestUnusableFiles:
    @pytest.mark.parametrize("command", ["rewrite", "inspect"])
    @pytest.mark.parametrize(
        ("break_it", "words"),
        [
            (without_file, "weights.bin, which is not there"),
            (folder_instead, "weights.bin, which is not there"),
            (cut_short, "weights.bin, which has"),
            (changed(location="../data.npz"), "outside the model's folder"),
            (changed(location="/etc/passwd"), "outside the model's folder"),
            (changed(location=None), "outside the model's folder"),
            (changed(offset="many"), "should be"),
            (changed(offset="-4096"), "should be"),
            (changed(length="1"), "should be"),
            (changed(offset="1000000"), "should be"),
        ],
    )
    def test_external_data(self, folder, break_it, words, command):
        break_it(folder)
        text = refused(folder, command, folder / "external" / "model.onnx")
        assert words in text
        if "should be" in words or "not there" in words:
            assert "tensor '" in text

    @pytest.mark.parametrize("command", ["rewrite", "inspect"])
    def test_no_model(self, folder, command):
        whole = (folder / "model.onnx").read_bytes()
        empty = onnx.ModelProto(ir_version=8)
        empty.opset_import.append(helper.make_opsetid("", 17))
        cases = {
            "none.onnx": (None, "no such file"),
            "text.onnx": (b"this is no model at all", "is not an ONNX model"),
            "cut.onnx": (whole[: len(whole) // 2], "is not an ONNX model"),
            "end.onnx": (whole[:-1], "is not an ONNX model"),
            "nothing.onnx": (b"", "holds no graph"),
            "empty.onnx": (empty.SerializeToString(), "holds no graph"),
            "zip.onnx": (b"PK\x03\x04" + bytes(100), ""),
        }
        for name, (content, words) in cases.items():
            if content is not None:
                (folder / name).write_bytes(content)
            text = refused(folder, command, folder / name)
            assert name in text
            assert words in text
        (folder / "folder.onnx").mkdir()
        assert "folder" in refused(folder, command, folder / "folder.onnx")
        refused(folder, command, folder)

    def test_a_graph_without_convolutions(self, folder):
        net = Net()
        net.node("Relu", "x", "y")
        onnx.save(net.model(), folder / "relu.onnx")
        assert call("inspect", folder / "relu.onnx").exit_code == 0
        assert call("rewrite", folder / "relu.onnx").exit_code == 0

    def test_a_custom_domain(self, folder):
        net = network()
        net.node("Special", "y", "z", domain="org.example")
        model = net.model("y", opset={"": 17, "org.example": 1})
        model.graph.output[0].name = "z"
        onnx.save(model, folder / "custom.onnx")
        text = refused(folder, "rewrite", folder / "custom.onnx")
        assert "org.example" in text or "Special" in text

    def test_weights_of_another_length(self, folder):
        """The checker does not see large weights, which it would have to load."""
        model = network().model()
        for tensor in model.graph.initializer:
            if tensor.name == "b.kernel":
                tensor.raw_data = tensor.raw_data[:-4]
        (folder / "short.onnx").write_bytes(model.SerializeToString())
        assert "'b.kernel'" in refused(folder, "inspect", folder / "short.onnx")

    def test_a_graph_that_is_no_graph(self, folder):
        model = network().model()
        model.graph.node.add().CopyFrom(model.graph.node[0])
        (folder / "twice.onnx").write_bytes(model.SerializeToString())
        assert "onnx.checker" in refused(folder, "rewrite", folder / "twice.onnx")

    def test_double_precision(self, folder):
        """Valid, but ONNX Runtime has no such Conv on CPUs."""
        net = Net(dtype=np.float64)
        net.conv("x", "y")
        onnx.save(net.model(), folder / "double.onnx")
        assert "ONNX Runtime" in refused(folder, "rewrite", folder / "double.onnx")

    def test_opened_by_its_path(self, folder):
        file = open_onnx(str(folder / "model.onnx"))
        assert len(file.sha256) == 64
        assert file.model.graph.name == "net"
