"""ONNX models that other people trained, rewritten without TensorFlow."""

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from onnx_native import outputs, relative, session

from dsconvert.cli import main
from dsconvert.converter.inspect import inspect
from dsconvert.converter.rewrite import rewrite
from dsconvert.formats.onnx.open import open_onnx

CONVERTIBLE = {
    "resnet8_tf2onnx_op13.onnx": 7,
    "resnet8_constnodes.onnx": 7,
    "resnet8_external/model.onnx": 7,
    "resnet8_int8_qdq.onnx": 0,
    "ultraface_rfb_320.onnx": 10,
    "yunet_n_dynamic.onnx": 7,
    "mnist_cntk_op8.onnx": 2,
    "squeezenet_fp16.onnx": 9,
    "style_candy_batch.onnx": 14,
    "winml_pytorch_tutorial_cnn.onnx": 4,
    "qonnx_espcn_subpixel_float.onnx": 4,
    "portrait_sinet.onnx": 2,
    "olive_notebook_model.onnx": 8,
    "vnn_oval21_cifar_base.onnx": 2,
    "vnn_collins_rul_full20.onnx": 5,
    "silero_vad_16k_op15.onnx": 0,
}
REFUSED = ["qonnx_espcn_subpixel_quant.onnx", "superres_espcn_prepost_op18.onnx"]
RESNET8 = [name for name in CONVERTIBLE if name.startswith("resnet8") and "int8" not in name]


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "models" / "onnx"


def opened(folder, name):
    file = open_onnx(folder / name)
    return file.model, file.path.parent


def convertible(model, place):
    return [row.name for row in inspect(model, folder=place).convolutions if row.options]


LARGEST = {"yunet": 255, "resnet8": 255, "mnist": 255, "style": 255}
"""What pixels reach in these models; in all others 1."""
FREE = {"batch": 1, "height": 96, "width": 128}
"""Sizes that a model leaves open."""


def examples(path, name):
    """A random image, and whatever else the model takes."""
    rng, feeds = np.random.default_rng(0), []
    largest = next((most for start, most in LARGEST.items() if name.startswith(start)), 1)
    for value in session(path).get_inputs():
        shape = [size if isinstance(size, int) else FREE.get(size, 1) for size in value.shape]
        if value.type == "tensor(int32)":
            feeds.append(np.full(shape, 8, np.int32))  # steps of a network that is chaotic at 32
            continue
        dtype = np.float16 if value.type == "tensor(float16)" else np.float32
        feeds.append(rng.uniform(0, largest, shape).astype(dtype))
    return feeds


@pytest.mark.parametrize("name", CONVERTIBLE)
def test_every_convolution_is_convertible_or_has_a_reason(folder, name):
    model, place = opened(folder, name)
    rows = inspect(model, folder=place).convolutions

    assert len([row for row in rows if row.options]) == CONVERTIBLE[name]
    assert all(row.options or row.reason.text for row in rows)
    assert len({row.name for row in rows}) == len(rows)
    in_graph = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(rows) >= len(in_graph)


@pytest.mark.parametrize("name", [name for name, count in CONVERTIBLE.items() if count])
def test_full_rank_is_the_original(folder, name):
    model, place = opened(folder, name)
    names = convertible(model, place)
    result = rewrite(model, folder=place, pairs=100, include=names)
    inputs = examples(folder / name, name)
    # Up to fourteen layers deep, each of hundreds of roundings of 6e-8, or 5e-4 in half precision.
    tolerance = 1e-2 if "fp16" in name else 1e-3

    assert set(result.report.rewritten) == set(names)
    for expected, got in zip(
        outputs(folder / name, *inputs), outputs(whole(result.model, place), *inputs), strict=True
    ):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        assert relative(expected, got) < tolerance
    onnx.checker.check_model(whole(result.model, place), full_check=True)


