"""A small trained CNN on real data that ship with scikit-learn: 1,797 handwritten digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIZE = 16


def write_digits(path: Path, seed: int = 0) -> None:
    """Write the digits as 16×16 grey images, uint8: 1,297 to train with and 500 to test with."""
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = (digits.images * (255 / 16)).round().astype(np.uint8)  # stored as 0 … 16
    resized = [
        Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in small
    ]
    images = np.stack([np.asarray(image) for image in resized])[..., None]
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[:-500], order[-500:]
    np.savez_compressed(
        path,
        x_train=images[train],
        y_train=digits.target[train],
        x_test=images[test],
        y_test=digits.target[test],
    )


def train_digits(data: Path, path: Path, epochs: int = 4, seed: int = 0) -> None:
    """Train a plain CNN of four 3×3 convolutions on them and save it as the user's model."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    arrays = np.load(data)
    x = arrays["x_train"].astype(np.float32) / 255
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1), name="image"),
            layers.Conv2D(32, 3, padding="same", activation="relu", name="conv1"),
            layers.Conv2D(64, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(),
            layers.Conv2D(128, 3, padding="same", activation="relu", name="conv3"),
            layers.Conv2D(128, 3, padding="same", activation="relu", name="conv4"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="digits",
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, arrays["y_train"], epochs=epochs, batch_size=32, verbose=0)
    model.save(path)
