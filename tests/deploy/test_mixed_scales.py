"""Int8 files of networks whose outputs mix scales: boxes in pixels beside scores of 0 … 1."""

from __future__ import annotations

import keras
import numpy as np
import onnx
import pytest
import small_networks
from keras import layers
from onnx_native import Net
from refusals import refuses

from dsconvert.base.errors import GateFailed
from dsconvert.base.fidelity import compare_outputs
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.exporting.improve import Improvement
from dsconvert.deploy.exporting.onnx_candidates import OnnxBuilder
from dsconvert.deploy.exporting.output_tail import find_tail, is_mixed
from dsconvert.deploy.runtimes.registry import open_runtime

DETECTOR = small_networks.network("detector")


def quickly(outputs: str) -> Improvement:
    """Nothing but what becomes of the outputs."""
    return Improvement(equalize="off", correct_biases=False, outputs=outputs)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    y, x = np.mgrid[:32, :32] / 32
    rng = np.random.default_rng(0)
    waves = rng.uniform(1, 9, (60, 2, 3)), rng.uniform(0, 6, (60, 3))
    turns = y[..., None] * waves[0][:, None, None, 0] + x[..., None] * waves[0][:, None, None, 1]
    return (0.5 + 0.5 * np.sin(2 * turns + waves[1][:, None, None])).astype(np.float32)


def head(name: str = "detections") -> keras.Model:
    """Boxes of 0 … 640 and 20 scores for each of 4×4 cells, as most exporters write them."""
    keras.utils.set_random_seed(1)
    image = x = keras.Input((32, 32, 3), name="image")
    for width in (12, 16, 24):
        x = layers.Conv2D(width, 3, 2, "same", activation="relu")(x)
    boxes = layers.Activation("sigmoid", name="box_parts")(layers.Conv2D(4, 1)(x))
    boxes = layers.Rescaling(640.0, name="boxes")(boxes)
    logits = layers.Conv2D(20, 1, bias_initializer=keras.initializers.Constant(-2.0))
    scores = layers.Activation("sigmoid", name="scores")(logits(x))
    logits.set_weights([logits.kernel * 6, logits.bias])
    joined = layers.Concatenate(name="joined")([boxes, scores])
    return keras.Model(image, layers.Reshape((16, 24), name=name)(joined))


@pytest.fixture(scope="module")
def detector_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "detector.onnx"
    onnx.save(DETECTOR.model, path)
    return path


def exported(model, path, outputs, calibration, verification, **options):
    return export(
        model,
        path,
        quantize=options.pop("quantize", "int8"),
        calibration=[calibration],
        verification=[verification],
        improvement=quickly(outputs),
        **options,
    )


def worst(artifact) -> float:
    """SQNR of the worst group of all outputs, in dB."""
    groups = [group.sqnr_db for one in artifact.fidelity for group in one.measure.groups]
    return min(sqnr for sqnr in groups if sqnr is not None)


def rebuilt(told: str, parts: dict[str, np.ndarray]) -> np.ndarray:
    """Do what the note says."""
    known = {
        "Concat": lambda *arrays, axis: np.concatenate(arrays, axis),
        "Reshape": lambda array, shape: array.reshape(shape),
        "n": len(next(iter(parts.values()))),
    }
    known["Concatenate"] = known["Concat"]
    return eval(told.split(" = ")[1], known | parts)


