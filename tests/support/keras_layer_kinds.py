"""One tiny network for each kind of Keras layer, for any Keras from 2.12 on.

It runs in the environments of old Keras versions too: nothing but numpy is imported.
"""

from __future__ import annotations

import numpy as np

IMAGE, SEQUENCE, VOLUME, VECTOR = (8, 8, 4), (8, 4), (6, 6, 6, 2), (6,)
COLOUR = (12, 12, 3)
IDS = "ids"
"""Instead of a shape: whole numbers, five a sample."""

ACTIVATIONS = (
    "celu", "elu", "exponential", "gelu", "glu", "hard_shrink", "hard_sigmoid", "hard_silu",
    "hard_tanh", "leaky_relu", "linear", "log_sigmoid", "log_softmax", "mish", "relu", "relu6",
    "selu", "sigmoid", "silu", "soft_shrink", "softmax", "softplus", "softsign", "sparse_plus",
    "sparse_sigmoid", "sparsemax", "squareplus", "swish", "tanh", "tanh_shrink",
)  # fmt: skip
"""Names of activations; a Keras version has some of them."""


def _two(name, **config):
    """Return a layer called on two tensors."""
    return lambda L: lambda x: getattr(L, name)(name="it", **config)([x, L.ReLU(name="other")(x)])


def _attention(name, **config):
    def build(L):
        return lambda x: getattr(L, name)(name="it", **config)([x, L.ReLU(name="other")(x), x])

    return build


def _one(name, **config):
    return lambda L: getattr(L, name)(name="it", **config)


def _around(wrapper, inner, config, **more):
    """Return a layer around another one."""
    return lambda L: getattr(L, wrapper)(
        getattr(L, inner)(name="inner", **config), name="it", **more
    )


def _heads(L):
    return lambda x: L.MultiHeadAttention(2, 3, name="it")(x, x)


def _query_heads(L):
    return lambda x: L.GroupQueryAttention(3, 4, 2, name="it")(x, x)


