"""TensorFlow functions recorded in files of Keras 2: read as what computes the same, or refused."""

import json

import h5py
import numpy as np
import pytest
import tensorflow as tf

from dsconvert.base.errors import InputError
from dsconvert.models.loading import load

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(0, 0.2, (3, 3, 4, 8)).astype("f4")
CONV = ["conv", 0, 0]
"""The convolution's output, as a second operand."""
IMAGES = RNG.normal(0, 1, (2, 8, 8, 4)).astype("f4")


def file_with(path, function, keywords, operands=(["conv", 0, 0],), outputs=1):
    """An .h5 file of tf.keras 2.13: a convolution and one TFOpLambda behind it."""
    shape = {"batch_input_shape": [None, 8, 8, 4], "dtype": "float32", "name": "image"}
    conv = {
        "name": "conv", "filters": 8, "kernel_size": [3, 3], "padding": "same", "use_bias": False,
        "activation": "linear", "dtype": "float32", "trainable": True,
    }  # fmt: skip
    first, *rest = operands
    node = [[*first, keywords], *([*ref, {}] for ref in rest)]
    layers = [
        {"class_name": "InputLayer", "config": shape, "name": "image", "inbound_nodes": []},
        {
            "class_name": "Conv2D", "config": conv, "name": "conv",
            "inbound_nodes": [[["image", 0, 0, {}]]],
        },
        {
            "class_name": "TFOpLambda", "name": "op",
            "config": {"name": "op", "trainable": True, "dtype": "float32", "function": function},
            "inbound_nodes": [node[0] if len(node) == 1 else node],
        },
    ]  # fmt: skip
    ends = [["op", 0, i] for i in range(outputs)]
    config = {
        "class_name": "Functional",
        "config": {
            "name": "net", "layers": layers, "input_layers": [["image", 0, 0]],
            "output_layers": ends,
        },
    }  # fmt: skip
    with h5py.File(path, "w") as file:
        file.attrs["keras_version"], file.attrs["backend"] = "2.13.1", "tensorflow"
        file.attrs["model_config"] = json.dumps(config)
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = [b"image", b"conv", b"op"]
        for name in ("image", "conv", "op"):
            weights = [b"conv/kernel:0"] if name == "conv" else []
            group.create_group(name).attrs["weight_names"] = weights
        group["conv"]["conv/kernel:0"] = KERNEL
    return path


def convolved():
    return tf.nn.conv2d(IMAGES, KERNEL, 1, "SAME")


