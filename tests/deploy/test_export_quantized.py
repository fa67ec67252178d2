"""Quantized .tflite and .onnx files: what they hold and say of themselves, which are kept."""

import re
import zipfile

import keras
import msgspec
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from keras import layers
from onnx_nets import floats, graph, node
from refusals import refuses

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.improve import Improvement
from dsconvert.deploy.exporting.metadata import read_metadata, stamp_tflite
from dsconvert.deploy.exporting.onnx_static import quantize_static
from dsconvert.deploy.exporting.records import Artifact
from dsconvert.deploy.runtimes.registry import open_runtime

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def normed_cnn(opset: int = 17, ir: int = 8) -> onnx.ModelProto:
    """Convolutions with a normalisation between them, and a property of its own."""
    nodes = [
        node("Conv", "x w b", "c", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c g o m v", "n"),
        node("Relu", "n", "r"),
        node("Conv", "r w2", "d", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", "d", "p"),
        node("Flatten", "p", "y"),
    ]
    weights = {
        "w": floats(16, 3, 3, 3),
        "b": floats(16, seed=1),
        "g": 1 + floats(16, scale=0.1),
        "o": floats(16, seed=2),
        "m": floats(16, seed=3),
        "v": 1 + np.abs(floats(16)),
        "w2": floats(24, 16, 3, 3, seed=4) * np.logspace(-0.5, 0, 24)[:, None, None, None],
    }
    weights["w2"] = weights["w2"].astype(np.float32)
    model = graph(nodes, ["batch", 3, 8, 8], "y", opset=opset, ir=ir, **weights)
    model.metadata_props.add(key="author", value="somebody")
    return model


@pytest.fixture
def source(tmp_path):
    onnx.save(normed_cnn(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(5).normal(size=(40, 3, 8, 8)).astype(np.float32)


def kinds(path):
    return {one.op_type for one in onnx.load(path).graph.node}


def ends(path):
    graph = onnx.load(path, load_external_data=False).graph
    return [[v.SerializeToString() for v in values] for values in (graph.input, graph.output)]


# The least SQNR: weights of 8 bits round to 1/256 of a channel's range, 35 dB and more for one
# layer; five of them, and activations of 8 bits, take at most 15. float16: 2⁻¹² of each weight.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "quantize", "dtype", "least_db", "most_bytes"),
    [
        ("m.tflite", "float16", "float32", 55, 0.7),
        ("m.tflite", "dynamic", "float32", 25, 0.5),
        ("m.tflite", "int8", "int8", 25, 0.5),
        ("m.tflite", "int8-float-io", "float32", 25, 0.5),
        ("m.tflite", "int16x8", "int16", 30, 0.5),
        ("m.onnx", "float16", "float32", 55, 0.7),
        ("m.onnx", "dynamic", "float32", 25, 0.6),
        ("m.onnx", "int8", "float32", 25, 0.7),
        ("m.onnx", "int8-float-io", "float32", 25, 0.7),
    ],
)
def test_a_trained_network_in_every_quantization(
    digits, digits_cnn, tmp_path, name, quantize, dtype, least_db, most_bytes
):
    images, labels = digits
    train, test = images[:200], images[1200:]
    full = export(digits_cnn, tmp_path / f"full_{name}", verification=test[:5])
    artifact = export(
        digits_cnn, tmp_path / name, quantize=quantize, calibration=train, verification=test
    )
    runtime = open_runtime(tmp_path / name)
    (scores,) = runtime.predict([test])
    expected = digits_cnn.predict(test, verbose=0)

    assert (runtime.input_names, runtime.output_names) == (("image",), ("scores",))
    assert {info.dtype for info in (*runtime.inputs, *runtime.outputs)} == {dtype}
    noise = np.sum((scores - expected) ** 2) / np.sum(expected**2)
    assert -10 * np.log10(noise) == pytest.approx(artifact.fidelity[0].sqnr_db, abs=0.1)
    assert least_db < artifact.fidelity[0].sqnr_db < 90
    assert artifact.size_bytes < most_bytes * full.size_bytes
    # 597 digits: a point is six of them.
    accuracy = [np.mean(y.argmax(axis=1) == labels[1200:]) for y in (expected, scores)]
    assert abs(accuracy[0] - accuracy[1]) < 0.01
    assert artifact.verified_on == "verification data"


class TestOnnxSources:
    """An .onnx file becomes a smaller one in its own layout."""

    @pytest.mark.parametrize("quantize", ["float16", "dynamic", "int8", "int8-float-io"])
    def test_inputs_outputs_and_properties_stay(self, source, pictures, tmp_path, quantize):
        path = tmp_path / "small.onnx"
        artifact = export(source, path, quantize=quantize, calibration=pictures)
        (expected,), (got,) = (open_runtime(p).predict([pictures]) for p in (source, path))

        assert ends(path) == ends(source)
        assert np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)
        assert {entry.key for entry in onnx.load(path).metadata_props} == {"author", "dsconvert"}
        assert artifact.size_bytes == path.stat().st_size < source.stat().st_size
        assert "tensorflow" not in artifact.tools
        assert {o.domain for o in onnx.load(path).opset_import} <= {"", "com.microsoft"}

    def test_static_int8_has_a_scale_per_channel(self, source, pictures, tmp_path):
        export(source, tmp_path / "small.onnx", quantize="int8", calibration=pictures)
        graph = onnx.load(tmp_path / "small.onnx").graph
        held = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
        made = {output: one for one in graph.node for output in one.output}
        convolutions = [one for one in graph.node if one.op_type == "Conv"]

        assert [held[made[c.input[1]].input[1]].shape for c in convolutions] == [(16,), (24,)]
        assert {held[made[c.input[1]].input[0]].dtype for c in convolutions} == {np.dtype("int8")}
        zero_points = {held[made[c.input[0]].input[2]].dtype for c in convolutions}
        assert zero_points == {np.dtype("uint8")}
        assert "BatchNormalization" not in kinds(tmp_path / "small.onnx")  # folded before

    def test_old_opsets_are_converted(self, pictures, tmp_path):
        onnx.save(normed_cnn(opset=11), tmp_path / "old.onnx")
        path = tmp_path / "small.onnx"
        artifact = export(tmp_path / "old.onnx", path, quantize="int8", calibration=pictures)

        assert "converted from opset 11 to 13" in " ".join(artifact.notes)
        assert artifact.fidelity[0].sqnr_db > 25
        assert ends(path) == ends(tmp_path / "old.onnx")

    @pytest.mark.parametrize("quantize", ["float16", "dynamic", "int8"])
    def test_external_data_stay_external(self, pictures, tmp_path, quantize):
        source = tmp_path / "model.onnx"
        onnx.save_model(
            normed_cnn(), source, save_as_external_data=True, location="w.bin", size_threshold=1024
        )
        path = tmp_path / "small.onnx"
        artifact = export(source, path, quantize=quantize, calibration=pictures)

        beside = tmp_path / "small.onnx.data"
        assert artifact.size_bytes == path.stat().st_size + beside.stat().st_size
        assert {
            entry.value
            for t in onnx.load(path, load_external_data=False).graph.initializer
            for entry in t.external_data
            if entry.key == "location"
        } == {beside.name}
        (expected,), (got,) = (open_runtime(p).predict([pictures]) for p in (source, path))
        assert np.linalg.norm(got - expected) < 0.05 * np.linalg.norm(expected)
        found = sorted(p.name for p in tmp_path.iterdir())
        assert found == ["model.onnx", "small.onnx", "small.onnx.data", "w.bin"]

    def test_ends_in_half_precision_on_request(self, source, pictures, tmp_path):
        path = tmp_path / "half.onnx"
        artifact = export(source, path, quantize="float16", keep_io=False, verification=pictures)

        assert [info.dtype for info in (*artifact.inputs, *artifact.outputs)] == ["float16"] * 2
        assert "Cast" not in kinds(path)

    def test_weights_that_are_listed_as_inputs_become_small_too(self, pictures, tmp_path):
        """As files of IR version 3 have them."""
        onnx.save(normed_cnn(opset=9, ir=3), tmp_path / "old.onnx")
        path = tmp_path / "half.onnx"
        artifact = export(tmp_path / "old.onnx", path, quantize="float16", verification=pictures)
        assert [info.name for info in artifact.inputs] == ["x"]
        assert path.stat().st_size < 0.7 * (tmp_path / "old.onnx").stat().st_size

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"quantize": "int8"}, "needs calibration data"),
            ({"name": "x.tflite", "quantize": "int8"}, "by way of Keras"),
            ({"name": "model.onnx", "quantize": "dynamic"}, "is the model itself"),
            ({"quantize": "dynamic", "labels": ["a", "b"]}, "2 labels, and the outputs have 24"),
        ],
    )
    def test_refusals(self, source, options, message):
        options = dict(options)
        path = source.with_name(options.pop("name", "x.onnx"))
        with pytest.raises(InputError, match=message):
            export(source, path, overwrite=True, **options)
        assert [p.name for p in source.parent.iterdir()] == ["model.onnx"]

    @pytest.mark.parametrize(
        ("quantize", "found"), [("int8", "uantizeLinear"), ("float16", "half-precision")]
    )
    def test_quantized_twice(self, source, pictures, quantize, found):
        once, twice = source.with_name("once.onnx"), source.with_name("twice.onnx")
        export(source, once, quantize=quantize, calibration=pictures)
        with pytest.raises(InputError, match=f"{found}.*was quantized already"):
            export(once, twice, quantize="dynamic")

    def test_weights_alone_are_quantized(self, tmp_path):
        nodes = [node("DequantizeLinear", "q s", "w"), node("Conv", "x w", "y")]
        stored = np.ones((4, 3, 3, 3), np.int8)
        model = graph(nodes, ["n", 3, 8, 8], "y", q=stored, s=np.float32(0.1))
        onnx.save(model, tmp_path / "m.onnx")
        with refuses("quantized-already"):
            export(tmp_path / "m.onnx", tmp_path / "half.onnx", quantize="float16")

    def test_nothing_to_quantize(self, tmp_path, pictures):
        onnx.save(graph([node("Relu", "x", "y")], ["n", 3, 8, 8], "y"), tmp_path / "relu.onnx")
        with refuses("nothing-to-quantize"):
            export(
                tmp_path / "relu.onnx", tmp_path / "x.onnx", quantize="int8", calibration=pictures
            )


