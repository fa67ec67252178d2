"""A small trained CNN on real data that ship with scikit-learn: 1,797 handwritten digits."""

from __future__ import annotations

from pathlib import Path

import numpy as np

SIZE = 16


def write_digits(path: Path, seed: int = 0, most: int | None = None) -> None:
    """Write the digits as 16×16 grey images, uint8: 1,297 to train with and 500 to test with.

    Args:
        path: The .npz file.
        seed: Of their order.
        most: Of either kind; None: all.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    digits = load_digits()
    small = (digits.images * (255 / 16)).round().astype(np.uint8)  # stored as 0 … 16
    resized = [
        Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR) for image in small
    ]
    images = np.stack([np.asarray(image) for image in resized])[..., None]
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[:-500][:most], order[-500:][:most]
    np.savez_compressed(
        path,
        x_train=images[train],
        y_train=digits.target[train],
        x_test=images[test],
        y_test=digits.target[test],
    )


def train_digits(data: Path, path: Path, epochs: int = 5, seed: int = 0) -> None:
    """Train a plain CNN of four 3×3 convolutions on them and save it as the user's model."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    arrays = np.load(data)
    x = arrays["x_train"].astype(np.float32) / 255
    blocks: list[keras.Layer] = []
    for number, filters in enumerate((32, 64, 128, 128), start=1):
        blocks += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{number}"),
            layers.BatchNormalization(momentum=0.9, name=f"norm{number}"),
            layers.ReLU(name=f"relu{number}"),
        ]
        if number == 2:
            blocks.append(layers.MaxPooling2D(name="pool"))
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 1), name="image"),
            *blocks,
            layers.GlobalAveragePooling2D(name="mean"),
            layers.Dense(10, activation="softmax", name="digit"),
        ],
        name="digits",
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, arrays["y_train"], epochs=epochs, batch_size=32, verbose=0)
    model.save(path)