LAYERS = {
    "Add": (IMAGE, _two("Add")),
    "Subtract": (IMAGE, _two("Subtract")),
    "Multiply": (IMAGE, _two("Multiply")),
    "Average": (IMAGE, _two("Average")),
    "Maximum": (IMAGE, _two("Maximum")),
    "Minimum": (IMAGE, _two("Minimum")),
    "Concatenate": (IMAGE, _two("Concatenate", axis=-1)),
    "Dot": (SEQUENCE, _two("Dot", axes=(2, 2))),
    "Dot, normalized": (VECTOR, _two("Dot", axes=1, normalize=True)),
    "Activation": (IMAGE, _one("Activation", activation="tanh")),
    "ActivityRegularization": (IMAGE, _one("ActivityRegularization", l1=0.1)),
    "AdaptiveAveragePooling1D": (SEQUENCE, _one("AdaptiveAveragePooling1D", output_size=4)),
    "AdaptiveAveragePooling2D": (IMAGE, _one("AdaptiveAveragePooling2D", output_size=3)),
    "AdaptiveAveragePooling3D": (VOLUME, _one("AdaptiveAveragePooling3D", output_size=3)),
    "AdaptiveMaxPooling1D": (SEQUENCE, _one("AdaptiveMaxPooling1D", output_size=4)),
    "AdaptiveMaxPooling2D": (IMAGE, _one("AdaptiveMaxPooling2D", output_size=3)),
    "AdaptiveMaxPooling3D": (VOLUME, _one("AdaptiveMaxPooling3D", output_size=3)),
    "AdditiveAttention": (SEQUENCE, _attention("AdditiveAttention")),
    "Attention": (SEQUENCE, _attention("Attention", use_scale=True)),
    "AlphaDropout": (VECTOR, _one("AlphaDropout", rate=0.5)),
    "AveragePooling1D": (SEQUENCE, _one("AveragePooling1D", padding="same", pool_size=3)),
    "AveragePooling2D": (IMAGE, _one("AveragePooling2D", padding="same", pool_size=3)),
    "AveragePooling3D": (VOLUME, _one("AveragePooling3D", pool_size=2)),
    "BatchNormalization": (IMAGE, _one("BatchNormalization")),
    "Bidirectional LSTM": (SEQUENCE, _around("Bidirectional", "LSTM", {"units": 3})),
    "CategoryEncoding": (IDS, _one("CategoryEncoding", num_tokens=10, output_mode="count")),
    "CenterCrop": (COLOUR, _one("CenterCrop", height=7, width=8)),
    "Conv1D": (SEQUENCE, _one("Conv1D", filters=3, kernel_size=3, padding="causal")),
    "Conv2D": (IMAGE, _one("Conv2D", filters=3, kernel_size=3, strides=2, padding="same")),
    "Conv2D, groups": (IMAGE, _one("Conv2D", filters=4, kernel_size=3, groups=2)),
    "Conv2D, dilated": (IMAGE, _one("Conv2D", filters=4, kernel_size=3, dilation_rate=2)),
    "Conv3D": (VOLUME, _one("Conv3D", filters=3, kernel_size=3)),
    "Conv1DTranspose": (SEQUENCE, _one("Conv1DTranspose", filters=3, kernel_size=3, strides=2)),
    "Conv2DTranspose": (
        IMAGE, _one("Conv2DTranspose", filters=3, kernel_size=3, strides=2, padding="same"),
    ),
    "Conv3DTranspose": (VOLUME, _one("Conv3DTranspose", filters=2, kernel_size=2, strides=2)),
    "ConvLSTM1D": (
        (3, 6, 2), _one("ConvLSTM1D", filters=2, kernel_size=3, recurrent_activation="sigmoid"),
    ),
    "ConvLSTM2D": (
        (3, 6, 6, 2), _one("ConvLSTM2D", filters=2, kernel_size=3, recurrent_activation="sigmoid"),
    ),
    "Cropping1D": (SEQUENCE, _one("Cropping1D", cropping=(1, 2))),
    "Cropping2D": (IMAGE, _one("Cropping2D", cropping=((1, 2), (0, 1)))),
    "Cropping3D": (VOLUME, _one("Cropping3D", cropping=1)),
    "Dense": (VECTOR, _one("Dense", units=4, activation="relu")),
    "DepthwiseConv1D": (SEQUENCE, _one("DepthwiseConv1D", kernel_size=3)),
    "DepthwiseConv2D": (IMAGE, _one("DepthwiseConv2D", kernel_size=3, depth_multiplier=2)),
    "Discretization": (VECTOR, _one("Discretization", bin_boundaries=[-1.0, 0.0, 0.5])),
    "Dropout": (IMAGE, _one("Dropout", rate=0.5)),
    "ELU": (IMAGE, _one("ELU", alpha=0.7)),
    "EinsumDense": (SEQUENCE, _one("EinsumDense", equation="abc,cd->abd", output_shape=(None, 5),
                                   bias_axes="d")),
    "Embedding": (IDS, _one("Embedding", input_dim=10, output_dim=4)),
    "Equalization": (COLOUR, _one("Equalization")),
    "Flatten": (IMAGE, _one("Flatten")),
    "GRU": (SEQUENCE, _one("GRU", units=3, return_sequences=True)),
    "GRU, reset before": (SEQUENCE, _one("GRU", units=3, reset_after=False)),
    "GaussianDropout": (IMAGE, _one("GaussianDropout", rate=0.5)),
    "GaussianNoise": (IMAGE, _one("GaussianNoise", stddev=0.5)),
    "GlobalAveragePooling1D": (SEQUENCE, _one("GlobalAveragePooling1D")),
    "GlobalAveragePooling2D": (IMAGE, _one("GlobalAveragePooling2D", keepdims=True)),
    "GlobalAveragePooling3D": (VOLUME, _one("GlobalAveragePooling3D")),
    "GlobalMaxPooling1D": (SEQUENCE, _one("GlobalMaxPooling1D")),
    "GlobalMaxPooling2D": (IMAGE, _one("GlobalMaxPooling2D")),
    "GlobalMaxPooling3D": (VOLUME, _one("GlobalMaxPooling3D")),
    "GroupNormalization": (IMAGE, _one("GroupNormalization", groups=2)),
    "GroupQueryAttention": (SEQUENCE, _query_heads),
    "Identity": (IMAGE, _one("Identity")),
    "LSTM": (SEQUENCE, _one("LSTM", units=3, return_sequences=True)),
    "LayerNormalization": (SEQUENCE, _one("LayerNormalization")),
    "LeakyReLU": (IMAGE, lambda L: L.LeakyReLU(0.1, name="it")),
    "LocallyConnected1D": (SEQUENCE, _one("LocallyConnected1D", filters=3, kernel_size=3)),
    "LocallyConnected2D": (IMAGE, _one("LocallyConnected2D", filters=3, kernel_size=3)),
    "Masking": (SEQUENCE, _one("Masking", mask_value=0.0)),
    "MaxPooling1D": (SEQUENCE, _one("MaxPooling1D")),
    "MaxPooling2D": (IMAGE, _one("MaxPooling2D", pool_size=3, strides=2, padding="same")),
    "MaxPooling3D": (VOLUME, _one("MaxPooling3D")),
    "MelSpectrogram": ((256,), _one("MelSpectrogram", fft_length=64, num_mel_bins=8,
                                    sequence_stride=32, sampling_rate=2000, max_freq=1000)),
    "MultiHeadAttention": (SEQUENCE, _heads),
    "Normalization": (
        COLOUR, _one("Normalization", mean=[1.0, 2.0, 3.0], variance=[4.0, 5.0, 6.0]),
    ),
    "PReLU": (IMAGE, _one("PReLU", shared_axes=[1, 2])),
    "Permute": (IMAGE, _one("Permute", dims=(3, 1, 2))),
    "RMSNormalization": (SEQUENCE, _one("RMSNormalization")),
    "RandomBrightness": (COLOUR, _one("RandomBrightness", factor=0.2)),
    "RandomContrast": (COLOUR, _one("RandomContrast", factor=0.2)),
    "RandomCrop": (COLOUR, _one("RandomCrop", height=8, width=8)),
    "RandomErasing": (COLOUR, _one("RandomErasing")),
    "RandomFlip": (COLOUR, _one("RandomFlip")),
    "RandomGrayscale": (COLOUR, _one("RandomGrayscale")),
    "RandomHeight": (COLOUR, _one("RandomHeight", factor=0.2)),
    "RandomHue": (COLOUR, _one("RandomHue", factor=0.2)),
    "RandomInvert": (COLOUR, _one("RandomInvert")),
    "RandomPerspective": (COLOUR, _one("RandomPerspective")),
    "RandomPosterization": (COLOUR, _one("RandomPosterization", factor=4)),
    "RandomRotation": (COLOUR, _one("RandomRotation", factor=0.2)),
    "RandomSaturation": (COLOUR, _one("RandomSaturation", factor=0.2)),
    "RandomSharpness": (COLOUR, _one("RandomSharpness", factor=0.2)),
    "RandomShear": (COLOUR, _one("RandomShear", x_factor=0.2)),
    "RandomTranslation": (COLOUR, _one("RandomTranslation", height_factor=0.2, width_factor=0.2)),
    "RandomWidth": (COLOUR, _one("RandomWidth", factor=0.2)),
    "RandomZoom": (COLOUR, _one("RandomZoom", height_factor=0.2)),
    "ReLU": (IMAGE, _one("ReLU", max_value=1.0, threshold=0.1)),
    "RepeatVector": (VECTOR, _one("RepeatVector", n=3)),
    "Rescaling": (COLOUR, _one("Rescaling", scale=0.5, offset=-1.0)),
    "Reshape": (IMAGE, _one("Reshape", target_shape=(4, -1))),
    "Resizing": (COLOUR, _one("Resizing", height=20, width=9)),
    "Resizing, cropping": (COLOUR, _one("Resizing", height=6, width=9, crop_to_aspect_ratio=True)),
    "STFTSpectrogram": ((256,), lambda L: lambda x: L.STFTSpectrogram(
        frame_length=64, frame_step=32, fft_length=64, name="it")(L.Reshape((256, 1))(x))),
    "SeparableConv1D": (SEQUENCE, _one("SeparableConv1D", filters=3, kernel_size=3)),
    "SeparableConv2D": (IMAGE, _one("SeparableConv2D", filters=3, kernel_size=3)),
    "SimpleRNN": (SEQUENCE, _one("SimpleRNN", units=3)),
    "Softmax": (SEQUENCE, _one("Softmax", axis=1)),
    "Solarization": (COLOUR, _one("Solarization")),
    "SpatialDropout1D": (SEQUENCE, _one("SpatialDropout1D", rate=0.5)),
    "SpatialDropout2D": (IMAGE, _one("SpatialDropout2D", rate=0.5)),
    "SpatialDropout3D": (VOLUME, _one("SpatialDropout3D", rate=0.5)),
    "SpectralNormalization": (
        IMAGE, _around("SpectralNormalization", "Conv2D", {"filters": 3, "kernel_size": 3}),
    ),
    "StackedRNNCells": (
        SEQUENCE, lambda L: L.RNN([L.LSTMCell(3), L.GRUCell(2)], name="it"),
    ),
    "ThresholdedReLU": (IMAGE, _one("ThresholdedReLU", theta=0.5)),
    "TimeDistributed": (
        (3, *IMAGE), _around("TimeDistributed", "Conv2D", {"filters": 3, "kernel_size": 3}),
    ),
    "UnitNormalization": (SEQUENCE, _one("UnitNormalization")),
    "UpSampling1D": (SEQUENCE, _one("UpSampling1D")),
    "UpSampling2D": (IMAGE, _one("UpSampling2D", interpolation="bilinear")),
    "UpSampling2D, nearest": (IMAGE, _one("UpSampling2D", size=(2, 3))),
    "UpSampling3D": (VOLUME, _one("UpSampling3D")),
    "ZeroPadding1D": (SEQUENCE, _one("ZeroPadding1D", padding=(1, 2))),
    "ZeroPadding2D": (IMAGE, _one("ZeroPadding2D", padding=((1, 2), (0, 1)))),
    "ZeroPadding3D": (VOLUME, _one("ZeroPadding3D")),
}  # fmt: skip
"""By name: the shape of a sample, and how the layer is made of `keras.layers`."""
LAYERS |= {
    f"activation {name}": (SEQUENCE, _one("Activation", activation=name)) for name in ACTIVATIONS
}
_FRONT = {1: "Dense", 2: "Conv1D", 3: "Conv2D", 4: "Conv3D"}