def input_scale(path):
    graph = onnx.load(path).graph
    held = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    first = next(n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == "x")
    return float(held[first.input[1]])


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_calibration_methods_leave_outliers_out(source, tmp_path, method):
    """One value of 20 among 230,000 normal ones is all that decides the range of minmax."""
    images = np.random.default_rng(0).normal(size=(1200, 3, 8, 8)).astype(np.float32)
    images[70, 0, 0, 0] = 20
    scale = {}
    for one in ("minmax", method):
        quantize_static(source, tmp_path / f"{one}.onnx", [images], method=one)
        scale[one] = input_scale(tmp_path / f"{one}.onnx")
    assert scale["minmax"] == pytest.approx((20 - images.min()) / 255, rel=1e-4)
    assert scale[method] < 0.9 * scale["minmax"]


def test_a_fixed_batch_that_does_not_divide_the_samples(tmp_path):
    """The last of five samples, alone in its batch of two, has the range."""
    proto = normed_cnn()
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(proto, tmp_path / "two.onnx")
    images = np.random.default_rng(0).uniform(size=(5, 3, 8, 8)).astype(np.float32)
    images[4] *= 10
    quantize_static(tmp_path / "two.onnx", tmp_path / "q.onnx", [images])
    assert input_scale(tmp_path / "q.onnx") == pytest.approx(images.max() / 255, rel=1e-4)


