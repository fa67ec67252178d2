"""Functions of one number that TFLite has no operator for, by those that it has.

It has sin, cos, atan2, exp, log and a GELU, whose inside is erf. The import of ONNX files draws
the same forms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

_SMALL, _ONE = 1e-6, 9.0
"""Below which erf is a straight line in float32, and beyond which it is 1."""
_ALPHA, _SCALE = 1.6732632423543772, 1.0507009873554805
"""Of SELU."""
_CUBIC, _FLAT = 0.0894, 2.25
"""erf(x) is tanh(2/√π·(x + 0.0894·x³)) within 4e-4, and 1 within 1.5e-3 beyond 2.25."""

Call = Callable[..., Any]


def elementwise_calls(tf: Any, *, static: bool = False) -> Iterator[tuple[Any, str, Call]]:
    """Yield modules, names of functions in them, and what to call instead.

    Args:
        tf: TensorFlow, whose own functions are called for what is no real number.
        static: Whether activations are quantized: then nothing is divided by what may round to 0,
            and no exponential of large values takes the steps of small ones.
    """
    forms: dict[str, Callable[[Any], Any]] = {
        "sinh": lambda x: (tf.exp(x) - tf.exp(-x)) / 2,
        "cosh": lambda x: (tf.exp(x) + tf.exp(-x)) / 2,
        "tan": lambda x: tf.sin(x) / tf.cos(x),
        "asinh": lambda x: tf.sign(x) * tf.math.log(tf.abs(x) + tf.sqrt(x * x + 1)),
        "acosh": lambda x: tf.math.log(x + tf.sqrt(x * x - 1)),
        "atanh": lambda x: (tf.math.log(1 + x) - tf.math.log(1 - x)) / 2,
        "atan": lambda x: tf.math.atan2(x, tf.ones_like(x)),
        "asin": lambda x: tf.math.atan2(x, tf.sqrt(1 - x * x)),
        "acos": lambda x: tf.math.atan2(tf.sqrt(1 - x * x), x),
        "erf": lambda x: (_coarse_erf if static else _erf)(tf, x),
    }
    if static:
        forms["softplus"] = lambda x: _softplus(tf, x)
        forms["log_sigmoid"] = lambda x: -_softplus(tf, -x)
        yield tf.nn, "selu", _of_numbers(tf, tf.nn.selu, lambda x: _selu(tf, x))
    for name, form in forms.items():
        yield tf.math, name, _of_numbers(tf, getattr(tf.math, name), form)


def _of_numbers(tf: Any, given: Call, form: Callable[[Any], Any]) -> Call:
    def called(x: Any, name: str | None = None) -> Any:
        x = tf.convert_to_tensor(x)
        return form(x) if x.dtype.is_floating else given(x, name)

    return called


def _erf(tf: Any, x: Any) -> Any:
    """Return 2·gelu(z)/z − 1 of z = √2·x, and 2x/√π where z divides by nearly nothing."""
    z = tf.clip_by_value(x * math.sqrt(2), -_ONE, _ONE)
    near = tf.abs(z) < _SMALL
    safe = tf.where(near, tf.ones_like(z), z)
    far = 2 * tf.nn.gelu(safe, approximate=False) / safe - 1
    return tf.where(near, x * (2 / math.sqrt(math.pi)), far)


def _softplus(tf: Any, x: Any) -> Any:
    """Return log(1 + eˣ), also of a Mish, of exponentials of at most 1."""
    return tf.nn.relu(x) + tf.math.log(1 + tf.exp(tf.abs(x) * -1.0))


def _selu(tf: Any, x: Any) -> Any:
    """Return scale·(x, or alpha·(eˣ − 1) below 0) by an ELU, whose exponential is inside."""
    return _SCALE * _ALPHA * tf.nn.elu(x) + _SCALE * (1 - _ALPHA) * tf.nn.relu(x)


def _coarse_erf(tf: Any, x: Any) -> Any:
    """Return erf within 1.5e-3, a fifth of a step in int8."""
    x = tf.clip_by_value(x, -_FLAT, _FLAT)
    slope = 2 / math.sqrt(math.pi)
    return tf.tanh(x * (slope + slope * _CUBIC * (x * x)))
