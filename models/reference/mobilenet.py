"""MobileNet, version 1.

Andrew G. Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision
Applications", arXiv:1704.04861.

A 3×3 convolution of stride 2, then thirteen blocks, each a depthwise 3×3 convolution, norm, ReLU, a
1×1 convolution, norm, ReLU; the mean over the image, one dense layer. The standard form, "Conv
MobileNet", has a 3×3 convolution, norm and ReLU in the place of each block. The width multiplier α
scales every layer's channels, the resolution multiplier ρ is the size of the input.

What the paper counts: as parameters the weights of convolutions and dense layers, without biases
and norms (its Table 2 gives the dense layer 24.33 % of them: 1,024,000 of 4,209,088); as Mult-Adds
those of convolutions and of the dense layer, for 569 M includes its 1.0 M. Two of its figures leave
the dense layer out, 4,866 M for Conv MobileNet (4,867 M with it) and 290 M for 160×160 images
(290.7 M with it); they are held against that count.
"""

from __future__ import annotations

from typing import Any

from .published import Published, Quantity, Reference
from .settings import BuildSettings

STEM = 32
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
"""(filters, stride)."""
SHALLOW = (*BLOCKS[:6], *BLOCKS[11:])


def draw(settings: BuildSettings) -> Any:
    """Build it; images are fed as they are stored, 0 … 255."""
    import keras
    from keras import layers

    def width(filters: int) -> int:
        return max(1, int(filters * settings.alpha))

    def active(value: Any, name: str) -> Any:
        value = layers.BatchNormalization(name=f"{name}_norm")(value)
        return layers.ReLU(name=f"{name}_relu")(value)

    def conv(value: Any, filters: int, size: int, strides: int, name: str) -> Any:
        layer = layers.Conv2D(
            filters, size, strides=strides, padding="same", use_bias=False, name=name
        )
        return active(layer(value), name)

    image = keras.Input(settings.input_shape, name="image")
    value = layers.Rescaling(1 / 127.5, offset=-1, name="rescaling")(image)
    value = conv(value, width(STEM), 3, 2, "conv0")
    for number, (filters, strides) in enumerate(SHALLOW if settings.shallow else BLOCKS, start=1):
        if settings.separable:
            layer = layers.DepthwiseConv2D(
                3, strides=strides, padding="same", use_bias=False, name=f"conv{number}_dw"
            )
            value = active(layer(value), f"conv{number}_dw")
            value = conv(value, width(filters), 1, 1, f"conv{number}_pw")
        else:
            value = conv(value, width(filters), 3, strides, f"conv{number}")
    value = layers.GlobalAveragePooling2D(name="mean")(value)
    scores = layers.Dense(settings.classes, activation="softmax", name="probabilities")(value)
    return keras.Model(image, scores, name="mobilenet")


def _million(
    quantity: Quantity,
    value: float,
    *,
    separable: bool = True,
    alpha: float = 1.0,
    size: int = 224,
    shallow: bool = False,
) -> Published:
    """Return a figure of the paper's tables, printed in millions."""
    settings = BuildSettings(
        separable=separable,
        input_shape=(size, size, 3),
        classes=1000,
        alpha=alpha,
        shallow=shallow,
    )
    return Published(quantity, value, settings, 1_000_000, int(quantity == "kernels"))


REFERENCE = Reference(
    name="mobilenet",
    title=("MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications"),
    author="Andrew G. Howard et al.",
    where="arXiv:1704.04861",
    input_shape=(224, 224, 3),
    classes=1000,
    draw=draw,
    published=(
        # Table 4: depthwise separable against full convolutions.
        _million("macs-without-dense", 4866, separable=False),
        _million("kernels", 29.3, separable=False),
        # Table 5: narrow against shallow.
        _million("macs", 307, shallow=True),
        _million("kernels", 2.9, shallow=True),
        # Table 6: the width multiplier α.
        _million("macs", 569),
        _million("kernels", 4.2),
        _million("macs", 325, alpha=0.75),
        _million("kernels", 2.6, alpha=0.75),
        _million("macs", 149, alpha=0.5),
        _million("kernels", 1.3, alpha=0.5),
        _million("macs", 41, alpha=0.25),
        _million("kernels", 0.5, alpha=0.25),
        # Table 7: the resolution multiplier ρ.
        _million("macs", 418, size=192),
        _million("kernels", 4.2, size=192),
        _million("macs-without-dense", 290, size=160),
        _million("kernels", 4.2, size=160),
        _million("macs", 186, size=128),
        _million("kernels", 4.2, size=128),
    ),
    extras=("alpha", "shallow"),
)
