"""Weights beside an .onnx file stay beside it, and where they were."""

import json
import shutil
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_native import Net, X, assert_same_outputs, images, session
from refusals import refuses
from rewrite_commands import call, contents, filled, network, place, refused, save_external, tensors

from dsconvert.base.errors import InputError
from dsconvert.formats.onnx.save import save


@pytest.fixture
def folder(tmp_path):
    return filled(tmp_path)


class TestExternalData:
    def test_stay_external(self, folder):
        source, target = folder / "external", folder / "new"
        target.mkdir()
        before = contents(source)
        result = call(
            "rewrite", source / "model.onnx", "--pairs", 50, "-o", target / "m.onnx", "--json"
        )

        assert result.exit_code == 0, result.stderr
        assert contents(source) == before
        assert {p.name for p in target.iterdir()} == {"m.onnx", "m.onnx.data"}
        sizes = [p.stat().st_size for p in target.iterdir()]
        assert json.loads(result.stdout)["size_bytes"] == sum(sizes)
        shutil.rmtree(source)  # nothing refers to it
        assert_same_outputs(folder / "model.onnx", target / "m.onnx", X)
        onnx.checker.check_model(str(target / "m.onnx"), full_check=True)

    def test_places(self, folder):
        """Large tensors apart from each other, small ones in the model; new ones too."""
        call("rewrite", folder / "external" / "model.onnx", "-o", folder / "m.onnx")
        size = (folder / "m.onnx.data").stat().st_size
        spans = []
        for name, tensor in tensors(folder / "m.onnx").items():
            count = int(np.prod(tensor.dims)) * 4
            assert (tensor.data_location == 1) == (count > 1024), name
            if tensor.data_location == 1:
                where = place(tensor)
                assert where["location"] == "m.onnx.data"
                assert int(where["length"]) == count
                assert int(where["offset"]) % 4096 == 0
                assert not tensor.HasField("raw_data")
                spans.append((int(where["offset"]), int(where["offset"]) + count))
        spans.sort()
        assert len(spans) == 1
        assert all(left[1] <= right[0] for left, right in pairwise(spans))
        assert spans[-1][1] == size

    def test_in_several_files_with_offsets(self, folder):
        model = network().model()
        for index, tensor in enumerate(model.graph.initializer):
            (folder / "deep").mkdir(exist_ok=True)
            location = f"deep/part{index % 2}"
            with (folder / location).open("ab") as file:
                file.write(bytes(3 * index))
                entries = {"location": location, "offset": str(file.tell())}
                file.write(tensor.raw_data)
            if index == 0:  # the length is optional: up to the tensor's size
                entries["length"] = str(len(tensor.raw_data))
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in entries.items():
                entry = tensor.external_data.add()
                entry.key, entry.value = key, value
        (folder / "parts.onnx").write_bytes(model.SerializeToString())
        for more in ([], ["--calibration", folder / "data.npz"]):
            words = ("rewrite", folder / "parts.onnx", "--pairs", 50, "--overwrite", *more)
            result = call(*words)
            assert result.exit_code == 0, result.stderr
            # Fitted to data, even full-rank pairs carry a trace of the prior.
            tolerance = 2e-3 if more else 1e-5
            assert_same_outputs(
                folder / "model.onnx", folder / "parts_ds.onnx", X, tolerance=tolerance
            )

    def test_when_none_is_left(self, folder):
        """Only what is rewritten was external."""
        model = network().model()
        kernel = model.graph.initializer[0]
        (folder / "k").write_bytes(kernel.raw_data)
        kernel.ClearField("raw_data")
        kernel.data_location = TensorProto.EXTERNAL
        entry = kernel.external_data.add()
        entry.key, entry.value = "location", "k"
        (folder / "one.onnx").write_bytes(model.SerializeToString())
        assert call("rewrite", folder / "one.onnx", "--include", "a").exit_code == 0
        assert not (folder / "one_ds.onnx.data").exists()
        session(folder / "one_ds.onnx")
        assert call("rewrite", folder / "one.onnx", "--include", "b", "--overwrite").exit_code == 0
        assert (folder / "one_ds.onnx.data").stat().st_size == 4096 + 40 * 16 * 4
        words = ("rewrite", folder / "one.onnx", "--include", "a", "--overwrite", "--json")
        record = json.loads(call(*words).stdout)  # what was beside it no longer belongs to it
        assert record["size_bytes"] == (folder / "one_ds.onnx").stat().st_size

    def test_of_every_kind(self, folder):
        """Element types of less than a byte, inside branches, in Constant nodes, in functions."""
        branch = [
            helper.make_graph(
                [helper.make_node("Mul", ["y", f"t{i}"], ["o"])], "b", [],
                [onnx.ValueInfoProto(name="o")],
                [numpy_helper.from_array(images(16, 1, 1, seed=i), f"t{i}")],
            )
            for i in (0, 1)
        ]  # fmt: skip
        net = Net()
        net.conv("x", "y", (6, 16))
        net.constant("yes", np.array(True))
        net.node("If", "yes", "i", then_branch=branch[0], else_branch=branch[1])
        net.weights.append(helper.make_tensor("four", TensorProto.INT4, [3], [1, -2, 3]))
        net.node("Cast", "four", "three", to=1)
        net.constant("text", np.array(["a", "b"] * 400, object))
        net.node("Shape", "text", "length")
        net.node("Cast", "length", "lengths", to=1)
        net.constant("zero", np.float32(0))
        net.node("ReduceSum", "three", "total")
        net.node("Constant", [], "big", value=numpy_helper.from_array(images(16, 1, 1), "big"))
        net.node("Mul", "i big", "m")
        net.node("Sum", "m total lengths", "z")
        model = net.model("y", opset=21, ir=10)
        model.graph.output[0].name = "z"
        whole = folder / "whole.onnx"
        onnx.save(model, whole)
        for index, tensor in enumerate([
            *(t for t in model.graph.initializer if t.name not in ("text", "zero", "yes")),
            model.graph.node[-3].attribute[0].t,
            *(t for a in model.graph.node[1].attribute for t in a.g.initializer),
        ]):  # fmt: skip
            if not tensor.HasField("raw_data"):
                array = numpy_helper.to_array(tensor)
                tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
            (folder / f"e{index}").write_bytes(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            entry = tensor.external_data.add()
            entry.key, entry.value = "location", f"e{index}"
        (folder / "kinds.onnx").write_bytes(model.SerializeToString())
        (folder / "new").mkdir()
        result = call(
            "rewrite", folder / "kinds.onnx", "--pairs", 50, "-o", folder / "new" / "m.onnx"
        )

        assert result.exit_code == 0, result.stderr
        again = onnx.load(folder / "new" / "m.onnx")
        assert_same_outputs(onnx.load(whole), again, X)
        held = {t.name: numpy_helper.to_array(t) for t in again.graph.initializer}
        assert list(held["text"][:2]) == ["a", "b"]
        np.testing.assert_array_equal(held["four"].astype(int), [1, -2, 3])
        result = call("rewrite", folder / "kinds.onnx", "--calibration", folder / "data.npz")
        assert result.exit_code == 0, result.stderr

    def test_large_tensors_of_all_kinds_move_out(self, tmp_path):
        """Whatever field holds them, and however many share a byte."""
        net = Net()
        net.conv("x", "y", (6, 8))
        net.constant("out", (300,))
        inside = numpy_helper.from_array(images(300), "inside")
        net.node("Constant", [], "kept", value=inside)
        rng = np.random.default_rng(0)
        numbers = rng.integers(-8, 8, 5001)
        net.weights += [
            helper.make_tensor("typed", TensorProto.FLOAT, [400], rng.normal(size=400)),
            helper.make_tensor("half", TensorProto.FLOAT16, [1000], np.arange(1000.0)),
            helper.make_tensor("int4", TensorProto.INT4, [5001], numbers),
            helper.make_tensor("uint8", TensorProto.UINT8, [2000], numbers[:2000] % 8),
            helper.make_tensor("int64", TensorProto.INT64, [200], numbers[:200] << 40),
            helper.make_tensor("bool", TensorProto.BOOL, [2000], numbers[:2000] > 0),
            helper.make_tensor("text", TensorProto.STRING, [300], [b"a", b"bc"] * 150),
        ]
        model = net.model(opset=21, ir=10)
        expected = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        save_external(model, tmp_path / "m.onnx")
        model = net.model(opset=21, ir=10)
        external = onnx.load(tmp_path / "m.onnx", load_external_data=False)
        tensor = next(t for t in model.graph.initializer if t.name == "out")
        tensor.CopyFrom(next(t for t in external.graph.initializer if t.name == "out"))
        before = model.SerializeToString()
        save(model, tmp_path, tmp_path / "new.onnx", overwrite=False)

        assert model.SerializeToString() == before
        moved = {name for name, t in tensors(tmp_path / "new.onnx").items() if t.data_location}
        assert moved == {"y.kernel", "out", "typed", "half", "int4", "uint8", "int64", "bool"}
        for tensor in onnx.load(tmp_path / "new.onnx").graph.initializer:
            np.testing.assert_array_equal(numpy_helper.to_array(tensor), expected[tensor.name])
        # Not all runtimes look for a node's own tensors elsewhere.
        saved = onnx.load(tmp_path / "new.onnx", load_external_data=False)
        assert saved.graph.node[1].attribute[0].t == inside
        session(tmp_path / "new.onnx")

    def test_a_failed_run_leaves_what_was_there(self, folder, monkeypatch):
        words = ("rewrite", folder / "external" / "model.onnx", "-o", folder / "m.onnx")
        assert call(*words).exit_code == 0
        from dsconvert.formats.onnx import save as module

        def fail(*them):
            raise InputError("the disk is full.", "Make room.")

        monkeypatch.setattr(module, "write", fail)
        refused(folder, *words, "--overwrite")
        monkeypatch.undo()
        monkeypatch.setattr(module, "_copy", fail)
        refused(folder, *words, "--overwrite")

    def test_either_file_is_kept_without_overwrite(self, folder):
        (folder / "m.onnx.data").write_bytes(b"mine")
        words = ("rewrite", folder / "external" / "model.onnx", "-o", folder / "m.onnx")
        assert "m.onnx.data exists already" in refused(folder, *words)
        assert call(*words, "--overwrite").exit_code == 0
        session(folder / "m.onnx")

    def test_an_invalid_result_is_not_written(self, tmp_path):
        model = network().model()
        model.graph.node[-1].input[1] = "nowhere"
        with refuses("does-not-run"):
            save(model, None, tmp_path / "m.onnx", overwrite=False)
        assert list(tmp_path.iterdir()) == []
