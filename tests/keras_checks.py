"""What the tests of rewritten Keras models ask again and again."""

import keras
import numpy as np

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
