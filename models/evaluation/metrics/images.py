"""Images and other targets compared value by value: PSNR, SSIM, mean absolute error."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from dsconvert.base.errors import InputError
from dsconvert.base.image_layout import arrange, choose
from dsconvert.base.predictor import Array

from .metric import Answers, Settings
from .settings import number
from .statistics import Float, Mean

_EQUAL_DB = 100.0
"""PSNR of an image that equals its target, whose own is infinite."""
_SIGMA, _REACH = 1.5, 5
"""Of SSIM's window: Gaussian weights on 11×11 pixels."""
_K1, _K2 = 0.01, 0.03


def mae(answers: Answers, settings: Settings) -> Mean:
    """Mean absolute difference of each sample, E |y − ŷ|."""
    del settings
    return Mean(np.array([float(np.abs(r - y).mean()) for r, y in _pairs(answers)]))


def psnr(answers: Answers, settings: Settings) -> Mean:
    """10·log10(peak² / E (y − ŷ)²) of each image, in dB, at most 100."""
    peak = _peak(answers, settings)
    noise = np.array([float(np.square(r - y).mean()) for r, y in _pairs(answers)])
    least = peak**2 * 10 ** (-_EQUAL_DB / 10)
    return Mean(10 * np.log10(peak**2 / np.maximum(noise, least)))


def ssim(answers: Answers, settings: Settings) -> Mean:
    """Structural similarity of each image: Wang et al., IEEE TIP 13 (2004), equation 13.

    Windows are 11×11 pixels with Gaussian weights of σ = 1.5; those that would reach over an edge
    are left out. The mean over channels is taken.

    Raises:
        InputError: If the outputs are no images of at least 11×11 pixels.
    """
    peak = _peak(answers, settings)
    scores = [_ssim(_image(r), _image(y), peak) for r, y in _pairs(answers)]
    return Mean(np.array(scores))


def _ssim(r: Float, y: Float, peak: float) -> float:
    """SSIM of two images (H, W, C)."""
    if min(r.shape[:2]) <= 2 * _REACH:
        raise InputError(
            f"SSIM takes images of at least 11×11 pixels; got {r.shape[0]}×{r.shape[1]}.",
            "Use --metric psnr.",
            code="images-too-small",
        )

    def mean(values: Float) -> Float:
        wide = gaussian_filter(values, (_SIGMA, _SIGMA, 0), truncate=_REACH / _SIGMA)
        inside: Float = wide[_REACH:-_REACH, _REACH:-_REACH]
        return inside

    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_r, mean_y = mean(r), mean(y)
    var_r, var_y = mean(r * r) - mean_r**2, mean(y * y) - mean_y**2
    both = mean(r * y) - mean_r * mean_y
    top = (2 * mean_r * mean_y + c1) * (2 * both + c2)
    return float((top / ((mean_r**2 + mean_y**2 + c1) * (var_r + var_y + c2))).mean())


def _image(values: Float) -> Float:
    """One image as (H, W, C)."""
    if values.ndim == 2:
        return values[..., None]
    if values.ndim != 3:
        raise InputError(
            f"SSIM takes images; one output of the model has the shape {values.shape}.",
            "Use --metric mae.",
            code="not-an-image",
        )
    first = values.shape[0] in (1, 3, 4) and values.shape[2] not in (1, 3, 4)
    return values.transpose(1, 2, 0) if first else values


def _pairs(answers: Answers) -> list[tuple[Float, Float]]:
    """Target and output of each sample, in float64.

    Raises:
        InputError: If no output has the targets' shape.
    """
    targets, output = _fitting(answers)
    return [
        (np.asarray(r, np.float64), np.asarray(y, np.float64))
        for r, y in zip(targets, output, strict=True)
    ]


def _fitting(answers: Answers) -> tuple[Array, Array]:
    labels = answers.truth
    for output in answers.outputs:
        move = choose(labels.shape, output.shape, channels_first=False)
        moved = arrange(labels, move)
        if moved.shape == output.shape:
            return moved, output
        if output.size == labels.size and labels.ndim < output.ndim:  # (n,) for (n, 1)
            return labels.reshape(output.shape), output
    shapes = ", ".join(str(("n", *output.shape[1:])) for output in answers.outputs)
    raise InputError(
        f"the labels of {answers.source} have the shape {('n', *labels.shape[1:])}, the model's "
        f"outputs {shapes}.",
        "Give targets of an output's shape.",
        code="labels-do-not-fit",
    )


def _peak(answers: Answers, settings: Settings) -> float:
    """Return the largest value that an image may have: what was said, or as the targets look.

    Raises:
        InputError: If it was not said and cannot be told.
    """
    if "peak" in settings:
        return number(settings, "peak", 1.0)
    low, high = float(answers.truth.min()), float(answers.truth.max())
    if low >= 0 and high <= 1:
        return 1.0
    if low >= 0 and 2 < high <= 255:
        return 255.0
    raise InputError(
        f"the targets of {answers.source} go from {low:g} to {high:g}: what the largest value of "
        "an image is cannot be told.",
        "Say it: --metric psnr/peak=255",
        code="unknown-peak",
    )
