"""Data are held out, and checked against the model, before anything is computed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from onnx_nets import floats, graph, node
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.models.data.checks import check_against, check_classes
from dsconvert.models.data.datasets import Data, holdout
from dsconvert.models.evaluation.plausibility import suspicions


class TestHoldout:
    @pytest.mark.parametrize(("size", "number"), [(3, 3), (0.25, 5), (0.001, 1)])
    def test_disjoint_and_complete(self, size, number):
        x = np.arange(20.0)
        rest, held = holdout(Data((x,), labels=np.arange(20)), size, seed=1)
        assert len(held) == number
        np.testing.assert_array_equal(np.sort(np.r_[rest.inputs[0], held.inputs[0]]), x)
        np.testing.assert_array_equal(held.labels, held.inputs[0])

    @pytest.mark.parametrize("size", [0, 20, 1.5e9, -1])
    def test_refuses(self, size):
        with refuses("too-few-samples"):
            holdout(Data((np.arange(20.0),)), size)


class TestChecks:
    def test_fits(self):
        check_against([(None, None, 4, 3)], Data((np.zeros((2, 9, 4, 3)),)))

    def test_wrong_shape(self):
        data = Data((np.zeros((2, 9, 4, 3)),), names=("image",), source="d.npz")
        with pytest.raises(InputError, match=r"image: got \(n, 9, 4, 3\), expected \(n, 8, any, 3"):
            check_against([(1, 8, None, 3)], data)

    def test_moving_the_channel_axis_is_hinted(self):
        data = Data((np.zeros((2, 9, 4, 3)),))
        with pytest.raises(InputError) as caught:
            check_against([(None, 3, 9, 4)], data)
        assert "laid_out" in caught.value.hint
        check_against([(None, 3, 9, 4)], data.laid_out([(None, 3, 9, 4)]))

    def test_number_of_inputs(self):
        with pytest.raises(InputError, match="gives 1 inputs, the model takes 2"):
            check_against([(None, 3), (None, 4)], Data((np.zeros((2, 3)),)))

    def test_classes(self):
        check_classes(np.array([0, 4]), "data", 5)
        with pytest.raises(InputError, match=r"from 0 to 5.*classes 0 to 4"):
            check_classes(np.array([0, 5]), "data", 5)
        with pytest.raises(InputError, match=r"no class labels: got 0\.5\."):
            check_classes(np.float32([1, 0.5]), "data", 5)
        with pytest.raises(InputError, match=r"no class labels: got float32 of shape \(n, 2\)"):
            check_classes(np.float32([[1, 0.5]]), "data", 5)

    @pytest.mark.parametrize(
        ("values", "text"),
        [
            ([[1.0, np.nan], [0.0, 1.0]], "not finite"),
            ([[3.0, 3.0], [3.0, 3.0]], "constant: every value is 3"),
            ([[1.0, 2.0], [1.0, 2.0]], "repeats one sample 2 times"),
        ],
    )
    def test_bad_values(self, values, text):
        (found,) = suspicions(Data((np.array(values),), source="d.npz"))
        assert text in found
        assert "d.npz" in found

    def test_good_values(self, rng):
        assert suspicions(Data((rng.random((4, 3)),))) == []


class TestSuspicionsOfModels:
    @pytest.fixture
    def pixels(self, rng):
        return rng.integers(0, 256, (40, 8, 8, 3)).astype(np.float32)

    def test_scaled_twice(self, pixels):
        keras = pytest.importorskip("keras")
        layers = keras.layers
        model = keras.Sequential(
            [layers.Input((8, 8, 3)), layers.Rescaling(1 / 255), layers.Conv2D(2, 3)]
        )
        assert suspicions(Data((pixels,)), model) == []
        (found,) = suspicions(Data((pixels / 255,)), model)
        assert "scaled twice" in found
        small = keras.Sequential([layers.Input((8, 8, 3)), layers.Rescaling(2.0, offset=-1)])
        assert suspicions(Data((pixels / 255,)), small) == []

    def test_variance_at_the_first_batch_norm(self, pixels):
        keras = pytest.importorskip("keras")
        keras.utils.set_random_seed(0)
        layers = keras.layers
        norm = layers.BatchNormalization()
        model = keras.Sequential([layers.Input((8, 8, 3)), layers.Conv2D(4, 3), norm])
        assert suspicions(Data((pixels / 200,)), model) == []  # untrained: nothing to compare
        values = keras.Sequential(model.layers[:1]).predict(pixels / 200, verbose=0)
        norm.moving_mean.assign(values.mean((0, 1, 2)))
        norm.moving_variance.assign(values.var((0, 1, 2)))
        assert suspicions(Data((pixels / 200,)), model) == []
        (found,) = suspicions(Data((pixels,)), model)
        assert "2e+02 times as large" in found
        (found,) = suspicions(Data((pixels / 200**2,)), model)
        assert "0.005 times as large" in found

    @pytest.mark.parametrize("batch", ["n", 1, 8])
    def test_variance_at_the_first_batch_norm_of_an_onnx_graph(self, pixels, batch):
        images = pixels.transpose(0, 3, 1, 2)
        kernel = floats(4, 3, 3, 3)
        windows = sliding_window_view(images / 200, (3, 3), (2, 3))
        responses = np.einsum("nchwij,ocij->nohw", windows, kernel)

        def normalising(variance):
            return graph(
                [node("Conv", "x w", "c"), node("BatchNormalization", "c g b m v", "y")],
                [batch, 3, 8, 8],
                "y",
                w=kernel,
                g=floats(4),
                b=floats(4),
                m=floats(4),
                v=variance.astype(np.float32),
            )

        untrained, trained = normalising(np.ones(4)), normalising(responses.var((0, 2, 3)))
        assert suspicions(Data((images,)), untrained) == []
        assert suspicions(Data((images / 200,)), trained) == []
        (found,) = suspicions(Data((images,)), trained)
        assert "BatchNormalization/y" in found
        assert "2e+02 times as large" in found
