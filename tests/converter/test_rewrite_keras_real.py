"""Models that other people trained, rewritten."""

import numpy as np
import pytest
from keras_checks import assert_same_outputs, outputs

from dsconvert.converter.core.types import ORDERS, Choice, LayerPlan, Plan
from dsconvert.converter.inspect import inspect
from dsconvert.converter.rewrite import rewrite
from dsconvert.models.loading import load


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "models" / "keras"


@pytest.mark.parametrize(
    ("name", "convolutions"),
    [
        ("mlperf_tiny_resnet8_cifar10.h5", 7),
        ("vgg6_cifar10.h5", 6),
        ("mlperf_tiny_vww_mobilenet_96.h5", 1),
        ("hls4ml_keras_conv2d_model.h5", 1),
        ("fer2013_mini_xception_102.hdf5", 3),
        ("donkey_tests_model.hdf5", 5),
        ("nncf_lenet.h5", 2),
        ("cifar10_cnn_streamlit.keras", 2),
        ("dncnn_sigma25.keras", 17),
        ("srcnn_vietanh.keras", 2),
        ("behavioral_cloning_nvidia.h5", 5),
    ],
)
def test_full_rank_is_the_original(folder, name, convolutions):
    model = load(folder / name).model
    layers = [
        LayerPlan(
            name=found.name,
            spec=found.spec,
            choice=Choice(pairs=99, order=min(ORDERS, key=found.spec.full_rank)),
        )
        for found in inspect(model).convolutions
        if found.options
    ]
    result = rewrite(model, plan=Plan(layers=tuple(layers)))
    (shape,) = [[size or 32 for size in x.shape[1:]] for x in model.inputs]
    x = np.random.default_rng(0).uniform(0, 1, (2, *shape)).astype(np.float32)

    assert len(result.report.rewritten) == convolutions
    # Up to twenty layers deep, each of them a dozen roundings of 6e-8.
    assert_same_outputs(model, result.model, x, tolerance=1e-4)
    assert result.report.params_after == result.model.count_params()


@pytest.mark.slow
def test_residual_network_keeps_most_of_its_accuracy(folder, shared):
    """ResNet8 of MLPerf Tiny: 87 %, and over 75 % with three pairs fitted to 200 images."""
    with np.load(shared / "data" / "cifar10.npz") as data:
        calibration = data["x_train"][:200]
        x, labels = data["x_test"][:1000], data["y_test"][:1000]
    model = load(folder / "mlperf_tiny_resnet8_cifar10.h5").model

    def accuracy(model):
        return np.mean(outputs(model, x.astype(np.float32))[0].argmax(axis=1) == labels)

    from_data = rewrite(model, pairs=3, calibration=calibration)

    assert from_data.report.macs_after < 0.5 * from_data.report.macs_before
    assert accuracy(from_data.model) > max(0.75, accuracy(rewrite(model, pairs=3).model) + 0.4)
