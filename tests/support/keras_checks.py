"""What the tests of rewritten Keras models ask again and again."""

import keras
import numpy as np
from keras import layers

FULL_RANK = 25
"""More pairs than any kernel in these tests needs: the rewrite is then exact."""


def outputs(model, x):
    """All outputs for a batch, in the model's order, as float32."""
    results = keras.tree.flatten(model(x, training=False))
    return [np.asarray(keras.ops.cast(result, "float32")) for result in results]


def assert_same_outputs(model, rewritten, x, tolerance=1e-5):
    """Relative to each output's size; some hundred float32 additions in another order."""
    expected, got = outputs(model, x), outputs(rewritten, x)
    assert len(expected) == len(got)
    for reference, other in zip(expected, got, strict=True):
        assert reference.shape == other.shape
        assert np.linalg.norm(reference - other) <= tolerance * np.linalg.norm(reference)


def layers_of(model):
    """All layers, those of nested models included."""
    return [layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model)]


def images(*shape, seed=0):
    """Standard normal float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def model_of(*stack, shape=(8, 8, 6), **more):
    """A Sequential model of these layers; ``more`` goes to its input."""
    return keras.Sequential([keras.Input(shape, **more), *stack])


def conv(filters=6, **more):
    """A 3×3 convolution of the same size, with a bias that is not zero."""
    return layers.Conv2D(filters, 3, padding="same", bias_initializer="normal", **more)


def norm():
    """A BatchNorm that does something."""
    return layers.BatchNormalization(
        gamma_initializer=keras.initializers.RandomUniform(0.5, 2, seed=1),
        moving_mean_initializer=keras.initializers.RandomNormal(seed=2),
        moving_variance_initializer=keras.initializers.RandomUniform(0.5, 2, seed=3),
    )


def residual():
    """Two shortcuts, with and without BatchNorm."""
    image = keras.Input((8, 8, 6))
    x = layers.ReLU()(norm()(conv(8, use_bias=False)(image)))
    y = norm()(conv(8)(layers.ReLU()(norm()(conv(8)(x)))))
    x = layers.ReLU()(layers.Add()([layers.Conv2D(8, 1)(x), y]))
    x = layers.GlobalAveragePooling2D()(conv(8)(x) + x)
    return keras.Model(image, layers.Dense(4, activation="softmax")(x))


def first_channels():
    """Channels first, a stride, and one convolution with a BatchNorm behind it."""
    stack = [
        layers.Conv2D(8, 3, padding="same", data_format="channels_first"),
        layers.BatchNormalization(axis=1, moving_mean_initializer="ones"),
        layers.ReLU(),
        layers.Conv2D(5, 3, strides=2, use_bias=False, data_format="channels_first"),
    ]
    return model_of(layers.Permute((3, 1, 2)), *stack)