class TestMetadata:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["m.tflite", "m.onnx"])
    def test_a_file_says_what_it_is(self, digits, digits_cnn, tmp_path, name):
        images, _ = digits
        artifact = export(
            digits_cnn,
            tmp_path / name,
            quantize="int8",
            calibration=images[:60],
            calibration_source="digits.npz",
            source_sha256="ab" * 32,
            labels=NAMES,
            preprocessing={"scale": 0.0625},
        )
        said = read_metadata(tmp_path / name)

        assert said is not None
        assert (said.quantization, said.source_sha256) == ("int8", "ab" * 32)
        assert said.tools == artifact.tools
        assert said.tools["dsconvert"]
        assert (said.labels, said.preprocessing) == (NAMES, {"scale": 0.0625})
        assert (said.verified_on, said.rejected) == ("calibration data", False)
        assert said.calibration == artifact.calibration
        assert said.calibration.source == "digits.npz"
        assert 0 < said.calibration.samples <= 60
        assert not said.calibration.random

    def test_tflite_labels_are_where_the_convention_has_them(self, digits_cnn, tmp_path):
        """In a zip archive behind the model, named by a buffer TFLITE_METADATA."""
        path = tmp_path / "m.tflite"
        export(digits_cnn, path, labels=NAMES)
        with zipfile.ZipFile(path) as archive:
            assert archive.read("labels.txt").decode().split() == list(NAMES)
        model = schema.Model.GetRootAs(path.read_bytes())
        entries = {
            model.Metadata(i).Name(): model.Metadata(i) for i in range(model.MetadataLength())
        }
        content = bytes(model.Buffers(entries[b"TFLITE_METADATA"].Buffer()).DataAsNumpy())
        assert content[4:8] == b"M001"
        assert b"labels.txt" in content

    def test_tensors_are_aligned_as_the_schema_has_them(self, digits_cnn, tmp_path):
        path = tmp_path / "m.tflite"
        export(digits_cnn, path)
        model = schema.Model.GetRootAs(path.read_bytes())
        filled = [model.Buffers(i) for i in range(model.BuffersLength())]
        starts = [b._tab.Vector(b._tab.Offset(4)) for b in filled if b.DataLength()]
        assert len(starts) > 8
        assert {start % 16 for start in starts} == {0}

    def test_writing_it_again_changes_nothing(self, digits_cnn, tmp_path):
        """No date in the archive, and no second buffer of the same name."""
        path = tmp_path / "m.tflite"
        export(digits_cnn, path, labels=NAMES)
        before = path.read_bytes()
        stamp_tflite(path, read_metadata(path))
        assert path.read_bytes() == before

    def test_a_file_of_others_says_nothing(self, source):
        assert read_metadata(source) is None

    @pytest.mark.parametrize("name", ["m.tflite", "m.onnx"])
    def test_random_calibration_is_branded(self, digits_cnn, tmp_path, name):
        artifact = export(digits_cnn, tmp_path / name, quantize="int8", allow_random=True)
        assert artifact.verified_on == "random inputs"
        assert read_metadata(tmp_path / name).calibration.random
        assert any("calibrated on random numbers" in note for note in artifact.notes)

    @pytest.mark.parametrize("name", ["m.tflite", "m.onnx"])
    def test_what_was_not_verified_says_so(self, digits_cnn, tmp_path, name):
        artifact = export(digits_cnn, tmp_path / name, gate=False)
        assert (artifact.verified_on, artifact.samples) == ("nothing", 0)
        assert read_metadata(tmp_path / name).verified_on == "nothing"
        assert any("not verified" in note for note in artifact.notes)