class TestOnnx:
    def export(self, detector_file, path, outputs):
        return exported(detector_file, path, outputs, DETECTOR.calibration, DETECTOR.inputs)

    def test_kept_outputs_are_refused_and_named(self, detector_file, tmp_path):
        with pytest.raises(GateFailed, match="channels 4–12"):
            self.export(detector_file, tmp_path / "keep.onnx", "keep")

    @pytest.mark.parametrize("outputs", ["float-tail", "auto"])
    def test_a_tail_in_float(self, detector_file, tmp_path, outputs):
        artifact = self.export(detector_file, tmp_path / "tail.onnx", outputs)

        assert worst(artifact) > 20
        assert [one.name for one in artifact.outputs] == ["detections"]
        assert any("Concat" in note and "in float" in note for note in artifact.notes)
        joined = [n for n in onnx.load(artifact.path).graph.node if n.op_type == "Concat"]
        quantized = onnx.load(artifact.path).graph.node
        readers = {name for n in quantized if n.op_type == "QuantizeLinear" for name in n.input}
        assert not readers & {name for n in joined for name in n.output}
        assert sum(n.op_type == "QuantizeLinear" for n in quantized) > 4  # the rest is in int8

    def test_split(self, detector_file, tmp_path):
        artifact = self.export(detector_file, tmp_path / "split.onnx", "split")

        assert worst(artifact) > 20
        assert len(artifact.outputs) == 2
        told = (
            "outputs split: boxes_rows, scores_last instead of detections; "
            "detections = Concat(boxes_rows, Reshape(scores_last, shape=(n, -1, 9)), axis=2)"
        )
        assert told in artifact.notes
        parts = open_runtime(tmp_path / "split.onnx").predict([DETECTOR.inputs])
        (whole,) = small_networks.run(DETECTOR.model, DETECTOR.inputs)
        names = [one.name for one in artifact.outputs]
        joined = rebuilt(told, dict(zip(names, parts, strict=True)))
        whole, joined = ([array[..., :4], array[..., 4:]] for array in (whole, joined))
        for fidelity in compare_outputs(["boxes", "scores"], whole, joined):
            assert fidelity.sqnr_db > 20

    def test_split_where_no_tail_can_be_in_float(self, detector_file, tmp_path, monkeypatch):
        monkeypatch.setattr(OnnxBuilder, "with_float_tail", lambda self, samples: None)
        artifact = self.export(detector_file, tmp_path / "auto.onnx", "auto")

        assert worst(artifact) > 20
        assert len(artifact.outputs) == 2
        assert not list(tmp_path.glob("*.rejected.*"))

    def test_outputs_of_one_scale_are_left_alone(self, tmp_path):
        network = small_networks.network("multiple")
        onnx.save(network.model, tmp_path / "multiple.onnx")
        given = (tmp_path / "multiple.onnx", tmp_path / "int8.onnx")
        artifact = exported(*given, "auto", network.calibration, network.inputs)

        assert not any(note.startswith("outputs") for note in artifact.notes)
        for outputs in ("split", "float-tail"):
            with refuses("no-mixed-scales"):
                exported(
                    given[0],
                    tmp_path / f"{outputs}.onnx",
                    outputs,
                    network.calibration,
                    network.inputs,
                )


class TestTflite:
    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("quantize", "taken"), [("int8", "int8"), ("int8-float-io", "float32")]
    )
    def test_a_tail_in_float(self, tmp_path, images, quantize, taken):
        path = tmp_path / "auto.tflite"
        artifact = exported(head(), path, "auto", images[:40], images[40:], quantize=quantize)

        assert worst(artifact) > 20
        assert artifact.inputs[0].dtype == taken
        assert [(one.name, one.dtype) for one in artifact.outputs] == [("detections", "float32")]
        assert any("Concatenation" in note for note in artifact.notes)

    def test_split(self, tmp_path, images):
        model = head()
        path = tmp_path / "split.tflite"
        artifact = exported(model, path, "split", images[:40], images[40:])

        assert worst(artifact) > 20
        assert {one.name for one in artifact.outputs} == {"boxes", "scores"}
        told = (
            "outputs split: boxes, scores instead of detections; "
            "detections = Reshape(Concatenate(boxes, scores, axis=3), shape=(n, 16, 24))"
        )
        assert told in artifact.notes
        assert {one.dtype for one in artifact.outputs} == {"int8"}
        parts = dict(
            zip(
                [one.name for one in artifact.outputs],
                open_runtime(path).predict([images[40:]]),
                strict=True,
            )
        )
        whole = np.asarray(model(images[40:]))
        (fidelity,) = compare_outputs(["detections"], [whole], [rebuilt(told, parts)])
        assert fidelity.worst_db > 20

    def test_values_moved_before_they_are_joined(self, tmp_path, images):
        """A scale reaches through a Reshape: what is joined would get that of the whole."""
        image = keras.Input((32, 32, 3), name="image")
        x = layers.Conv2D(8, 3, 4, activation="relu")(image)
        boxes = layers.Reshape((64, 4))(layers.Rescaling(640.0)(layers.Conv2D(4, 1)(x)))
        scores = layers.Reshape((64, 5))(layers.Conv2D(5, 1, activation="sigmoid")(x))
        model = keras.Model(image, layers.Concatenate(name="joined")([boxes, scores]))
        artifact = exported(model, tmp_path / "a.tflite", "float-tail", images[:40], images[40:])

        assert worst(artifact) > 20
        assert [one.name for one in artifact.outputs] == ["joined"]

    def test_keras_to_onnx(self, tmp_path, images):
        path = tmp_path / "auto.onnx"
        artifact = exported(head(), path, "auto", images[:40], images[40:])

        assert worst(artifact) > 20
        assert [one.name for one in artifact.outputs] == ["detections"]

    def test_kept_outputs_are_refused(self, tmp_path, images):
        with pytest.raises(GateFailed, match="channels 4–23"):
            exported(head(), tmp_path / "keep.tflite", "keep", images[:40], images[40:])


