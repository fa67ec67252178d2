"""A network in plain numpy that the fit can walk through, so that the walk is tested on its own."""

from contextlib import contextmanager

import numpy as np
import pytest
from numerics import convolve

from dsconvert.converter.core.fitting.moments import Moments
from dsconvert.converter.core.fitting.patches import gather
from dsconvert.converter.core.network.fit_network import fit_network
from dsconvert.converter.core.network.fit_state import FitSettings
from dsconvert.converter.core.stages import Norm, Site, Weights
from dsconvert.converter.core.types import Choice, ConvSpec


def relu(x):
    return np.maximum(x, 0)


def pool(x):
    return x.mean(axis=(1, 2))


def softmax(x):
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


class Network:
    """Calls in a row: value 0 is the input, call i makes value i + 1, the last one is the output.

    Args:
        layers: Sites by name, without what depends on their calls. A head reads (n, F).
        calls: (the name of a layer or a function of arrays, *the values it reads).
        batch_size: The only batch it takes, or None.
    """

    inputs = (0,)

    def __init__(self, layers, calls, batch_size=None):
        self.layers, self.calls, self.batch_size = layers, calls, batch_size
        self.trained = {
            name: Weights(site.kernel, site.bias, site.norm) for name, site in layers.items()
        }
        self.current = dict(self.trained)
        at = [i for i, (what, *_) in enumerate(calls) if isinstance(what, str)]
        self.cuts = [0, *at, len(calls)]
        self.sites = (None, *map(self._site, at))
        self.outputs = (len(calls),)

    def _site(self, index):
        name, reads = self.calls[index][:2]
        calls = [i for i, call in enumerate(self.calls) if call[0] == name]
        fixed = self.layers[name]
        return Site(
            name=name,
            role=fixed.role,
            spec=fixed.spec,
            kernel=fixed.kernel,
            bias=fixed.bias,
            reads=reads,
            norm=fixed.norm,
            beside=fixed.beside,
            call=calls.index(index),
            calls=len(calls),
        )

    def live_after(self, stage):
        cut = self.cuts[stage + 1]
        needed = {value for _, *reads in self.calls[cut:] for value in reads} | set(self.outputs)
        return tuple(sorted(value for value in needed if value <= cut))

    @contextmanager
    def using(self, stage, weights):
        if weights is not None:
            self.current[self.sites[stage].name] = weights
        yield
        self.current = dict(self.trained)

    def run(self, stage, values, last=None):
        assert self.batch_size in (None, *(len(array) for array in values.values()))
        last = stage if last is None else last
        made = self.compute(values, self.cuts[stage], self.cuts[last + 1])
        return {v: made[v].astype(np.float32) for v in self.live_after(last) if v not in values}

    def compute(self, values, start, stop):
        values = dict(values)
        for index in range(start, stop):
            what, *reads = self.calls[index]
            arrays = [values[value] for value in reads]
            values[index + 1] = (
                self._call(what, arrays[0]) if isinstance(what, str) else what(*arrays)
            )
        return values

    def _call(self, name, x):
        weights, fixed = self.current[name], self.layers[name]
        if fixed.role == "head":
            return x @ weights.kernel[0, 0] + weights.bias
        y = convolve(x, weights.kernel, fixed.spec, weights.bias)
        if fixed.norm is None:
            return y
        norm, new = fixed.norm, weights.norm or fixed.norm
        return (y - new.mean) * norm.gain * np.sqrt(norm.variance / new.variance)

    def values(self, x, weights=None):
        """All values for images x, with the given weights for the layers that they name."""
        self.current = self.trained | (weights or {})
        made = self.compute({0: x}, 0, len(self.calls))
        self.current = dict(self.trained)
        return made


def layer(name, seed, shape, role="conv", *, bias=True, normed=False, beside=None):
    """A trained layer with random weights."""
    rng = np.random.default_rng(seed)
    kh, kw, C, N = shape
    norm = None
    if normed:
        gain, mean, variance = rng.uniform(0.5, 2, N), rng.normal(size=N), rng.uniform(0.5, 2, N)
        norm = Norm(gain, mean, variance)
    return Site(
        name=name,
        role=role,
        spec=ConvSpec(
            name=name,
            kernel_size=(kh, kw),
            padding="same",
            in_channels=C,
            out_channels=N,
            input_sizes=((6, 5),),
        ),
        kernel=rng.normal(size=shape) / np.sqrt(kh * kw * C),
        bias=rng.normal(size=N) if bias else None,
        reads=0,
        norm=norm,
        beside=beside,
    )


FITTED, HELD_OUT = 40, 10
PIXELS = 30
EVERYTHING = FitSettings(patches=FITTED * PIXELS)
"""Every position of every image, so that nothing is left to chance."""
ONE = Choice(pairs=1, order="depthwise-first")


def smooth_images():
    """(50, 6, 5, 4) float32 whose neighbours are alike."""
    noise = np.random.default_rng(0).normal(size=(FITTED + HELD_OUT, 8, 7, 4))
    x = sum(noise[:, a : a + 6, b : b + 5] for a in range(3) for b in range(3)) / 3
    return x.astype(np.float32)


def fit_strategies(network, images, *strategies, settings=EVERYTHING, choices=None):
    """The fit runs by strategy, best first; each convolution gets one pair by default."""
    convs = [name for name, site in network.layers.items() if site.role == "conv"]
    choices = choices or dict.fromkeys(convs, ONE)
    fit_runs = fit_network(network, [images], HELD_OUT, choices, strategies, settings)
    return {fit_run.strategy: fit_run for fit_run in fit_runs}


def statistics(site, x, y):
    """Moments of all patches of x against outputs y."""
    where = tuple(axis.ravel() for axis in np.indices(y.shape[:3]))
    patches = gather(x, site.spec, where)
    moments = Moments(patches[0].size, y.shape[3])
    moments.update(patches.reshape(len(patches), -1), y.reshape(-1, y.shape[3]))
    return moments.statistics()


def assert_same_factors(factors, expected):
    """As near as float32 sums in another order, amplified by the ridge's 1e3, can be."""
    np.testing.assert_allclose(factors.kernel(), expected.kernel(), atol=1e-3)
    assert factors.data_error == pytest.approx(expected.data_error, abs=1e-4)


def classifier(seed=1):
    """Two convolutions, pooled, and a dense layer with a softmax; value 7 is the output."""
    layers = {
        "a": layer("a", seed, (3, 3, 4, 6)),
        "b": layer("b", seed + 1, (3, 3, 6, 8)),
        "head": layer("head", seed + 2, (1, 1, 8, 5), "head"),
    }
    calls = [("a", 0), (relu, 1), ("b", 2), (relu, 3), (pool, 4), ("head", 5), (softmax, 6)]
    return Network(layers, calls)


def shared_network():
    """One convolution called twice: value 1 and value 3."""
    return Network({"s": layer("s", 1, (3, 3, 4, 4))}, [("s", 0), (relu, 1), ("s", 2), (pool, 3)])
