"""The commands rewrite and inspect on .onnx files: what they write, refuse, print and import."""

import json
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from onnx_native import Net, X, assert_same_outputs, images, outputs, session
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.formats.onnx.open import open_onnx
from dsconvert.formats.onnx.save import save


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


@pytest.fixture
def folder(tmp_path):
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


class TestRewrite:
    @pytest.mark.parametrize("mode", [[], ["--calibration", "data.npz", "--samples", "15"]])
    def test_writes_a_model_beside(self, folder, mode):
        words = [folder / word if word.endswith("npz") else word for word in mode]
        result = call("rewrite", folder / "model.onnx", "--json", *words)

        assert result.exit_code == 0, result.stderr
        record = json.loads(result.stdout)
        path = folder / "model_ds.onnx"
        assert record["output"] == str(path)
        assert record["size_bytes"] == path.stat().st_size
        assert {row["name"]: row.get("pairs") for row in record["report"]["layers"]} == {
            "a": 1,
            "b": 1,
        }
        assert outputs(path, X)[0].shape == (2, 40)
        assert not (folder / "model_ds.onnx.data").exists()

    def test_at_full_rank_it_is_the_same(self, folder):
        call("rewrite", folder / "model.onnx", "--pairs", 50, "-o", folder / "new.onnx")
        assert_same_outputs(folder / "model.onnx", folder / "new.onnx", X)

    def test_as_text(self, folder):
        result = call("rewrite", folder / "model.onnx", "-q")
        assert "2 of 2 convolutions rewritten by svd" in result.stdout
        assert result.stderr == ""

    def test_never_over_its_input(self, folder):
        path = folder / "model.onnx"
        text = refused(folder, "rewrite", path, "-o", path, "--overwrite")
        assert "the model itself" in text
        (folder / "link.onnx").symlink_to(path)
        refused(folder, "rewrite", path, "-o", folder / "link.onnx", "--overwrite")

    def test_never_over_its_external_data(self, folder):
        """The weights of the model are where those of the result would go."""
        place = folder / "external"
        save_external(network().model(), place / "other.onnx", "new.onnx.data")
        for path in ("new.onnx", "new.onnx.data"):
            text = refused(
                folder, "rewrite", place / "other.onnx", "-o", place / path, "--overwrite"
            )
        save_external(network().model(), place / "third.onnx", "third_ds.onnx")
        text = refused(folder, "rewrite", place / "third.onnx", "--overwrite")
        assert "holds weights of the model itself" in text

    def test_never_over_what_is_there(self, folder):
        (folder / "new.onnx").write_bytes(b"mine")
        words = ("rewrite", folder / "model.onnx", "-o", folder / "new.onnx")
        assert "--overwrite" in refused(folder, *words)
        assert call(*words, "--overwrite").exit_code == 0
        session(folder / "new.onnx")

    def test_another_ending(self, folder):
        assert "new.onnx" in refused(
            folder, "rewrite", folder / "model.onnx", "-o", folder / "new.keras"
        )

    @pytest.mark.parametrize(
        "words",
        [
            ["--include", "nothing"],
            ["--pairs", "1", "--calibration", "none.npz"],
            ["--calibration", "short.npz"],
            ["--calibration", "wrong.npz"],
            ["--calibration", "nan.npz"],
            ["--calibration", "small.npz"],
            ["--method", "data"],
        ],
    )
    def test_what_cannot_be_done(self, folder, words):
        np.savez(folder / "short.npz", x=X)
        np.savez(folder / "wrong.npz", x=images(20, 6, 9))
        np.savez(folder / "small.npz", x=images(20, 6, 4, 10))
        np.savez(folder / "nan.npz", x=np.full((20, 6, 9, 10), np.nan, np.float32))
        words = [folder / word if word.endswith(".npz") else word for word in words]
        refused(folder, "rewrite", folder / "model.onnx", *words)

    def test_nothing_to_rewrite(self, folder):
        result = call("rewrite", folder / "model.onnx", "--exclude", "*", "--json")
        assert result.exit_code == 0
        assert_same_outputs(folder / "model.onnx", folder / "model_ds.onnx", X, tolerance=0)


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
            was_external = name in ("w", "c")
            assert (tensor.data_location == 1) == (was_external or count > 1024), name
            if tensor.data_location == 1:
                where = place(tensor)
                assert where["location"] == "m.onnx.data"
                assert int(where["length"]) == count
                assert int(where["offset"]) % 4096 == 0
                assert not tensor.HasField("raw_data")
                spans.append((int(where["offset"]), int(where["offset"]) + count))
        spans.sort()
        assert len(spans) == 2
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


class TestInspect:
    def test_json(self, folder):
        result = call("inspect", folder / "external" / "model.onnx", "--json")
        record = json.loads(result.stdout)

        assert [row["name"] for row in record["convolutions"]] == ["a", "b"]
        assert record["macs"] == 90 * 9 * (6 * 12 + 12 * 16) + 40 * 16
        assert record["params"] == sum(
            int(np.prod(t.dims)) for t in network().model().graph.initializer
        )

    def test_with_data(self, folder):
        words = ("inspect", folder / "model.onnx", "--calibration", folder / "data.npz", "--json")
        record = json.loads(call(*words).stdout)

        assert record["calibration_images"] == 20
        for row in record["convolutions"]:
            errors = [option["data_error"] for option in row["options"]]
            assert errors == sorted(errors, reverse=True)
            assert errors[0] > 0


@pytest.mark.parametrize(
    "words",
    [
        ["rewrite", "model.onnx", "--overwrite"],
        ["rewrite", "model.onnx", "--overwrite", "--calibration", "data.npz"],
        ["inspect", "model.onnx", "--calibration", "data.npz"],
    ],
)
def test_neither_tensorflow_nor_keras_is_imported(folder, words):
    words = [str(folder / word) if "." in word else word for word in words]
    code = f"""
import sys
from dsconvert.cli import main
try:
    main({words!r})
except SystemExit as stop:
    assert not stop.code, stop.code
print(sorted(set(sys.modules) & {{"tensorflow", "keras", "tf2onnx", "ai_edge_litert"}}))
"""
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines()[-1] == "[]"