def network(keras, name):
    """Return a functional model: a convolution or dense layer, and the layer behind it.

    Layers for colour images and for whole numbers come first, and the convolution behind them.

    Raises:
        AttributeError: Or ValueError, if this Keras has no such layer.
    """
    shape, build = LAYERS[name]
    layers = keras.layers
    if shape == IDS:
        image = keras.Input((5,), dtype="int32", name="image")
        return _filled(keras.Model(image, build(layers)(image), name="net"))
    image = keras.Input(shape, name="image")
    if shape == COLOUR:
        made = build(layers)(image)
        made = layers.Conv2D(3, 3, padding="same", activation="relu", name="front")(made)
    else:
        size = {} if len(shape) == 1 else {"kernel_size": 1}
        front = getattr(layers, _FRONT[len(shape)])
        made = front(shape[-1], activation="relu", name="front", **size)(image)
        made = build(layers)(made)
    return _filled(keras.Model(image, made, name="net"))


def _filled(model):
    """Give every weight a value that it does not begin with."""
    rng = np.random.default_rng(0)
    values = []
    for weight in model.get_weights():
        value = np.asarray(weight)
        if value.dtype.kind == "f":
            value = np.abs(rng.normal(0.3, 0.3, value.shape)).astype(value.dtype) + 0.05
        values.append(value)
    model.set_weights(values)
    return model


def samples(name, count=4):
    """Return inputs for a network, (n, ...)."""
    shape = LAYERS[name][0]
    rng = np.random.default_rng(1)
    if shape == IDS:
        return rng.integers(0, 10, (count, 5)).astype(np.int32)
    if shape == COLOUR:
        return rng.uniform(0, 255, (count, *shape)).astype(np.float32)
    return rng.normal(0, 1, (count, *shape)).astype(np.float32)
