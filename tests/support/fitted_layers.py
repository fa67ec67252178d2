"""A layer, samples of its inputs, and their moments: what fits are tried on."""

import numpy as np

from dsconvert.converter.core.fitting.factorize import by_channel
from dsconvert.converter.core.fitting.moments import Statistics


def flat(kernel):
    """(kh, kw, C, N) as (D, N), channel by channel."""
    return by_channel(kernel, "depthwise-first").reshape(-1, kernel.shape[-1])


def exact(x, y):
    """The moments of all samples in float64."""
    centred_x, centred_y = x - x.mean(axis=0), y - y.mean(axis=0)
    few = 2 * len(x) < x.shape[1]
    return Statistics(
        cov=centred_x.T @ centred_x / len(x),
        cross=centred_x.T @ centred_y / len(x),
        mean_x=x.mean(axis=0),
        mean_y=y.mean(axis=0),
        var_y=y.var(axis=0),
        count=len(x),
        rows=(centred_x / np.sqrt(len(x))).astype(np.float32) if few else None,
    )


def layer(shape, seed, drift=0.0, kernel=None):
    """Samples x of correlated patches, the layer's outputs y on undrifted ones, and its kernel."""
    rng = np.random.default_rng(seed)
    D = shape[0] * shape[1] * shape[2]
    kernel = rng.normal(size=shape) if kernel is None else kernel
    x = rng.normal(size=(3 * D + 20, D)) @ rng.normal(size=(D, D)) + rng.normal(size=D)
    y = x @ flat(kernel) + rng.normal(size=shape[3])
    return x * (1 - drift * rng.uniform(size=D)) + drift * rng.normal(size=x.shape), y, kernel