CASES = {
    "math.abs": {}, "math.square": {}, "math.exp": {}, "math.sin": {}, "math.floor": {},
    "math.sign": {}, "math.erf": {}, "math.softplus": {}, "nn.gelu": {}, "nn.selu": {},
    "nn.log_softmax": {},
    "clip_by_value": {"clip_value_min": -1.0, "clip_value_max": 1.0},
    "image.resize": {"size": [16, 12]},
    "math.reduce_mean": {"axis": -1, "keepdims": True},
    "math.reduce_max": {"axis": [1]}, "math.reduce_min": {"axis": 3},
    "math.reduce_sum": {"axis": [1, 2]}, "math.reduce_std": {"axis": -1},
    "math.reduce_logsumexp": {"axis": -1},
    "math.argmax": {"axis": 3}, "math.cumsum": {"axis": 1},
    "expand_dims": {"axis": 1}, "tile": {"multiples": [1, 2, 1, 1]}, "reverse": {"axis": [2]},
    "nn.depth_to_space": {"block_size": 2}, "nn.space_to_depth": {"block_size": 2},
    "compat.v1.transpose": {"perm": [0, 3, 1, 2]},
    "math.pow": {"y": 2.0}, "math.maximum": {"y": 0.0}, "math.minimum": {"y": 0.25},
    "math.greater": {"y": 0.1}, "math.floormod": {"y": 0.3},
    "pad": {"paddings": [[0, 0], [1, 2], [0, 1], [0, 0]], "mode": "REFLECT"},
    "compat.v1.pad": {"paddings": [[0, 0], [1, 0], [0, 1], [0, 0]], "constant_values": 0},
    "compat.v1.gather": {"indices": [2, 0, 7], "axis": -1, "batch_dims": 0},
    "compat.v1.norm": {"ord": "euclidean", "axis": -1, "keepdims": True},
    "compat.v1.nn.conv2d": {
        "filter": KERNEL[:, :, :1].repeat(8, 2).tolist(), "strides": [1, 2, 2, 1],
        "padding": "SAME",
    },
    "compat.v1.nn.depthwise_conv2d": {
        "filter": KERNEL[:, :, 0, :, None].tolist(), "strides": [1, 2, 2, 1], "padding": "VALID",
    },
    "nn.avg_pool2d": {"ksize": [1, 3, 3, 1], "strides": [1, 2, 2, 1], "padding": "SAME"},
    "nn.max_pool2d": {"ksize": 2, "strides": 2, "padding": "VALID"},
    "math.l2_normalize": {"axis": [1, 2]}, "math.reduce_euclidean_norm": {"axis": [3]},
    "math.multiply": {"y": KERNEL[:1, 0, 0].tolist()}, "identity": {}, "zeros_like": {},
    "ones_like": {}, "sort": {"axis": 2}, "math.cumprod": {"axis": 1},
    "math.atan2": {"x": 0.5}, "cast": {"dtype": "int32"},
    "slice": {"begin": [0, 1, 2, 0], "size": [-1, 4, -1, 3]},
    "strided_slice": {"begin": [0, 7, 0, 0], "end": [2, 0, 8, 8], "strides": [1, -2, 3, 1]},
    "image.crop_to_bounding_box": {
        "offset_height": 1, "offset_width": 2, "target_height": 4, "target_width": 5,
    },
    "image.pad_to_bounding_box": {
        "offset_height": 1, "offset_width": 2, "target_height": 12, "target_width": 11,
    },
    "image.flip_left_right": {}, "image.flip_up_down": {}, "image.transpose": {},
    "image.rot90": {"k": 1}, "image.adjust_brightness": {"delta": 0.25},
    "tensordot": {"b": KERNEL[0, 0, :2].repeat(4, 0).tolist(), "axes": 1},
    "math.asinh": {}, "math.is_finite": {}, "math.is_nan": {}, "math.rint": {}, "argsort": {},
    "math.erfc": {}, "math.count_nonzero": {"axis": -1},
    "linalg.matrix_transpose": {}, "linalg.band_part": {"num_lower": -1, "num_upper": 0},
    "pad, constant": {"paddings": [[0, 0], [1, 1], [0, 2], [0, 0]], "constant_values": -1e9},
    "image.per_image_standardization": {},
    "image.extract_patches": {
        "sizes": [1, 3, 3, 1], "strides": [1, 2, 2, 1], "rates": [1, 1, 1, 1], "padding": "SAME",
    },
    "image.adjust_contrast": {"contrast_factor": 1.5},
    "linalg.matmul": {"b": CONV, "transpose_b": True},
    "compat.v1.matmul": {"b": KERNEL[0, 0].tolist(), "transpose_b": True},
    "math.squared_difference": {"y": 0.5}, "compat.v1.nn.crelu": {"axis": -1},
    "nn.local_response_normalization": {
        "depth_radius": 2, "bias": 1.0, "alpha": 0.1, "beta": 0.75,
    },
    "cumsum, from behind": {"axis": 1, "reverse": True, "exclusive": True},
    "cumsum": {"axis": -1, "exclusive": True},
    "math.multiply_no_nan": {"y": CONV}, "math.reciprocal_no_nan": {},
    "math.xdivy": {"y": CONV}, "math.xlog1py": {"y": CONV},
    "clip_by_norm": {"clip_norm": 1.0, "axes": [1, 2]},
    "compat.v1.nn.pool": {
        "window_shape": [2, 2], "pooling_type": "AVG", "padding": "SAME", "strides": [2, 2],
    },
    "compat.v1.nn.separable_conv2d": {
        "depthwise_filter": KERNEL[:, :, 0, :, None].tolist(), "strides": [1, 1, 1, 1],
        "pointwise_filter": KERNEL[:1, :1, 0].repeat(8, 1).reshape(1, 1, 8, 8).tolist(),
        "padding": "SAME",
    },
    "__operators__.add": {"y": RNG.normal(0, 1, (1, 8, 1, 1)).tolist()},
}  # fmt: skip
"""The keywords of each function; behind a comma what tells two cases apart."""


