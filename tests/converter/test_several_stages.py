"""Several stages of a network computed at once: they give what they give one by one."""

import keras
import numpy as np
import pytest
from keras import layers
from keras_checks import images, model_of
from stage_networks import COUNT, NETWORKS

from dsconvert.base.errors import InputError
from dsconvert.converter.backends.keras.graph import flatten
from dsconvert.converter.backends.keras.stages import KerasStages
from dsconvert.converter.backends.onnx import stages as onnx_stages
from dsconvert.converter.backends.onnx.stages import OnnxStages
from dsconvert.formats.onnx.graph import OnnxGraph

X = images(5, 8, 8, 6)


def check(stages, batch):
    """Compare, from each stage on, all stages to the end at once with each by itself."""
    last = len(stages.sites) - 1
    live, seen = [dict(zip(stages.inputs, batch, strict=True))], set()
    for stage in range(last + 1):
        values = live[-1] | stages.run(stage, live[-1])
        live.append({value: values[value] for value in stages.live_after(stage)})
    for stage in range(last):
        made = stages.run(stage, live[stage], last)
        assert not made.keys() & live[stage].keys()  # what is there already is not copied
        assert made.keys() | live[stage].keys() >= set(stages.outputs)
        for value, array in made.items():
            seen.add(value)
            expected = live[-1][value]
            assert array.dtype == expected.dtype
            np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)
    assert seen  # something was compared


@pytest.mark.parametrize("most", [onnx_stages._TOGETHER, 0])
@pytest.mark.parametrize("name", NETWORKS)
def test_of_onnx_models(name, most, monkeypatch):
    monkeypatch.setattr(onnx_stages, "_TOGETHER", most)  # with 0 each is a model of its own
    model, inputs, roles = NETWORKS[name]()
    names = [name for name, role in roles.items() if role == "conv"]
    stages = OnnxStages(OnnxGraph(model), names, inputs)
    size = stages.batch_size or COUNT
    check(stages, [array[:size] for array in inputs])


def conv(filters, name):
    return layers.Conv2D(filters, 3, padding="same", name=name)


def branches():
    image = keras.Input((8, 8, 6))
    first = conv(6, "a")(image)
    shared = conv(6, "b")
    x = layers.BatchNormalization()(layers.Add()([shared(first), first]))
    y = shared(layers.ReLU()(x))
    pooled = layers.GlobalAveragePooling2D()(layers.Concatenate()([y, image]))
    return keras.Model(image, [layers.Dense(4, name="scores")(pooled), first])


@keras.saving.register_keras_serializable("tests")
class WithNumbers(layers.Layer):
    """Looks at the numbers, which a graph does not have yet."""

    def call(self, x):
        return x * float(np.abs(keras.ops.convert_to_numpy(x)).max())

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


KERAS = {
    "branches": branches,
    "odd names": lambda: model_of(conv(6, "a[0]"), layers.ReLU(name="é"), conv(4, "b c")),
    "of numbers": lambda: model_of(conv(6, "a"), WithNumbers(), conv(4, "b")),
}


@pytest.mark.parametrize("name", KERAS)
def test_of_keras_models(name):
    model = KERAS[name]()
    names = [x.name for x in model.layers if type(x) is layers.Conv2D]
    stages = KerasStages(flatten(model), names)
    check(stages, [X])
    check(stages, [X[:2]])  # a batch of another size


def test_data_that_a_layer_does_not_take_are_told():
    image = keras.Input((8, 8, 6))
    places = layers.GlobalMaxPooling2D()(conv(4, "b")(conv(6, "a")(image)))
    table = layers.Embedding(3, 2, name="table")(keras.ops.cast(places * 1000, "int32"))
    stages = KerasStages(flatten(keras.Model(image, table)), ["a", "b"])
    with pytest.raises(InputError) as refused:
        stages.run(0, {0: X}, 2)
    assert refused.value.code == "does-not-run"
    assert "table" in str(refused.value)
