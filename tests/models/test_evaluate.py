from __future__ import annotations

import msgspec
import numpy as np
import pytest
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.base.fidelity import wilson
from dsconvert.models.data.datasets import Data
from dsconvert.models.data.preprocess import Preprocessing
from dsconvert.models.evaluation.evaluate import Evaluation, evaluate
from dsconvert.models.evaluation.keras_predictor import KerasPredictor

keras = pytest.importorskip("keras")
layers = keras.layers


class Table:
    """A predictor that answers sample number x with row x of a table for each output."""

    def __init__(self, *tables):
        self.tables = [np.asarray(table, np.float32) for table in tables]
        self.calls = []

    input_names = ("x",)
    input_shapes = ((None, 1),)

    @property
    def output_names(self):
        return tuple(f"y{number}" for number in range(len(self.tables)))

    def predict(self, inputs):
        self.calls.append(len(inputs[0]))
        return tuple(table[inputs[0][:, 0].astype(int)] for table in self.tables)


def numbered(count: int, labels=None) -> Data:
    x = np.arange(count, dtype=np.float32)[:, None]
    return Data((x,), labels=labels, source="d.npz", preprocessing=Preprocessing(scale=0.5))


class TestEvaluate:
    def test_top1_and_top5(self, rng):
        scores = rng.random((300, 8))
        labels = rng.integers(0, 8, 300)
        ranks = (-scores).argsort(axis=1)
        result = evaluate(Table(scores), numbered(300, labels), name="m")
        assert result.top1 == wilson(int((ranks[:, 0] == labels).sum()), 300)
        assert result.top5 == wilson(int((ranks[:, :5] == labels[:, None]).any(axis=1).sum()), 300)
        assert result.predicted == tuple(np.bincount(ranks[:, 0], minlength=8))
        assert (result.samples, result.name, result.source) == (300, "m", "d.npz")
        assert result.preprocessing == Preprocessing(scale=0.5)
        assert result.finite
        assert result.mse is None

    def test_five_classes_have_no_top5(self, rng):
        result = evaluate(Table(rng.random((9, 5))), numbered(9, rng.integers(0, 5, 9)))
        assert result.top1 is not None
        assert result.top5 is None

    def test_regression(self):
        result = evaluate(Table([[1.0], [2.0], [4.0]]), numbered(3, np.float32([1.5, 2.0, 2.0])))
        assert result.mse == pytest.approx((0.25 + 4) / 3)
        assert result.mae == pytest.approx(2.5 / 3)
        assert result.top1 is None
        assert result.predicted == ()

    def test_fidelity_of_every_output(self, rng):
        a, b = rng.random((20, 3)), rng.random((20, 2, 2))
        result = evaluate(Table(a, b * 1.01), numbered(20), reference=Table(a, b))
        assert [output.name for output in result.fidelity] == ["y0", "y1"]
        assert result.fidelity[0].relative_error == 0
        assert result.fidelity[1].relative_error == pytest.approx(0.01, rel=1e-4)
        assert result.fidelity[1].sqnr_db == pytest.approx(40, abs=1e-3)

    def test_json_round_trip(self, rng):
        result = evaluate(
            Table(rng.random((9, 7))),
            numbered(9, rng.integers(0, 7, 9)),
            reference=Table(rng.random((9, 7))),
        )
        text = msgspec.json.encode(result)
        assert b'"schema":"dsconvert.evaluation/1"' in text
        assert msgspec.json.decode(text, type=Evaluation) == result

    def test_not_finite(self):
        scores = np.array([[0.1, 0.9], [np.nan, 0.0], [0.9, 0.1]])
        result = evaluate(Table(scores), numbered(3, np.array([1, 0, 0])))
        assert not result.finite
        assert result.top1.correct == 2
        assert "not finite" in result.warnings[0]

    def test_one_class_for_all(self):
        scores = np.tile([0.1, 0.9], (4, 1))
        result = evaluate(Table(scores), numbered(4, np.array([0, 1, 1, 1])))
        assert result.predicted == (0, 4)
        assert any("every sample is given the same class" in text for text in result.warnings)

    def test_chance_is_said(self, rng):
        labels = rng.integers(0, 4, 400)
        wrong = evaluate(Table(np.eye(4)[(labels + 1) % 4]), numbered(400, labels))
        assert "top-1 0.0% is no better" in wrong.warnings[0]
        assert evaluate(Table(np.eye(4)[labels]), numbered(400, labels)).warnings == ()

    def test_progress(self, rng):
        told = []

        class Watch:
            def __init__(self, label, total):
                told.append([label, total, 0])

            def __enter__(self):
                def advance():
                    told[-1][2] += 1

                return advance

            def __exit__(self, *_):
                pass

        table = Table(rng.random((600, 3)))
        evaluate(table, numbered(600), reference=table, name="m", progress=Watch)
        assert told == [["Evaluating m", 3, 3], ["Running the reference", 3, 3]]
        assert table.calls == [256, 256, 88] * 2

    def test_labels_out_of_range(self, rng):
        with pytest.raises(InputError, match="from 1 to 3, and the model has the classes 0 to 2"):
            evaluate(Table(rng.random((2, 3))), numbered(2, np.array([1, 3])))

    def test_targets_of_another_shape(self, rng):
        with pytest.raises(InputError, match=r"have the shape \(2, 3\)"):
            evaluate(Table(rng.random((2, 2, 2))), numbered(2, np.zeros((2, 3), np.float32)))

    def test_wrong_shape_is_refused_before_running(self, rng):
        table = Table(rng.random((2, 3)))
        with pytest.raises(InputError, match=r"got \(n, 4\), expected \(n, 1\)"):
            evaluate(table, Data((np.zeros((2, 4)),)))
        assert table.calls == []

    def test_reference_of_another_kind(self, rng):
        with refuses("shape-mismatch"):
            evaluate(Table(rng.random((2, 3))), numbered(2), reference=Table(rng.random((2, 4))))

    def test_keras_model(self, rng):
        model = keras.Sequential([layers.Input((4,)), layers.Dense(3, activation="softmax")])
        x = rng.random((50, 4)).astype(np.float32)
        labels = np.asarray(model(x)).argmax(axis=1)
        result = evaluate(model, Data((x,), labels=labels), reference=model)
        assert result.top1.value == 1
        assert result.fidelity[0].relative_error == 0


