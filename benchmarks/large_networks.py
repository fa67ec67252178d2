"""A ResNet-18-like and a MobileNetV2-like network for small images, larger than MLPerf Tiny's.

Deep Residual Learning, arXiv:1512.03385, and MobileNetV2, arXiv:1801.04381, as they are usually
drawn for images of 32×32: the first convolution has a stride of 1 and there is no pooling behind
it. Both are narrower than the papers', so that a processor can train them; their names say so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from steps import Labelled, top1


@dataclass(frozen=True)
class Training:
    """How a network is trained by labels.

    Attributes:
        epochs: Passes over the images.
        mixed_precision: Whether it computes in bfloat16, which pays for wide convolutions.
        batch: Images a step.
        rate: The highest, of SGD with Nesterov's momentum of 0.9.
        decay: Share of a kernel that is taken off a step, times the rate.
        seed: Of the order and the augmentation.
    """

    epochs: int
    mixed_precision: bool
    batch: int = 64
    rate: float = 0.05
    decay: float = 5e-3
    seed: int = 0


RESNET_WIDTH = 24
"""Channels of the first stage; the paper's are 64."""
STAGES = (1, 2, 4, 8)
"""Times the width; two blocks each."""
INVERTED = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 1),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion, channels, blocks, stride) of the paper's table 2, whose fourth stride is 2."""
HEAD = 1280


def resnet18(shape: tuple[int, ...], classes: int, width: int = RESNET_WIDTH) -> Any:
    """Draw ResNet-18 with this width of its first stage; images are fed as stored, 0 … 255."""
    import keras
    from keras import layers

    def conv(value: Any, filters: int, size: int, strides: int, name: str) -> Any:
        layer = layers.Conv2D(
            filters,
            size,
            strides=strides,
            padding="same",
            use_bias=False,
            kernel_initializer="he_normal",
            name=name,
        )
        return layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(layer(value))

    image = keras.Input(shape, name="image")
    value = layers.Rescaling(1 / 64, offset=-2, name="rescaling")(image)
    value = layers.ReLU(name="conv0_relu")(conv(value, width, 3, 1, "conv0"))
    for stage, times in enumerate(STAGES, start=1):
        for block in (1, 2):
            name, filters = f"stage{stage}_block{block}", width * times
            strides = 2 if stage > 1 and block == 1 else 1
            inner = conv(value, filters, 3, strides, f"{name}_conv1")
            inner = layers.ReLU(name=f"{name}_relu1")(inner)
            inner = conv(inner, filters, 3, 1, f"{name}_conv2")
            if strides > 1:
                value = conv(value, filters, 1, strides, f"{name}_shortcut")
            value = layers.ReLU(name=f"{name}_relu2")(
                layers.Add(name=f"{name}_add")([value, inner])
            )
    value = layers.GlobalAveragePooling2D(name="mean")(value)
    scores = layers.Dense(classes, activation="softmax", name="probabilities")(value)
    return keras.Model(image, scores, name=f"resnet18_{width}")


def mobilenet_v2(shape: tuple[int, ...], classes: int, alpha: float = 0.5) -> Any:
    """Draw MobileNetV2 of this width; images are fed as they are stored, 0 … 255."""
    import keras
    from keras import layers

    def norm(value: Any, name: str, *, active: bool = True) -> Any:
        value = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(value)
        return layers.ReLU(6.0, name=f"{name}_relu")(value) if active else value

    def conv(value: Any, filters: int, size: int, name: str, *, active: bool = True) -> Any:
        layer = layers.Conv2D(filters, size, padding="same", use_bias=False, name=name)
        return norm(layer(value), name, active=active)

    def width(channels: int) -> int:
        return max(8, int(channels * alpha + 4) // 8 * 8)

    image = keras.Input(shape, name="image")
    value = layers.Rescaling(1 / 64, offset=-2, name="rescaling")(image)
    value = conv(value, width(32), 3, "conv0")
    for stage, (expansion, channels, blocks, stride) in enumerate(INVERTED, start=1):
        for block in range(1, blocks + 1):
            name, strides = f"stage{stage}_block{block}", stride if block == 1 else 1
            inner = value
            if expansion > 1:
                inner = conv(inner, expansion * value.shape[-1], 1, f"{name}_expand")
            layer = layers.DepthwiseConv2D(
                3, strides=strides, padding="same", use_bias=False, name=f"{name}_depthwise"
            )
            inner = norm(layer(inner), f"{name}_depthwise")
            inner = conv(inner, width(channels), 1, f"{name}_project", active=False)
            same = strides == 1 and value.shape[-1] == inner.shape[-1]
            value = layers.Add(name=f"{name}_add")([value, inner]) if same else inner
    value = conv(value, width(HEAD), 1, "head")
    value = layers.GlobalAveragePooling2D(name="mean")(value)
    scores = layers.Dense(classes, activation="softmax", name="probabilities")(value)
    return keras.Model(image, scores, name=f"mobilenet_v2_{alpha:g}")


def train_by_labels(model: Any, data: Labelled, training: Training, state: Path) -> dict[str, Any]:
    """Train from random weights, with flips and crops; an interrupted run goes on where it was.

    Args:
        model: Gets the weights of the last epoch.
        data: Images and their classes.
        training: How long and how.
        state: The .keras file that each epoch is kept in; removed at the end.

    Returns:
        Accuracies in percent, by epoch too, and the seconds of this run.
    """
    import keras

    from dsconvert.models.training.batches import epoch_batches
    from dsconvert.models.training.student_copy import copy_model

    steps = len(data.x) // training.batch
    started = time.perf_counter()
    copy = copy_model(model, mixed_precision=training.mixed_precision)
    copy.compile(_sgd(training, steps), "sparse_categorical_crossentropy", jit_compile=False)
    copy.optimizer.build(copy.trainable_variables)
    if state.exists():  # its values alone: what is not decayed is not stored with an optimizer
        kept: Any = keras.models.load_model(state)
        copy.set_weights(kept.get_weights())
        pairs = zip(copy.optimizer.variables, kept.optimizer.variables, strict=True)
        for variable, value in pairs:
            variable.assign(value)
    for epoch in range(int(copy.optimizer.iterations.numpy()) // steps, training.epochs):
        batches = epoch_batches(
            (data.x,), training.batch, ("flip", "crop"), seed=training.seed, epoch=epoch
        )
        losses = [copy.train_on_batch(x, data.y[index]) for index, (x,) in batches]
        written = state.with_suffix(".writing.keras")
        copy.save(written)
        written.replace(state)
        spent = time.perf_counter() - started
        print(f"  epoch {epoch + 1}: loss {np.mean(losses):.3f}, {spent:.0f} s", flush=True)
    model.set_weights(copy.get_weights())
    state.unlink()
    return {**top1(model, data), "seconds": round(time.perf_counter() - started)}


def _sgd(training: Training, steps: int) -> Any:
    """Return SGD whose rate rises, falls along a cosine, and which decays kernels alone."""
    import keras

    rising = training.epochs * steps // 5
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        training.epochs * steps - rising,
        warmup_target=training.rate,
        warmup_steps=rising,
    )
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, nesterov=True, weight_decay=training.decay)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer
