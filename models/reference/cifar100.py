"""The CIFAR-100 network of four blocks.

Omar Mohamed, "Tensorflow CIFAR-100 Series (4)"; code: omar-mohamed/Object-Classification-CIFAR-100,
TrainCNN.py and TrainDepthwiseCNN.py.

Four blocks of norm, convolution, 2×2 max-pooling, norm, ReLU, dropout, with kernels of 7, 5, 3, 3
and 64, 128, 256, 512 filters; then dense layers, each followed by a norm: two of 2,048 units with
ReLU and dropout, and the classes. The article speaks of three dense layers of 2,048; in the code
the third is the one that gives the 100 scores. No layer has a bias. The dropout of the
convolutional blocks is DropBlock with blocks of one pixel, which is dropout. Published: 51.3 % with
separable convolutions; no counts.
"""

from __future__ import annotations

from typing import Any

from .convolution import convolution
from .published import Reference
from .settings import BuildSettings

BLOCKS = ((64, 7), (128, 5), (256, 3), (512, 3))
"""(filters, kernel size)."""
HIDDEN = (2048, 2048)
DROPPED = 0.15
DROPPED_HIDDEN = 0.5


def draw(settings: BuildSettings) -> Any:
    """Build it; images are fed as they are stored, 0 … 255."""
    import keras
    from keras import layers

    def norm(name: str) -> Any:
        return layers.BatchNormalization(momentum=0.997, epsilon=1e-5, name=name)

    image = keras.Input(settings.input_shape, name="image")
    value = layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(image)
    for number, (filters, size) in enumerate(BLOCKS, start=1):
        value = norm(f"norm{number}_in")(value)
        name = f"conv{number}"
        layer = convolution(filters, size, name, separable=settings.separable, use_bias=False)
        value = layer(value)
        value = layers.MaxPooling2D(padding="same", name=f"pool{number}")(value)
        value = norm(f"norm{number}")(value)
        value = layers.ReLU(name=f"relu{number}")(value)
        value = layers.Dropout(DROPPED, name=f"drop{number}")(value)
    value = layers.Flatten(name="flatten")(value)
    for number, units in enumerate(HIDDEN, start=1):
        value = layers.Dense(units, use_bias=False, name=f"dense{number}")(value)
        value = norm(f"dense_norm{number}")(value)
        value = layers.ReLU(name=f"dense_relu{number}")(value)
        value = layers.Dropout(DROPPED_HIDDEN, name=f"dense_drop{number}")(value)
    value = layers.Dense(settings.classes, use_bias=False, name="dense3")(value)
    value = norm("dense_norm3")(value)
    scores = layers.Softmax(name="probabilities")(value)
    return keras.Model(image, scores, name="cifar100_four")


REFERENCE = Reference(
    name="cifar100-four",
    title="Tensorflow CIFAR-100 Series (4)",
    author="Omar Mohamed",
    where="Medium; code omar-mohamed/Object-Classification-CIFAR-100",
    input_shape=(32, 32, 3),
    classes=100,
    draw=draw,
    published=(),
)
