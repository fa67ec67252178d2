"""What several test files share."""

import os
from pathlib import Path

# The matrices of the tests are small: threads cost them more than they give, above all on a busy
# machine. Set before numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("fixed")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of other people's models and data, where there is one."""
    folder = Path(os.environ.get("DSCONVERT_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared folder at {folder}; set DSCONVERT_SHARED")
    return folder


@pytest.fixture(scope="session")
def digits():
    """scikit-learn's 1,797 handwritten digits: images (n, 8, 8, 1) in 0 … 1, and labels (n,)."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    return (images.reshape(-1, 8, 8, 1) / 16).astype(np.float32), labels


@pytest.fixture(scope="session")
def digits_cnn(digits):
    """A small convolutional network that has learnt the first 1,200 digits. Not to be changed."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(16, 3, padding="same", activation="relu", name="stem"),
            layers.Conv2D(24, 3, padding="same", activation="relu", name="middle"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3, padding="same", use_bias=False, name="last"),
            layers.BatchNormalization(name="norm"),
            layers.ReLU(name="relu"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(10, activation="softmax", name="scores"),
        ],
        name="digits",
    )
    images, labels = digits
    model.compile(keras.optimizers.Adam(5e-3), "sparse_categorical_crossentropy")
    model.fit(images[:1200], labels[:1200], batch_size=60, epochs=6, verbose=0)
    return model
