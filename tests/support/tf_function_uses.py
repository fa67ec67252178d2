"""Uses of TensorFlow's own functions in networks of tf.keras 2, which its files record by name.

`benchmarks/keras_files.py` writes the files with TensorFlow 2.13; they hold what was found to be
refused, or read as something else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

_RNG = np.random.default_rng(0)
IMAGE, SEQUENCE, VECTOR, COLOURS = (8, 8, 4), (6, 4), (5,), (8, 8, 3)
MATRIX, SQUARE = (4, 4), (3, 3)


def _c(*shape: int) -> Any:
    return _RNG.normal(0, 0.5, shape).astype("f4")


USES: dict[str, tuple[list[tuple[int, ...]], Callable[..., Any]]] = {
    "K_conv2d": ([IMAGE], lambda tf, x: tf.keras.backend.conv2d(x, _c(3, 3, 4, 2), padding="same")),
    "K_flatten": ([IMAGE], lambda tf, x: tf.keras.backend.batch_flatten(x)),
    "avg_pool3d": ([(4, 4, 4, 2)], lambda tf, x: tf.nn.avg_pool3d(x, 2, 2, "SAME")),
    "band": ([MATRIX], lambda tf, x: tf.linalg.band_part(x, 0, -1)),
    "band11": ([MATRIX], lambda tf, x: tf.linalg.band_part(x, 1, 1)),
    "channel_shuffle_dyn": (
        [IMAGE],
        lambda tf, x: tf.reshape(
            tf.transpose(tf.reshape(x, [tf.shape(x)[0], 8, 8, 2, 2]), [0, 1, 2, 4, 3]),
            [tf.shape(x)[0], 8, 8, 4],
        ),
    ),
    "cholesky": (
        [SQUARE],
        lambda tf, x: tf.linalg.cholesky(tf.matmul(x, x, transpose_b=True) + np.eye(3, dtype="f4")),
    ),
    "conv2d_pads": (
        [IMAGE],
        lambda tf, x: tf.nn.conv2d(x, _c(3, 3, 4, 2), 2, [[0, 0], [1, 1], [1, 1], [0, 0]]),
    ),
    "conv3d": ([(4, 4, 4, 2)], lambda tf, x: tf.nn.conv3d(x, _c(3, 3, 3, 2, 2), [1] * 5, "SAME")),
    "convolution": ([IMAGE], lambda tf, x: tf.nn.convolution(x, _c(3, 3, 4, 2), padding="SAME")),
    "cross": ([(5, 3), (5, 3)], lambda tf, x, y: tf.linalg.cross(x, y)),
    "det": ([SQUARE], lambda tf, x: tf.linalg.det(x)),
    "diag_part": ([MATRIX], lambda tf, x: tf.linalg.diag_part(x)),
    "fake_quant": ([IMAGE], lambda tf, x: tf.quantization.fake_quant_with_min_max_args(x, -2, 2)),
    "fake_quant_vars": (
        [IMAGE],
        lambda tf, x: tf.quantization.fake_quant_with_min_max_vars(x, -2.0, 2.0),
    ),
    "heads": (
        [SEQUENCE],
        lambda tf, x: tf.transpose(tf.reshape(x, (tf.shape(x)[0], -1, 2, 2)), [0, 2, 1, 3]),
    ),
    "image_gradients": ([IMAGE], lambda tf, x: tf.image.image_gradients(x)[0]),
    "inv": ([SQUARE], lambda tf, x: tf.linalg.inv(x + 5 * np.eye(3, dtype="f4"))),
    "l2_loss": ([VECTOR], lambda tf, x: x * tf.nn.l2_loss(x)),
    "l2n_dim": ([VECTOR], lambda tf, x: tf.compat.v1.nn.l2_normalize(x, dim=1)),
    "l2n_eps": ([VECTOR], lambda tf, x: tf.math.l2_normalize(x, axis=1, epsilon=1e-6)),
    "l2n_none": ([VECTOR], lambda tf, x: tf.math.l2_normalize(x)),
    "linspace_dyn": (
        [IMAGE],
        lambda tf, x: x + tf.linspace(-1.0, 1.0, tf.shape(x)[1])[:, None, None],
    ),
    "math_argsort_desc": (
        [VECTOR],
        lambda tf, x: tf.cast(tf.argsort(x, direction="DESCENDING"), tf.float32),
    ),
    "max_pool3d": ([(4, 4, 4, 2)], lambda tf, x: tf.nn.max_pool3d(x, 2, 2, "SAME")),
    "norm_all": ([VECTOR], lambda tf, x: x / tf.norm(x)),
    "norm_inf": ([VECTOR], lambda tf, x: tf.norm(x, ord=np.inf, axis=-1)),
    "one_hot_on": (
        [VECTOR],
        lambda tf, x: tf.one_hot(tf.cast(abs(x), tf.int32), 4, on_value=2.0, off_value=-1.0),
    ),
    "rank": ([VECTOR], lambda tf, x: x * tf.cast(tf.rank(x), tf.float32)),
    "reduce_none": ([SEQUENCE], lambda tf, x: x - tf.reduce_mean(x)),
    "rgb2yiq": ([COLOURS], lambda tf, x: tf.image.rgb_to_yiq(x)),
    "rgb2yuv": ([COLOURS], lambda tf, x: tf.image.rgb_to_yuv(x)),
    "shape_batch_reshape": ([IMAGE], lambda tf, x: tf.reshape(x, [tf.shape(x)[0], -1])),
    "shape_batch_reshape2": ([IMAGE], lambda tf, x: tf.reshape(x, [tf.shape(x)[0], 8, 32])),
    "shape_broadcast": (
        [SEQUENCE],
        lambda tf, x: tf.concat([tf.broadcast_to(_c(1, 1, 4), [tf.shape(x)[0], 1, 4]), x], 1),
    ),
    "shape_broadcast_like": ([SEQUENCE], lambda tf, x: x * tf.broadcast_to(_c(4), tf.shape(x))),
    "shape_cast_div": (
        [IMAGE],
        lambda tf, x: (
            tf.reduce_sum(x, [1, 2]) / tf.cast(tf.shape(x)[1] * tf.shape(x)[2], tf.float32)
        ),
    ),
    "shape_concat_tail": (
        [IMAGE],
        lambda tf, x: tf.reshape(x, tf.concat([tf.shape(x)[:-1], [2, 2]], 0)),
    ),
    "shape_fill": (
        [SEQUENCE],
        lambda tf, x: tf.concat([tf.fill([tf.shape(x)[0], 1, 4], 2.0), x], 1),
    ),
    "shape_hw_product": (
        [IMAGE],
        lambda tf, x: tf.reshape(x, [-1, tf.shape(x)[1] * tf.shape(x)[2], 4]),
    ),
    "shape_onehot_batch": ([SEQUENCE], lambda tf, x: tf.one_hot(tf.argmax(x, -1), tf.shape(x)[-1])),
    "shape_ones": ([SEQUENCE], lambda tf, x: tf.concat([tf.ones([tf.shape(x)[0], 1, 4]), x], 1)),
    "shape_range": (
        [SEQUENCE],
        lambda tf, x: x + tf.cast(tf.range(tf.shape(x)[1])[:, None], tf.float32),
    ),
    "shape_range3": (
        [SEQUENCE],
        lambda tf, x: x + tf.cast(tf.range(0, tf.shape(x)[1], 1)[:, None], tf.float32),
    ),
    "shape_resize_like": (
        [IMAGE, (16, 12, 4)],
        lambda tf, x, y: tf.image.resize(x, tf.shape(y)[1:3]),
    ),
    "shape_resize_list": (
        [IMAGE],
        lambda tf, x: tf.image.resize(x, [tf.shape(x)[1] * 2, tf.shape(x)[2] * 2]),
    ),
    "shape_resize_twice": ([IMAGE], lambda tf, x: tf.image.resize(x, tf.shape(x)[1:3] * 2)),
    "shape_scale": (
        [SEQUENCE],
        lambda tf, x: x / tf.math.sqrt(tf.cast(tf.shape(x)[-1], tf.float32)),
    ),
    "shape_size": ([VECTOR], lambda tf, x: x * tf.cast(tf.size(x) // tf.shape(x)[0], tf.float32)),
    "shape_slice": ([SEQUENCE], lambda tf, x: x[:, : tf.shape(x)[1] - 1]),
    "shape_slice_like": ([SEQUENCE, (3, 4)], lambda tf, x, y: x[:, : tf.shape(y)[1]]),
    "shape_split": ([IMAGE], lambda tf, x: tf.reshape(x, tf.concat([tf.shape(x)[:1], [64, 4]], 0))),
    "shape_stack": (
        [IMAGE],
        lambda tf, x: tf.reshape(x, tf.stack([tf.shape(x)[0], 64, tf.shape(x)[3]])),
    ),
    "shape_tfslice": ([IMAGE], lambda tf, x: tf.slice(x, [0, 1, 1, 0], [tf.shape(x)[0], 4, 4, 4])),
    "shape_tile": (
        [SEQUENCE],
        lambda tf, x: tf.concat([tf.tile(_c(1, 1, 4), [tf.shape(x)[0], 1, 1]), x], 1),
    ),
    "shape_tile_in": (
        [SEQUENCE, VECTOR],
        lambda tf, x, y: tf.concat([tf.tile(y[:, None, :], [1, tf.shape(x)[1], 1]), x], -1),
    ),
    "shape_unpack": (
        [IMAGE],
        lambda tf, x: (lambda b, h, w, c: tf.reshape(x, [b, h * w, c]))(
            *[tf.shape(x)[i] for i in range(4)]
        ),
    ),
    "shape_unstack": (
        [IMAGE],
        lambda tf, x: (lambda b, h, w, c: tf.reshape(x, [b, h * w, c]))(
            *tf.unstack(tf.shape(x), 4)
        ),
    ),
    "shape_zeros": ([SEQUENCE], lambda tf, x: tf.concat([tf.zeros([tf.shape(x)[0], 1, 4]), x], 1)),
    "shape_zeros_tuple": (
        [SEQUENCE],
        lambda tf, x: tf.concat([tf.zeros((tf.shape(x)[0], 1, 4)), x], 1),
    ),
    "silu_beta": ([VECTOR], lambda tf, x: tf.nn.silu(x, 2.0)),
    "sobel": ([IMAGE], lambda tf, x: tf.image.sobel_edges(x)),
    "sort_desc": ([VECTOR], lambda tf, x: tf.sort(x, direction="DESCENDING")),
    "trace": ([MATRIX], lambda tf, x: tf.linalg.trace(x)),
    "windows": (
        [IMAGE],
        lambda tf, x: tf.reshape(
            tf.transpose(tf.reshape(x, [-1, 2, 4, 2, 4, 4]), [0, 1, 3, 2, 4, 5]), [-1, 16, 4]
        ),
    ),
    "yuv2rgb": ([COLOURS], lambda tf, x: tf.image.yuv_to_rgb(x)),
    "mean_axis0": ([SEQUENCE], lambda tf, x: x - tf.reduce_mean(x, axis=0)),
    "mean_axis0_add": ([(3, 4)], lambda tf, x: x + tf.reduce_mean(x, axis=0)),
    "mean_axis0_mul": ([SQUARE], lambda tf, x: x * tf.reduce_max(x, axis=0)),
    "rank_bcast": ([(3, 4)], lambda tf, x: x * tf.reduce_mean(x, axis=[0, 1])),
    "rank_bcast2": ([(3, 4)], lambda tf, x: tf.reduce_mean(x, axis=[0, 1]) + x),
    "windows_back": (
        [IMAGE],
        lambda tf, x: (
            lambda w: tf.reshape(
                tf.transpose(tf.reshape(w * 2, [-1, 2, 2, 4, 4, 4]), [0, 1, 3, 2, 4, 5]),
                [-1, 8, 8, 4],
            )
        )(
            tf.reshape(
                tf.transpose(tf.reshape(x, [-1, 2, 4, 2, 4, 4]), [0, 1, 3, 2, 4, 5]), [-1, 4, 4, 4]
            )
        ),
    ),
    "windows_dyn": (
        [IMAGE],
        lambda tf, x: (
            lambda w: tf.reshape(
                tf.transpose(
                    tf.reshape(w * 2, [tf.shape(w)[0] // 4, 2, 2, 4, 4, 4]), [0, 1, 3, 2, 4, 5]
                ),
                [-1, 8, 8, 4],
            )
        )(
            tf.reshape(
                tf.transpose(tf.reshape(x, [-1, 2, 4, 2, 4, 4]), [0, 1, 3, 2, 4, 5]), [-1, 4, 4, 4]
            )
        ),
    ),
    "cumsum_both": ([SEQUENCE], lambda tf, x: tf.math.cumsum(x, 1, True, True)),
    "op_int": ([VECTOR], lambda tf, x: tf.cast(tf.cast(x * 10, tf.int32) // 3 % 5, tf.float32)),
    "cast_bool": ([VECTOR], lambda tf, x: tf.cast(tf.cast(x, tf.bool), tf.float32)),
}
"""By a name: the shapes of its inputs, and the function of TensorFlow and of them."""
