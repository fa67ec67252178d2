"""SavedModels of TensorFlow's operations: what they may do, and what is said of damaged ones."""

import os
import shutil

import keras
import numpy as np
import pytest

import dsconvert as ds
from dsconvert.base.errors import InputError

tf = pytest.importorskip("tensorflow")


class Filled(tf.saved_model.experimental.TrackableResource):
    """A table whose loading runs a function."""

    def __init__(self, fill):
        super().__init__()
        self._fill = fill

    def _create_resource(self):
        return tf.raw_ops.MutableHashTableV2(key_dtype=tf.int64, value_dtype=tf.int64)

    def _initialize(self):
        self._fill()


def saved(folder, *, answer=lambda y: y, fill=None):
    """Save a convolution as a SavedModel, with a resource that loading fills."""
    net = tf.Module()
    net.kernel = tf.Variable(np.random.default_rng(0).normal(size=(3, 3, 2, 4)).astype("float32"))
    image = tf.TensorSpec([None, 8, 8, 2], tf.float32, name="image")
    net.call = tf.function(
        lambda image: {"y": answer(tf.nn.conv2d(image, net.kernel, 1, "SAME"))},
        input_signature=[image],
    )
    if fill is not None:
        net.table = Filled(fill)
        assert net.table.resource_handle is not None
    tf.saved_model.save(net, str(folder), signatures={"serving_default": net.call})
    return folder


def save_weights(path):
    tf.raw_ops.SaveV2(
        prefix=path, tensor_names=["w"], shape_and_slices=[""], tensors=[tf.constant([1.0])]
    )


@pytest.mark.parametrize("operation", ["WriteFile", "SaveV2", "PrintV2"])
def test_what_writes_files_while_it_is_loaded_is_not_loaded(operation, tmp_path):
    planted = str(tmp_path / "planted")
    fill = {
        "WriteFile": lambda: tf.io.write_file(planted, "planted"),
        "SaveV2": lambda: save_weights(planted),
        "PrintV2": lambda: tf.print("planted", output_stream=f"file://{planted}"),
    }[operation]
    folder = saved(tmp_path / "saved", fill=fill)
    for file in tmp_path.glob("planted*"):  # which tracing has written
        file.unlink()
    with pytest.raises(InputError, match=operation) as refused:
        ds.inspect(folder)
    assert refused.value.code == "needs-trust"
    assert not list(tmp_path.glob("planted*"))


def test_a_graph_that_reads_files_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(b"abcd")

    def read(y):
        values = tf.io.decode_raw(tf.io.read_file(str(tmp_path / "secret")), tf.uint8)
        return y + tf.cast(tf.reshape(values, (4,)), tf.float32)

    with pytest.raises(InputError, match="ReadFile") as refused:
        ds.inspect(saved(tmp_path / "saved", answer=read))
    assert refused.value.code == "needs-trust"


@pytest.mark.slow
def test_resources_that_keep_to_themselves_are_loaded_and_with_trust_all(tmp_path):
    quiet = saved(tmp_path / "quiet", fill=lambda: tf.print("loaded"))
    assert ds.inspect(quiet).params > 0
    log = tmp_path / "log"
    loud = saved(tmp_path / "loud", fill=lambda: tf.io.write_file(str(log), "loaded"))
    assert ds.inspect(ds.load(loud, trust=True)).params > 0


@pytest.mark.slow
def test_which_signature_is_read_is_told_each_time(tmp_path, caplog):
    net = tf.Module()
    image = tf.TensorSpec([None, 8, 8, 2], tf.float32, name="image")
    net.call = tf.function(lambda image: {"y": 2.0 * image}, input_signature=[image])
    tf.saved_model.save(net, str(tmp_path / "named"), signatures={"twice": net.call})
    for _ in range(2):  # the second time the file in the cache is taken
        caplog.clear()
        ds.load(tmp_path / "named")
        assert "its signature twice is read" in caplog.text


def test_the_folder_is_named_and_not_the_file_made_of_it(tmp_path, capsys):
    folder = saved(tmp_path / "saved")
    model = ds.load(folder)
    assert model.path.suffix == ".onnx"
    assert (model.name, model.told) == ("saved", str(folder))
    assert ds.rewrite(folder).record.model == ds.verify(model, model).reference == str(folder)
    ds.import_onnx(folder, progress=True)
    assert "Importing saved" in capsys.readouterr().err
    with pytest.raises(InputError) as refused:
        ds.profile(folder)
    assert f"{folder} is a SavedModel" in refused.value.message
    assert "export" in refused.value.hint


def test_what_keras_refuses_as_unsafe_names_trust(plain, tmp_path):
    """Keras' own words name an argument that the command line does not have."""
    layer = keras.layers.TFSMLayer(str(plain), call_endpoint="serving_default")
    keras.Sequential([keras.Input((8, 8, 2)), layer]).save(tmp_path / "net.keras")
    with pytest.raises(InputError) as refused:
        ds.load(tmp_path / "net.keras")
    assert (refused.value.code, "--trust" in refused.value.words[1]) == ("needs-trust", True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return saved(tmp_path_factory.mktemp("plain") / "saved")


def remove(name):
    return lambda folder: (folder / "variables" / name).unlink()


def halve(folder):
    file = folder / "variables" / "variables.data-00000-of-00001"
    file.write_bytes(file.read_bytes()[:100])


def pipe(folder):
    remove("variables.index")(folder)
    os.mkfifo(folder / "variables" / "variables.index")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (remove("variables.index"), r"variables\.index, the list of its weights, is missing"),
        (remove("variables.data-00000-of-00001"), "data-00000-of-00001, which holds weights"),
        (halve, "its weights cannot be read"),
        (pipe, "no regular file"),
    ],
    ids=["index", "data", "half", "pipe"],
)
def test_what_is_missing_or_damaged_is_named(damage, told, plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "saved")
    damage(folder)
    with pytest.raises(InputError, match=told) as refused:
        ds.inspect(folder)
    assert refused.value.code == "damaged-file"