def function(name):
    if name == "__operators__.add":
        return lambda x, y: tf.add(x, y)
    found = tf
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("name", CASES)
def test_the_outputs_are_those_of_the_function(name, tmp_path):
    keywords, name = CASES[name], name.partition(",")[0]
    model = load(file_with(tmp_path / "net.h5", name, keywords)).model

    called = {key: convolved() if value == CONV else value for key, value in keywords.items()}
    expected = np.asarray(function(name)(convolved(), **called))

    found = np.asarray(model(IMAGES))
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_a_nearest_resize_and_one_that_keeps_the_aspect_ratio(tmp_path):
    keywords = {"size": [16, 16], "method": "nearest"}
    model = load(file_with(tmp_path / "net.h5", "image.resize", keywords)).model
    expected = np.asarray(tf.image.resize(convolved(), **keywords))
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), expected, atol=1e-5)
    kept = {"size": [16, 12], "preserve_aspect_ratio": True}
    with pytest.raises(InputError, match=r"tf\.image\.resize"):
        load(file_with(tmp_path / "kept.h5", "image.resize", kept))


def test_parts_of_a_split_are_told_apart(tmp_path):
    keywords = {"num_or_size_splits": [2, 5, 1], "axis": -1}
    model = load(file_with(tmp_path / "net.h5", "split", keywords, outputs=3)).model

    for found, expected in zip(
        model.predict(IMAGES, verbose=0), tf.split(convolved(), **keywords), strict=True
    ):
        np.testing.assert_allclose(found, np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize("names", ["xy", "yx"])
def test_a_choice_between_a_tensor_and_a_number(tmp_path, names):
    """Operands have their places by name, in whatever order the call named them."""
    both = {"x": ["conv", 0, 0], "y": 0.5}
    keywords = {name: both[name] for name in names}
    model = load(file_with(tmp_path / "net.h5", "where", keywords)).model

    expected = np.where(np.asarray(convolved()) != 0, convolved(), 0.5)
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), expected, atol=1e-5)


def test_a_stack_of_two_tensors(tmp_path):
    operands = (["conv", 0, 0], ["conv", 0, 0])
    model = load(file_with(tmp_path / "net.h5", "stack", {"axis": 1}, operands)).model

    expected = np.asarray(tf.stack([convolved(), convolved()], axis=1))
    np.testing.assert_allclose(model.predict(IMAGES, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "keywords"),
    [
        ("signal.fft", {}),
        ("clip_by_norm", {"clip_norm": 1.0}),
        ("image.resize", {"size": [4, 4], "method": "area"}),
        ("nn.depth_to_space", {"block_size": 2, "data_format": "NCHW"}),
    ],
)
def test_what_has_no_equal_is_refused_by_the_name_of_the_function(name, keywords, tmp_path):
    with pytest.raises(InputError) as refused:
        load(file_with(tmp_path / "net.h5", name, keywords))

    assert f"tf.{name}" in refused.value.message


def test_what_has_no_equal_is_named_and_not_the_shape_it_takes(tmp_path):
    """Random numbers as a variational autoencoder draws them, of the shape of a tensor."""
    path = file_with(tmp_path / "net.h5", "compat.v1.shape", {"out_type": "int32"})
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        drawn = {"name": "drawn", "trainable": True, "dtype": "float32"}
        config["config"]["layers"].append(
            {
                "class_name": "TFOpLambda", "name": "drawn",
                "config": {**drawn, "function": "random.normal"},
                "inbound_nodes": [["op", 0, 0, {}]],
            }
        )  # fmt: skip
        config["config"]["output_layers"] = [["drawn", 0, 0]]
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(InputError) as caught:
        load(path)
    assert caught.value.code == "unknown-function"
    assert "tf.random.normal" in caught.value.message
    assert "shape" not in caught.value.message


def test_a_call_without_its_operands_says_so(tmp_path):
    """tf.keras 2 wrote the equation of tf.einsum alone, and could not read that itself."""
    operands = (["_CONSTANT_VALUE", -1, "bij,jk->bik"],)
    path = file_with(tmp_path / "net.h5", "einsum", {}, operands)
    with pytest.raises(InputError, match=r"tf\.einsum .*wrote no tensors") as caught:
        load(path)
    assert caught.value.code == "unknown-function"


def test_a_mask_is_named(tmp_path):
    path = file_with(tmp_path / "net.h5", "compat.v1.boolean_mask", {"mask": [True] * 8, "axis": 3})
    with h5py.File(path, "r+") as file:
        config = file.attrs["model_config"].replace("TFOpLambda", "SlicingOpLambda")
        file.attrs["model_config"] = config
    with pytest.raises(InputError, match="boolean_mask") as caught:
        load(path)
    assert caught.value.code == "unknown-function"
