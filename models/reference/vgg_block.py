"""The CIFAR-10 network of VGG blocks.

Zhe Ming Chng, "Using Depthwise Separable Convolutions in Tensorflow", Machine Learning Mastery.

Three blocks of two 3×3 convolutions with 64, 128 and 256 channels, each ending in a 2×2
max-pooling, then one dense layer. Published: 1,186,378 parameters, and 174,821 with every
convolution separable.

There is no layer that scales the images: fed as they are stored, 0 … 255, both forms learn. From
images scaled to −1 … 1 the separable one does not, since Keras' initial weights make its values
smaller by about ten per layer, down to 1e-7.
"""

from __future__ import annotations

from typing import Any

from .convolution import convolution
from .published import Published, Reference
from .settings import BuildSettings

BLOCKS = (64, 128, 256)


def draw(settings: BuildSettings) -> Any:
    """Build it; images are fed as they are stored, 0 … 255."""
    import keras
    from keras import layers

    image = keras.Input(settings.input_shape, name="image")
    value = image
    for block, filters in enumerate(BLOCKS):
        for number in (2 * block, 2 * block + 1):
            name = f"conv{number}"
            layer = convolution(filters, 3, name, separable=settings.separable, activation="relu")
            value = layer(value)
        value = layers.MaxPooling2D(name=f"pool{block}")(value)
    value = layers.Flatten(name="flatten")(value)
    scores = layers.Dense(settings.classes, activation="softmax", name="probabilities")(value)
    return keras.Model(image, scores, name="vgg_block")


def _settings(separable: bool) -> BuildSettings:
    return BuildSettings(separable=separable, input_shape=(32, 32, 3), classes=10)


REFERENCE = Reference(
    name="vgg-block",
    title="Using Depthwise Separable Convolutions in Tensorflow",
    author="Zhe Ming Chng",
    where="Machine Learning Mastery",
    input_shape=(32, 32, 3),
    classes=10,
    draw=draw,
    published=(
        Published("parameters", 1_186_378, _settings(False)),
        Published("parameters", 174_821, _settings(True)),
    ),
    smallest=8,
)