class TestTail:
    """A chain c → a, b → joined → moved, of which joined and moved mix scales."""

    def reads(self, name):
        return {"moved": ["joined"], "joined": ["a", "b"], "a": ["c"], "b": ["c"]}[name]

    def values(self, names):
        rng = np.random.default_rng(0)
        small, large = rng.random((8, 4, 4, 3)), 640 * rng.random((8, 4, 4, 2))
        joined = np.concatenate([small, large], axis=-1)
        known = {"a": small, "b": large, "c": small, "joined": joined, "other": small}
        known["moved"] = joined.reshape(8, 16, 5)
        return {name: known[name].astype(np.float32) for name in names}

    def test_begins_where_scales_are_mixed(self):
        tail = find_tail(["moved", "other"], self.reads, self.values)

        assert tail.mixed == ("moved", "joined")
        assert tail.cuts == ("a", "b")

    def test_nothing_to_find(self):
        assert find_tail(["a"], self.reads, self.values).mixed == ()

    @pytest.mark.parametrize(
        ("scales", "mixed"), [((1, 640), True), ((1, 17), True), ((1, 15), False), ((1, 1), False)]
    )
    def test_which_scales_are_mixed(self, scales, mixed):
        values = np.random.default_rng(0).uniform(0.5, 1, (8, 20, 6)).astype(np.float32)
        values[..., 0], values[..., 1] = scales[0], scales[1]
        values[..., 2:] = 1

        assert is_mixed(values) is mixed

    def test_class_probabilities_are_not(self):
        logits = np.random.default_rng(0).normal(0, 6, (8, 30)) - np.arange(30)
        powers = np.exp(logits)

        assert not is_mixed((powers / powers.sum(axis=1, keepdims=True)).astype(np.float32))

    def test_shapes_and_integers_are_not(self):
        assert not is_mixed(np.array([1, 640], np.float32))
        assert not is_mixed(np.array([[1, 640]], np.int64))


def test_a_layer_that_mixes_scales_itself(tmp_path):
    """One dense layer of outputs in other units: it stays in float itself."""
    rng = np.random.default_rng(0)
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D()(x)
    last = layers.Dense(3, name="place")
    model = keras.Model(image, last(x))
    last.set_weights([rng.normal(size=(8, 3)) * [300, 300, 0.1], np.array([300, 300, 0.5])])
    images = rng.random((60, 8, 8, 3), dtype=np.float32) * rng.random((60, 1, 1, 3), np.float32)
    artifact = exported(model, tmp_path / "place.onnx", "auto", images[:40], images[40:])

    assert worst(artifact) > 20
    assert any("in float" in note for note in artifact.notes)


def test_a_softmax_is_not_split_into_logits(tmp_path):
    """It joins nothing: the program that reads probabilities would get logits."""
    net = Net()
    net.conv("x", "logits", (6, 4))
    net.node("Flatten", "logits", "flat")
    net.node("Softmax", "flat", "shares", axis=1)
    net.constant("shape", np.int64([2, 4, 10, 10]))
    net.node("Reshape", "shares shape", "y")
    model = net.model(inputs={"x": (2, 6, 12, 12)})
    onnx.save(model, tmp_path / "m.onnx")
    x = np.random.default_rng(0).normal(size=(12, 6, 12, 12)).astype(np.float32)
    x *= 8  # large logits, whose softmax is no step of the integers everywhere
    path = tmp_path / "int8.onnx"
    export(tmp_path / "m.onnx", path, quantize="int8", calibration=x, improvement=quickly("auto"))
    assert [output.name for output in onnx.load(path).graph.output] == ["y"]


def test_outputs_that_one_operator_makes_together(images, tmp_path):
    keras.utils.set_random_seed(0)
    image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(12, 3, 4)(image)
    largest, places = keras.ops.top_k(layers.Dense(8, activation="relu")(x), 3)
    joined = layers.Concatenate()([layers.Dense(3)(x) * 500.0, layers.Dense(3)(x)])
    model = keras.Model(image, [joined, largest, places])
    found = exported(model, tmp_path / "m.tflite", "auto", images[:40], images[40:])
    assert "outputs split" in " ".join(found.notes)
    assert min(one.sqnr_db for one in found.fidelity if one.labels is None) > 30