def whole(model, place):
    """The model with its external data in it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    onnx.load_external_data_for_model(copy, str(place))
    return copy


@pytest.mark.parametrize("name", [name for name, count in CONVERTIBLE.items() if not count])
def test_nothing_to_rewrite(folder, name):
    model, place = opened(folder, name)
    assert rewrite(model, folder=place).model.SerializeToString() == model.SerializeToString()


@pytest.mark.parametrize("command", ["inspect", "rewrite"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_onnx_runtime_refuses(folder, name, command, tmp_path):
    words = [command, str(folder / name)]
    words += ["-o", str(tmp_path / "new.onnx")] if command == "rewrite" else []
    result = CliRunner().invoke(main, words)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "does not run as it is" in result.stderr
    assert len(result.stderr.splitlines()) == 2
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def cifar(shared):
    with np.load(shared / "data" / "cifar10.npz") as data:
        return (
            data["x_train"][:200],
            data["x_test"][:1000].astype(np.float32),
            data["y_test"][:1000],
        )


def accuracy(model, images, labels):
    """In percent."""
    return 100 * float(np.mean(outputs(model, images)[0].argmax(axis=1) == labels.ravel()))


@pytest.mark.parametrize("method", ["svd", "data"])
def test_however_it_is_stored(folder, cifar, method):
    """Initialisers, Constant nodes and external data: the same kernels, the same accuracy."""
    calibration, images, labels = cifar
    found = []
    for name in RESNET8:
        model, place = opened(folder, name)
        data = calibration[:12] if method == "data" else None
        names = convertible(model, place)[-2:]
        result = rewrite(model, folder=place, calibration=data, include=names)
        found.append((whole(result.model, place), result.report))
    first, report = found[0]
    kernels = pair_weights(first)

    assert len(report.rewritten) == 2
    assert len(kernels) == 2 * 2 + 2
    for model, other in found[1:]:
        assert other.trials == report.trials
        held = pair_weights(model)
        assert held.keys() == kernels.keys()
        for name, kernel in kernels.items():
            np.testing.assert_array_equal(held[name], kernel)
    assert len({accuracy(model, images, labels) for model, _ in found}) == 1


@pytest.mark.slow
def test_as_accurate_as_its_keras_original(folder, shared, cifar):
    """Rewritten in the same way; TensorFlow only sums in another order."""
    from keras_checks import outputs as keras_outputs

    from dsconvert.models.loading import load

    calibration, images, labels = cifar
    original = load(shared / "models" / "keras" / "mlperf_tiny_resnet8_cifar10.h5").model
    model, _ = opened(folder, RESNET8[0])
    how = {"calibration": calibration[:100], "pairs": 2}
    rewritten, in_keras = rewrite(model, **how), rewrite(original, **how)
    predicted = keras_outputs(in_keras.model, images)[0].argmax(axis=1)
    score = accuracy(rewritten.model, images, labels)

    assert [t.strategy for t in rewritten.report.trials] == [
        t.strategy for t in in_keras.report.trials
    ]
    assert abs(score - 100 * np.mean(predicted == labels.ravel())) <= 0.3
    assert score > accuracy(rewrite(model, pairs=2).model, images, labels) + 20


def pair_weights(model):
    """The new weights by name."""
    kinds = ("_weight", "_bias")
    return {
        t.name: numpy_helper.to_array(t)
        for t in model.graph.initializer
        if t.name.endswith(kinds) and ("_dw" in t.name or "_pw" in t.name)
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", ["winml_pytorch_tutorial_cnn.onnx", "vnn_oval21_cifar_base.onnx"])
def test_fitted_to_data_it_stays_nearer(folder, cifar, name):
    """On images that were not fitted to."""
    model, place = opened(folder, name)
    scaled = [(x[:200] / np.float32(127.5) - 1).transpose(0, 3, 1, 2) for x in cifar[:2]]
    fitted, unseen = (np.ascontiguousarray(x, np.float32) for x in scaled)

    def output_error(**how):
        changed = rewrite(model, folder=place, pairs=1, **how).model
        errors = [
            relative(outputs(folder / name, x)[0], outputs(changed, x)[0])
            for x in np.split(unseen[:20], 20)
        ]
        return np.mean(errors)

    assert output_error(calibration=fitted) < 0.7 * output_error()