class Images:
    """A predictor that answers images with images, channels first or last."""

    input_names = output_names = ("image",)

    def __init__(self, shape, channels, *, gain=1.0):
        self.channels, self.gain = channels, gain
        height, width, depth = shape
        sizes = (height, width, depth) if channels == "last" else (depth, height, width)
        self.input_shapes = ((None, *sizes),)

    def predict(self, inputs):
        (x,) = inputs
        assert x.shape[1:] == self.input_shapes[0][1:]
        last = x if self.channels == "last" else x.transpose(0, 2, 3, 1)
        ramp = np.arange(last.shape[1])[:, None, None] + 10 * np.arange(last.shape[3])
        y = last * self.gain + ramp  # not the same in any two axes
        return ((y if self.channels == "last" else y.transpose(0, 3, 1, 2)).astype(np.float32),)


class TestLayouts:
    """Models that take images differently are fed the same ones, and compared in one layout."""

    @pytest.mark.parametrize("subject", ["first", "last"])
    @pytest.mark.parametrize("reference", ["first", "last"])
    def test_the_same_model_is_equal(self, rng, subject, reference):
        shape = (6, 5, 3)
        sizes = shape if subject == "last" else (shape[2], *shape[:2])
        x = rng.random((7, *sizes)).astype(np.float32)
        result = evaluate(Images(shape, subject), Data((x,)), reference=Images(shape, reference))
        assert result.fidelity[0].relative_error == 0
        other = Images(shape, reference, gain=2.0)
        result = evaluate(Images(shape, subject), Data((x,)), reference=other)
        assert result.fidelity[0].relative_error > 1e-3

    @pytest.mark.parametrize("channels", ["first", "last"])
    def test_cubes_go_as_the_inputs_do(self, rng, channels):
        """4×4×4 images that a model makes of 6×5×3 ones."""

        class Cubes(Images):
            def predict(self, inputs):
                (y,) = super().predict(inputs)
                last = y if self.channels == "last" else y.transpose(0, 2, 3, 1)
                cube = np.concatenate([last, last[..., :1]], axis=-1)[:, :4, :4]
                return (cube if self.channels == "last" else cube.transpose(0, 3, 1, 2),)

        other = {"first": "last", "last": "first"}[channels]
        sizes = (6, 5, 3) if channels == "last" else (3, 6, 5)
        x = rng.random((7, *sizes)).astype(np.float32)
        result = evaluate(Cubes((6, 5, 3), channels), Data((x,)), reference=Cubes((6, 5, 3), other))
        assert result.fidelity[0].relative_error == 0

    def test_the_layout_is_recorded(self, rng):
        x = rng.random((7, 6, 5, 3)).astype(np.float32)
        result = evaluate(Images((6, 5, 3), "first"), Data((x,)))
        assert result.preprocessing.layout == ("moved first",)
        text = msgspec.json.encode(result)
        assert msgspec.json.decode(text, type=Evaluation) == result

    def test_a_reference_of_another_size_is_not_the_fault_of_the_data(self, rng):
        x = rng.random((7, 6, 5, 3)).astype(np.float32)
        with pytest.raises(InputError) as caught:
            evaluate(
                Images((6, 5, 3), "last"),
                Data((x,), source="d.npz"),
                reference=Images((8, 5, 3), "first"),
                name="small",
            )
        assert "the reference takes (n, 3, 8, 5), small (n, 6, 5, 3)" in caught.value.message
        assert "d.npz" not in str(caught.value)


