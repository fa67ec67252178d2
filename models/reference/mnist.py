"""The small MNIST network with 7×7, 5×5 and 3×3 kernels.

Sumant Hegde, "An Introduction to Separable Convolutions", Data Science Blogathon, Analytics Vidhya.

Published: 8,586 parameters, and 1,427 with every convolution separable. The layer widths here, 8,
16 and 32, follow from the two counts: widths a, b, c with biases save 7,159 parameters, and of the
integers that save so many only 8, 16, 32 leave for the last layer what a dense one of ten classes
on c averaged channels has, 10·c + 10 = 330. The counts do not tell where the network shrinks its
images: the two max-poolings are this project's choice. Nothing scales the images, see vgg_block.py.
"""

from __future__ import annotations

from typing import Any

from .convolution import convolution
from .published import Published, Reference
from .settings import BuildSettings

LAYERS = ((8, 7), (16, 5), (32, 3))
"""(filters, kernel size)."""


def draw(settings: BuildSettings) -> Any:
    """Build it; images are fed as they are stored, 0 … 255."""
    import keras
    from keras import layers

    image = keras.Input(settings.input_shape, name="image")
    value = image
    for number, (filters, size) in enumerate(LAYERS):
        name = f"conv{number}"
        layer = convolution(filters, size, name, separable=settings.separable, activation="relu")
        value = layer(value)
        if number < len(LAYERS) - 1:
            value = layers.MaxPooling2D(padding="same", name=f"pool{number}")(value)
    value = layers.GlobalAveragePooling2D(name="mean")(value)
    scores = layers.Dense(settings.classes, activation="softmax", name="probabilities")(value)
    return keras.Model(image, scores, name="mnist_753")


def _settings(separable: bool) -> BuildSettings:
    return BuildSettings(separable=separable, input_shape=(28, 28, 1), classes=10)


REFERENCE = Reference(
    name="mnist-753",
    title="An Introduction to Separable Convolutions",
    author="Sumant Hegde",
    where="Data Science Blogathon, Analytics Vidhya",
    input_shape=(28, 28, 1),
    classes=10,
    draw=draw,
    published=(
        Published("parameters", 8_586, _settings(False)),
        Published("parameters", 1_427, _settings(True)),
    ),
)