class TestRejected:
    """Ranges from inputs of a hundredth of the size: every activation saturates."""

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["m.tflite", "m.onnx"])
    def test_is_kept_beside_its_place_with_a_report(self, tmp_path, name):
        x = keras.Input((16, 16, 3), name="image")
        model = keras.Model(x, layers.Conv2D(8, 3, name="only")(x))
        images = np.random.default_rng(1).normal(size=(48, 16, 16, 3)).astype(np.float32)
        path, suffix = tmp_path / name, name.split(".")[1]
        for _ in range(2):  # a second run replaces what the first has left
            with pytest.raises(GateFailed, match=r"SQNR [\d.]+ dB; at least 10 dB") as error:
                export(model, path, quantize="int8", calibration=images / 100, verification=images)
        kept = tmp_path / f"m.rejected.{suffix}"
        report = msgspec.json.decode((tmp_path / "m.rejected.json").read_bytes(), type=Artifact)

        assert sorted(p.name for p in tmp_path.iterdir()) == ["m.rejected.json", kept.name]
        assert str(kept) in error.value.hint
        assert re.search("SQNR .* dB", report.failures[0])
        assert report.path == str(kept)
        assert report.fidelity[0].sqnr_db < 10
        assert read_metadata(kept).rejected
        open_runtime(kept).predict([images[:2]])

    def test_external_data_go_with_it(self, tmp_path, pictures):
        onnx.save_model(
            normed_cnn(),
            tmp_path / "m.onnx",
            save_as_external_data=True,
            location="w.bin",
            size_threshold=1024,
        )
        for _ in range(2):
            with pytest.raises(GateFailed):
                export(
                    tmp_path / "m.onnx",
                    tmp_path / "q.onnx",
                    quantize="int8",
                    calibration=pictures / 1000,
                    verification=pictures,
                    improvement=Improvement(outputs="keep"),
                )
        open_runtime(tmp_path / "q.rejected.onnx").predict([pictures])
        assert not (tmp_path / "q.onnx.data").exists()
        assert (tmp_path / "q.rejected.onnx.data").stat().st_size < 2 * (24 * 16 * 9)
