"""What the tests of the project's own texts have at hand."""

from pathlib import Path

import numpy as np
import pytest

import dsconvert as ds


@pytest.fixture(scope="session")
def place(digits, tmp_path_factory) -> Path:
    """The files that the examples name: a tiny trained network in two formats, and its data."""
    import keras
    from keras import layers

    images, labels = digits
    folder = tmp_path_factory.mktemp("examples")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, padding="same", activation="relu", name="stem"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="conv"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(10, activation="softmax", name="scores"),
        ],
        name="digits",
    )
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(images[:1000], labels[:1000], batch_size=100, epochs=6, verbose=0)
    model.save(folder / "model.keras")
    ds.export(model, folder / "model.onnx")
    parts = {"x_train": images[:300], "y_train": labels[:300]}
    np.savez(folder / "digits.npz", **parts, x_test=images[1200:1300], y_test=labels[1200:1300])
    return folder
