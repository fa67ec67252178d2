"""TensorFlow's functions of colours and contrast, spelled out in those that Keras has."""

from __future__ import annotations

from .tf_spelled import Ref, Spelled, Spelling, of_tensors
from .tree import Config

_SPATIAL, _ALL = [-3, -2], [-3, -2, -1]
"""Axes of images, one of them or many."""


@of_tensors()
def _standardized(do: Spelled, x: Ref, keywords: Config) -> bool:
    mean = do("math.reduce_mean", x, axis=_ALL, keepdims=True)
    deviation = do("math.reduce_std", x, axis=_ALL, keepdims=True)
    count = do("math.reduce_sum", do("ones_like", x), axis=_ALL, keepdims=True)
    least = do("math.maximum", deviation, y=do("math.rsqrt", count))
    do("math.truediv", do("math.subtract", x, y=mean), y=least)
    return True


@of_tensors()
def _contrast(do: Spelled, x: Ref, keywords: Config) -> bool:
    factor = keywords.get("contrast_factor")
    if not isinstance(factor, int | float):
        return False
    mean = do("math.reduce_mean", x, axis=_SPATIAL, keepdims=True)
    apart = do("math.multiply", do("math.subtract", x, y=mean), y=float(factor))
    do("math.add", apart, y=mean)
    return True


@of_tensors()
def _gamma(do: Spelled, x: Ref, keywords: Config) -> bool:
    power = do("math.pow", x, y=float(keywords.get("gamma", 1)))
    do("math.multiply", power, y=float(keywords.get("gain", 1)))
    return True


@of_tensors()
def _saturation(do: Spelled, x: Ref, keywords: Config) -> bool:
    factor = keywords.get("saturation_factor")
    if not isinstance(factor, int | float):
        return False
    hue, full, value = _hsv(do, x)
    more = do("math.multiply", full, y=float(factor))
    more = do("clip_by_value", more, clip_value_min=0.0, clip_value_max=1.0)
    do("image.hsv_to_rgb", do("concat", hue, more, value, axis=-1))
    return True


@of_tensors()
def _hue(do: Spelled, x: Ref, keywords: Config) -> bool:
    delta = keywords.get("delta")
    if not isinstance(delta, int | float):
        return False
    hue, full, value = _hsv(do, x)
    turned = do("math.floormod", do("math.add", hue, y=float(delta)), y=1.0)
    do("image.hsv_to_rgb", do("concat", turned, full, value, axis=-1))
    return True


def _hsv(do: Spelled, x: Ref) -> list[Ref]:
    """Add the hue, saturation and value of images."""
    hsv = do("image.rgb_to_hsv", x)
    return [do.part(hsv, i, i + 1) for i in range(3)]


_LUMA: dict[str, list[list[float]]] = {
    "image.rgb_to_yuv": [
        [0.299, -0.14714119, 0.61497538],
        [0.587, -0.28886916, -0.51496512],
        [0.114, 0.43601035, -0.10001026],
    ],
    "image.yuv_to_rgb": [[1, 1, 1], [0, -0.394642334, 2.03206185], [1.13988303, -0.58062185, 0]],
    "image.rgb_to_yiq": [
        [0.299, 0.59590059, 0.2115],
        [0.587, -0.27455667, -0.52273617],
        [0.114, -0.32134392, 0.31119955],
    ],
    "image.yiq_to_rgb": [
        [1, 1, 1],
        [0.95598634, -0.27201283, -1.10674021],
        [0.6208248, -0.64720424, 1.70423049],
    ],
}
"""Colours by TensorFlow's numbers: the rows are the channels of an image."""


def _colours(function: str) -> Spelling:
    """Return how to turn the colours of images by a matrix."""

    @of_tensors()
    def spelled(do: Spelled, x: Ref, keywords: Config) -> bool:
        matrix = [[float(one) for one in row] for row in _LUMA[function]]
        do("tensordot", x, b=matrix, axes=1)
        return True

    return spelled


IMAGE_SPELLINGS: dict[str, Spelling] = {
    "image.per_image_standardization": _standardized,
    "image.adjust_contrast": _contrast,
    "image.adjust_gamma": _gamma,
    "image.adjust_saturation": _saturation,
    "image.adjust_hue": _hue,
    **{name: _colours(name) for name in _LUMA},
}
"""By TensorFlow's name."""
