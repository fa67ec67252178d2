"""Loading model files: what they are, what is refused and why, and real files of other people."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.base.files import sha256
from dsconvert.models.loading import Loaded, load

# Keras' own conversion of variables to numpy.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 3))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(image)
    x = keras.layers.BatchNormalization()(x)
    return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))


@pytest.fixture(params=["h5", "keras"])
def saved(request, model, tmp_path) -> Path:
    path = tmp_path / f"model.{request.param}"
    model.save(path)
    return path


def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype(np.float32)


class TestGoodFiles:
    def test_both_formats_load_exactly_and_without_repairs(self, model, saved):
        loaded = load(saved)
        assert loaded == Loaded(loaded.model, saved, saved.suffix[1:], sha256(saved), ())
        np.testing.assert_array_equal(loaded.model(images()), model(images()))
        for ours, theirs in zip(loaded.model.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_a_wrong_suffix_is_reported(self, model, saved):
        other = saved.with_suffix({".h5": ".keras", ".keras": ".h5"}[saved.suffix])
        saved.rename(other)
        loaded = load(other)
        assert loaded.format == saved.suffix[1:]
        (sentence,) = loaded.repairs
        assert sentence.startswith(f"read {other.name} as what it is: a")
        np.testing.assert_array_equal(loaded.model(images()), model(images()))

    def test_an_optimizer_that_is_not_there_does_not_matter(self, model, saved):
        copy = keras.models.clone_model(model)
        copy.compile(keras.optimizers.Adam(), "mse")
        copy.fit(images(), np.zeros((2, 4)), verbose=0)
        copy.save(saved)
        if saved.suffix == ".h5":
            with h5py.File(saved, "a") as file:
                file.attrs["training_config"] = json.dumps({"loss": "not there"})
        loaded = load(saved)
        assert not loaded.model.compiled
        np.testing.assert_array_equal(loaded.model(images()), copy(images()))

    def test_a_loss_that_is_not_there_does_not_matter_even_in_a_nested_model(self, tmp_path):
        def lost(y_true, y_pred):
            return keras.ops.mean(y_pred - y_true)

        inner = keras.Sequential([keras.Input((6, 6, 3)), keras.layers.Conv2D(2, 3)])
        inner.compile(loss=lost)
        path = tmp_path / "outer.keras"
        outer = keras.Sequential([keras.Input((6, 6, 3)), inner])
        outer.compile(loss=lost)
        outer.save(path)
        np.testing.assert_array_equal(load(path).model(images()), outer(images()))

    def test_what_keras_warns_of_while_it_loads_is_kept_from_the_caller(self, saved):
        image = keras.Input((6, 6, 3), name="image")
        output = keras.layers.Conv2D(2, 3)(image)
        with pytest.warns(UserWarning, match="must match the names"):
            model = keras.Model({"x": image}, output)
        model.save(saved)
        assert load(saved).model.inputs[0].name == "image"

    def test_the_given_file_is_not_changed(self, saved):
        before = saved.read_bytes()
        load(saved)
        assert saved.read_bytes() == before
        assert [path.name for path in saved.parent.iterdir()] == [saved.name]


class TestOtherFiles:
    """Each with its own cause."""

    @pytest.mark.parametrize(
        ("name", "content", "match"),
        [
            ("a.h5", b"", r"empty \(0 bytes\)"),
            ("a.h5", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git-lfs"),
            ("a.keras", b"<!DOCTYPE html>\n<html>", "text file that starts with '<!DOCTYPE html>'"),
            ("a.keras", b'{"name": "Sequential"}', "text file"),
            ("a.json", b'{"class_name": "Sequential"}', "weights are in another file"),
            ("a.weights.json", b'{"weight_map": {}}', "no architecture"),
            ("a.tflite", b"\x1c\0\0\0TFL3\0\0", "TFLite"),
            ("a.onnx", b"\x08\x08\x12\x07pytorch", "not a Keras file"),
            ("a.pb", b"\x0a\x0e\x12\x0c\xff", "TensorFlow graph"),
            ("a.h5", b"\x80\x04\x95\x10\xff\x00", "neither an HDF5 file nor a zip archive"),
            ("a.h5", b"\x89HDF\r\n\x1a\n\0\0\0\0\0\x08\x08\0", "damaged"),
            ("a.keras", b"PK\x03\x04\x14\0\0\0", "damaged"),
        ],
    )
    def test_content_that_is_no_model(self, tmp_path, name, content, match):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(InputError, match=match) as refusal:
            load(path)
        assert str(path) in refusal.value.message
        assert refusal.value.hint
        assert refusal.value.exit_code == 2

    def test_a_path_that_is_no_file(self, tmp_path):
        with refuses("model-not-found"):
            load(tmp_path / "nothing.h5")
        with refuses("is-a-folder"):
            load(tmp_path)
        (tmp_path / "saved_model.pb").touch()
        with refuses("saved-model-without-layers") as refusal:
            load(tmp_path)
        assert "tf2onnx" in refusal.value.hint

    def test_files_cut_short_or_damaged(self, saved):
        whole = saved.read_bytes()
        saved.write_bytes(whole[: len(whole) * 2 // 3])
        with refuses("damaged-file"):
            load(saved)
        if saved.suffix == ".keras":
            damaged = bytearray(whole)
            damaged[len(whole) // 2] ^= 0xFF
            saved.write_bytes(damaged)
            with refuses("damaged-file"):
                load(saved)

    def test_weights_only(self, model, tmp_path):
        path = tmp_path / "my.weights.h5"
        model.save_weights(path)
        with refuses("weights-only") as refusal:
            load(path)
        assert "model.load_weights('my.weights.h5')" in refusal.value.hint
        with h5py.File(path, "w") as file:
            file.attrs["layer_names"] = [b"conv"]
        with refuses("weights-only"):
            load(path)
        with h5py.File(path, "w") as file:
            file["measurements"] = [1.0]
        with refuses("not-a-model"):
            load(path)

    def test_archives_without_a_model_or_its_weights(self, tmp_path):
        path = tmp_path / "a.keras"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("word/document.xml", "<xml/>")
        with pytest.raises(InputError, match=r"config.json is not in it, but word/document.xml"):
            load(path)
        for config, match in (
            ("{}", "no class_name and config"),
            ("{", "model configuration cannot be read"),
            ('{"class_name": "Sequential", "config": {}}', "no weights"),
        ):
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("config.json", config)
                if "weights" not in match:
                    archive.writestr("model.weights.h5", "")
            with pytest.raises(InputError, match=match):
                load(path)

    def test_a_configuration_of_the_wrong_shape(self, saved):
        if saved.suffix == ".keras":
            pytest.skip("one format is enough")
        with h5py.File(saved, "a") as file:
            config = json.loads(file.attrs["model_config"])
            policy = {"class_name": "Policy", "config": {}}
            config["config"]["layers"][1]["config"]["dtype"] = policy
            file.attrs["model_config"] = json.dumps(config)
        with pytest.raises(InputError, match=r"not one that any Keras writes \(KeyError"):
            load(saved)

    def test_a_config_that_keras_refuses(self, saved):
        if saved.suffix == ".keras":
            pytest.skip("one format is enough")
        with h5py.File(saved, "a") as file:
            text = file.attrs["model_config"].replace("channels_last", "channels_middle")
            file.attrs["model_config"] = text
        with pytest.raises(
            InputError, match=r"Keras 3\S+ cannot rebuild this model.*channels_middle"
        ) as refusal:
            load(saved)
        assert "\n" not in refusal.value.message


class Doubled(keras.layers.Layer):
    def call(self, x):
        return 2 * x


class Small(keras.regularizers.Regularizer):
    def __call__(self, x):
        return 0.0

    def get_config(self):
        return {}


def bent(x):
    return keras.ops.maximum(x, 0.5 * x)


class TestCustomObjects:
    @pytest.fixture
    def custom(self, saved) -> Path:
        keras.Sequential(
            [
                keras.Input((6, 6, 3)),
                keras.layers.Conv2D(2, 3, activation=bent, kernel_regularizer=Small()),
                Doubled(),
            ]
        ).save(saved)
        return saved

    def test_all_missing_names_are_listed_at_once(self, custom):
        with refuses("needs-custom-objects") as refusal:
            load(custom)
        assert "bent" in refusal.value.message
        assert "Small" in refusal.value.message
        assert "--custom-objects" in refusal.value.words.hint

    def test_given_objects_are_used(self, custom):
        objects = {"Doubled": Doubled, "bent": bent, "Small": Small}
        loaded = load(custom, custom_objects=objects)
        assert loaded.repairs == ()
        expected = keras.saving.load_model(custom, custom_objects=objects, compile=False)
        np.testing.assert_array_equal(loaded.model(images()), expected(images()))

    def test_a_regularizer_alone_is_dropped(self, custom):
        loaded = load(custom, custom_objects={"Doubled": Doubled, "bent": bent})
        assert loaded.repairs == ("dropped what only training needs (regularizer: Small)",)
        assert loaded.model.layers[0].kernel_regularizer is None

    def test_a_functional_model_with_a_training_step_of_its_own(self, saved):
        class Trained(keras.Model):
            def train_step(self, data):
                return super().train_step(data)

        vector = keras.Input((4,))
        model = Trained(vector, keras.layers.Dense(2)(vector))
        model.save(saved)
        loaded = load(saved)
        assert "Trained" in loaded.repairs[0]
        x = np.ones((1, 4), np.float32)
        assert np.array_equal(loaded.model(x), model(x))
        again = load(saved, custom_objects={"Trained": Trained})
        assert type(again.model) is Trained

    def test_a_subclassed_model_is_refused(self, saved):
        class Mine(keras.Model):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.dense = keras.layers.Dense(2)

            def call(self, x):
                return self.dense(x)

        if saved.suffix == ".h5":
            pytest.skip("Keras does not write subclassed models to .h5")
        mine = Mine()
        mine(np.zeros((1, 3), np.float32))
        mine.save(saved)
        with refuses("needs-custom-objects"):
            load(saved)
        with refuses("model-not-built"):
            load(saved, custom_objects={"Mine": Mine})


def test_refusals_that_need_no_keras_do_not_import_it(tmp_path):
    """An unreadable file is refused at once, without the seconds that TensorFlow takes."""
    code = (
        "import sys, pathlib\n"
        "from dsconvert.models.loading import load\n"
        "from dsconvert.base.errors import InputError\n"
        "try:\n    load(pathlib.Path(sys.argv[1]))\n"
        "except InputError:\n    print('tensorflow' in sys.modules, 'keras' in sys.modules)\n"
    )
    (tmp_path / "a.h5").write_text("not a model")
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.h5"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False False\n"


SHARED = Path(os.environ.get("DSCONVERT_SHARED", Path(__file__).parents[3] / "shared"))
KERAS_FILES = SHARED / "models" / "keras"


@pytest.mark.skipif(not KERAS_FILES.is_dir(), reason=f"{KERAS_FILES} is not there")
class TestRealFiles:
    @pytest.mark.parametrize(
        ("name", "repairs"),
        [
            ("mlperf_tiny_resnet8_cifar10.h5", []),
            ("vgg6_cifar10.h5", []),
            ("mlperf_tiny_vww_mobilenet_96.h5", ["groups=1 from 13 DepthwiseConv2D layers"]),
            ("hls4ml_keras_conv2d_model.h5", ["gave an InputLayer"]),
            ("fer2013_mini_xception_102.hdf5", []),
            ("donkey_tests_model.hdf5", []),
            ("nncf_lenet.h5", []),
            ("cifar10_cnn_streamlit.keras", []),
            ("dncnn_sigma25.keras", []),
            ("srcnn_vietanh.keras", ["keras.src.engine.functional", "calls of Sequential"]),
            (
                "behavioral_cloning_nvidia.h5",
                ["list of layers", "from Keras 1", "x / 127.5 - 1.0", "gave an InputLayer"],
            ),
        ],
    )
    def test_loads_and_runs(self, name, repairs):
        loaded = load(KERAS_FILES / name)
        # A Keras older than the file's leaves out keys that it does not know, and says so.
        told = [sentence for sentence in loaded.repairs if "dropped what Keras" not in sentence]
        assert len(told) == len(repairs)
        for sentence, words in zip(told, repairs, strict=True):
            assert words in sentence
        rng = np.random.default_rng(0)
        shapes = [[size or 32 for size in x.shape[1:]] for x in loaded.model.inputs]
        inputs = [rng.uniform(0, 1, (1, *shape)).astype(np.float32) for shape in shapes]
        outputs = loaded.model(inputs[0] if len(inputs) == 1 else inputs)
        for output in outputs if isinstance(outputs, list) else [outputs]:
            assert np.isfinite(output).all()

    def test_weights_are_those_of_the_file(self):
        path = KERAS_FILES / "mlperf_tiny_vww_mobilenet_96.h5"
        weights = {v.path: np.asarray(v) for v in load(path).model.weights}
        found: dict[str, np.ndarray] = {}
        with h5py.File(path) as file:
            group = file["model_weights"]
            for layer in group.values():
                for name in layer.attrs["weight_names"]:
                    path = name.decode().removesuffix(":0")
                    found[path.replace("depthwise_kernel", "kernel")] = layer[name][()]
        assert weights.keys() == found.keys()
        for name, value in found.items():
            np.testing.assert_array_equal(weights[name], value, err_msg=name)

    @pytest.mark.parametrize(
        ("name", "match"),
        [
            ("dncnn_sigma25.h5", "weights only"),
            ("nnom_densenet_mnist.h5", "lambda_1, .*lambda_13.* another Python version"),
            ("hls4ml_rn08_qkeras.h5", "layer: QActivation, QConv2DBatchnorm, QDense"),
        ],
    )
    @pytest.mark.parametrize("trust", [False, True])
    def test_is_refused_with_its_cause(self, name, match, trust):
        with pytest.raises(InputError, match=match) as refusal:
            load(KERAS_FILES / name, trust=trust)
        assert refusal.value.hint

    def test_accuracy_is_the_published_one(self):
        """ResNet8 of MLPerf Tiny: 86.66 % of these 5,000 test images, in bytes from 0 to 255."""
        with np.load(SHARED / "data" / "cifar10.npz") as data:
            x, y = data["x_test"][:1000].astype(np.float32), data["y_test"][:1000].ravel()
        model = load(KERAS_FILES / "mlperf_tiny_resnet8_cifar10.h5").model
        assert np.mean(np.argmax(model(x), axis=1) == y) == pytest.approx(0.8666, abs=0.03)