class TestKerasPredictor:
    def test_batches_alike(self, rng):
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [
                layers.Input((None, None, 1)),
                layers.Conv2D(2, 3, padding="same"),
                layers.Dropout(0.5),
            ]
        )
        predictor = KerasPredictor(model, batch_size=4)
        for size in (6, 9):
            x = rng.random((7, size, size, 1)).astype(np.float32)
            (y,) = predictor.predict([x])
            assert y.dtype == np.float32
            np.testing.assert_allclose(y, np.asarray(model(x, training=False)), atol=1e-6)

    def test_several_inputs_and_packed_outputs(self, rng):
        a, b = keras.Input((2,), name="a"), keras.Input((3,), name="b")
        first, second = layers.Dense(2, name="first"), layers.Dense(5, name="second")
        model = keras.Model({"b": b, "a": a}, {"z": first(a), "c": second(b)})
        predictor = KerasPredictor(model)
        values = {"a": rng.random((5, 2)), "b": rng.random((5, 3))}
        values = {name: value.astype(np.float32) for name, value in values.items()}
        outputs = predictor.predict([values[name] for name in predictor.input_names])
        named = dict(zip(predictor.output_names, outputs, strict=True))
        expected = model(values)
        np.testing.assert_allclose(named["first"], expected["z"], atol=1e-6)
        np.testing.assert_allclose(named["second"], expected["c"], atol=1e-6)

    def test_names_of_outputs_are_unique(self):
        x = keras.Input((2,))
        dense = layers.Dense(2, name="d")
        model = keras.Model(x, [dense(x), dense(dense(x))])
        assert KerasPredictor(model).output_names == ("d", "d_1")

    def test_fixed_batch(self, rng):
        x = keras.Input(batch_shape=(3, 2))
        model = keras.Model(x, layers.Dense(2)(x))
        values = rng.random((7, 2)).astype(np.float32)
        (y,) = KerasPredictor(model, batch_size=64).predict([values])
        kernel, bias = model.get_weights()
        np.testing.assert_allclose(y, values @ kernel + bias, atol=1e-6)

    def test_follows_weights(self, rng):
        model = keras.Sequential([layers.Input((2,)), layers.Dense(2)])
        predictor = KerasPredictor(model)
        x = rng.random((3, 2)).astype(np.float32)
        predictor.predict([x])
        model.set_weights([np.eye(2), np.ones(2)])
        np.testing.assert_allclose(predictor.predict([x])[0], x + 1, atol=1e-6)

    def test_a_layer_that_has_to_know_its_size(self, rng):
        image = keras.Input((None, None, 3))
        small = keras.layers.AveragePooling2D(2)(image)
        model = keras.Model(image, keras.layers.UpSampling2D(interpolation="bilinear")(small))
        predictor = KerasPredictor(model)
        for shape in ((3, 8, 6, 3), (5, 4, 10, 3)):
            x = rng.normal(size=shape).astype(np.float32)
            np.testing.assert_allclose(predictor.predict([x])[0], model(x), atol=1e-6)

    def test_integer_inputs(self):
        model = keras.Sequential([layers.Input((2,), dtype="int32"), layers.Embedding(5, 3)])
        (y,) = KerasPredictor(model).predict([np.array([[0.0, 4.0]])])
        np.testing.assert_array_equal(y[0], model.get_weights()[0][[0, 4]])

    def test_subclassed_models_are_refused(self):
        class Own(keras.Model):
            pass

        with refuses("model-not-built"):
            KerasPredictor(Own())
