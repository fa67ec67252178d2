"""The rewrite of Keras models computes what its factors say."""

import keras
import numpy as np
from keras import layers
from numerics import PairNumerics, plan_of

from dsconvert.converter.rewrite import rewrite


class TestKeras(PairNumerics):
    def build(self, cases):
        image = keras.Input((None, None, 3))
        outputs = []
        for case in cases:
            spec = case.spec
            layer = layers.Conv2D(
                spec.out_channels,
                spec.kernel_size,
                strides=spec.strides,
                dilation_rate=spec.dilation,
                padding=spec.padding,
                use_bias=spec.use_bias,
                activation=case.activation,
                name=spec.name,
            )
            outputs.append(layer(image))
            layer.set_weights([case.kernel] if case.bias is None else [case.kernel, case.bias])
        return keras.Model(image, outputs)

    def rewrite(self, model, choice):
        names = [layer.name for layer in model.layers[1:]]
        result = rewrite(model, plan=plan_of(names, choice))
        assert set(result.report.rewritten) == set(names)
        return result.model

    def run(self, model, x):
        return [np.asarray(output) for output in model(x, training=False)]
