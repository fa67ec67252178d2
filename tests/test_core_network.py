"""The walk through a network: whose inputs a layer is fitted to, and what is kept in the end."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from dsconvert.converter.core import fidelity
from dsconvert.converter.core.choose import best_fit
from dsconvert.converter.core.errors import InputError
from dsconvert.converter.core.fit import FitOptions, fit
from dsconvert.converter.core.gathering import moment_bytes
from dsconvert.converter.core.lanes import Recipe, Settings
from dsconvert.converter.core.moments import Moments
from dsconvert.converter.core.patches import gather
from dsconvert.converter.core.sequential import fit_network, observe_network
from dsconvert.converter.core.types import Choice
from numerics import convolve
from numpy_network import Network, layer, pool, relu, softmax

CLEAN, SEQUENTIAL = Recipe(), Recipe(sequential=True)
SHORTCUTS = Recipe(sequential=True, shortcuts=True)
MATCHED = Recipe(sequential=True, match_variance=True)

FITTED, HELD_OUT = 40, 10
PIXELS = 30
# Enough patches for every position of every image, so that nothing is left to chance.
ALL = Settings(patches=FITTED * PIXELS)
ONE = Choice(pairs=1, order="depthwise-first")


@pytest.fixture(scope="module")
def images():
    """Smooth images (n, 6, 5, 4)."""
    noise = np.random.default_rng(0).normal(size=(FITTED + HELD_OUT, 8, 7, 4))
    x = sum(noise[:, a : a + 6, b : b + 5] for a in range(3) for b in range(3)) / 3
    return x.astype(np.float32)


def classifier(seed=1):
    layers = {
        "a": layer("a", seed, (3, 3, 4, 6)),
        "b": layer("b", seed + 1, (3, 3, 6, 8)),
        "head": layer("head", seed + 2, (1, 1, 8, 5), "head"),
    }
    calls = [("a", 0), (relu, 1), ("b", 2), (relu, 3), (pool, 4), ("head", 5), (softmax, 6)]
    return Network(layers, calls)


def run(network, images, *recipes, settings=ALL, choices=None):
    convs = [name for name, site in network.layers.items() if site.role == "conv"]
    choices = choices or dict.fromkeys(convs, ONE)
    lanes = fit_network(network, [images], HELD_OUT, choices, recipes, settings)
    return lanes, {lane.recipe: lane for lane in lanes}


def statistics(site, x, y):
    """Moments of all patches of x against outputs y."""
    where = tuple(axis.ravel() for axis in np.indices(y.shape[:3]))
    patches = gather(x, site.spec, where)
    moments = Moments(patches[0].size, y.shape[3])
    moments.update(patches.reshape(len(patches), -1), y.reshape(-1, y.shape[3]))
    return moments.statistics()


def assert_same_factors(factors, expected):
    # The moments are float32 sums in another order, and the solver amplifies by the ridge's 1e3.
    np.testing.assert_allclose(factors.kernel(), expected.kernel(), atol=1e-3)
    assert factors.data_error == pytest.approx(expected.data_error, abs=1e-4)


def test_each_recipe_fits_to_its_own_inputs(images):
    network = classifier()
    _, lanes = run(network, images, CLEAN, SEQUENTIAL)
    clean, own = lanes[CLEAN], lanes[SEQUENTIAL]
    trained = network.values(images[:FITTED])
    drifted = network.values(images[:FITTED], {"a": own.weights["a"]})
    b = network.layers["b"]

    np.testing.assert_array_equal(clean.factors["a"].kernel(), own.factors["a"].kernel())
    assert_same_factors(
        clean.factors["b"], fit(statistics(b, trained[2], trained[3]), b.kernel, ONE.order, 1)
    )
    assert_same_factors(
        own.factors["b"], fit(statistics(b, drifted[2], trained[3]), b.kernel, ONE.order, 1)
    )
    assert np.abs(own.factors["b"].kernel() - clean.factors["b"].kernel()).max() > 1e-2


def test_best_lane_on_held_out_images_comes_first(images):
    network = classifier()
    lanes, _ = run(network, images, CLEAN, SEQUENTIAL)
    unseen = images[FITTED:]
    expected = network.values(unseen)[7]
    harms = [fidelity.harm([expected], [network.values(unseen, lane.weights)[7]]) for lane in lanes]

    assert harms == sorted(harms)
    assert harms[0] < harms[1]
    assert [lane.harm for lane in lanes] == pytest.approx(harms, rel=1e-4)


def test_held_out_images_are_not_fitted_to(images):
    changed = images.copy()
    changed[FITTED:] *= -3
    settings = Settings(patches=FITTED * PIXELS, refit_head=False)
    _, before = run(classifier(), images, SEQUENTIAL, settings=settings)
    _, after = run(classifier(), changed, SEQUENTIAL, settings=settings)

    for name in "ab":
        np.testing.assert_array_equal(
            before[SEQUENTIAL].factors[name].kernel(), after[SEQUENTIAL].factors[name].kernel()
        )
    assert before[SEQUENTIAL].harm != after[SEQUENTIAL].harm


def test_unchosen_layers_are_left_alone(images):
    _, lanes = run(classifier(), images, SEQUENTIAL, choices={"b": ONE})

    assert list(lanes[SEQUENTIAL].factors) == ["b"]
    assert "a" not in lanes[SEQUENTIAL].weights


def test_nothing_chosen_harms_nothing(images):
    network = Network({"a": layer("a", 1, (3, 3, 4, 6))}, [("a", 0)])
    lanes = fit_network(network, [images], HELD_OUT, {}, [CLEAN], ALL)

    assert (lanes[0].harm, lanes[0].weights) == (0, {})


def test_head_is_refitted_only_where_it_helps(images):
    kept = []
    for seed in range(1, 31, 3):
        _, refitted = run(classifier(seed), images, CLEAN)
        _, left = run(
            classifier(seed), images, CLEAN, settings=Settings(ALL.patches, refit_head=False)
        )
        assert left[CLEAN].refitted == []
        assert refitted[CLEAN].harm <= left[CLEAN].harm * (1 + 1e-6)
        kept.append(refitted[CLEAN].refitted == ["head"])

    assert any(kept)


def test_head_that_overfits_is_not_kept(images, monkeypatch):
    # No prior at all, and six images for nine unknowns: perfect on those, poor on others.
    monkeypatch.setattr("dsconvert.converter.core.sequential.HEAD_RIDGES", (1e-12,))
    few = np.concatenate([images[:6], images[FITTED:]])
    _, lanes = run(classifier(), few, CLEAN)

    assert lanes[CLEAN].refitted == []


def shared_network(seed=1):
    return Network(
        {"s": layer("s", seed, (3, 3, 4, 4))}, [("s", 0), (relu, 1), ("s", 2), (pool, 3)]
    )


def test_shared_layer_is_fitted_once_to_all_its_calls(images):
    network = shared_network()
    _, lanes = run(network, images, CLEAN)
    s, values = network.layers["s"], network.values(images[:FITTED])
    both = statistics(
        s,
        np.concatenate([values[0], values[2]]).astype(np.float32),
        np.concatenate([values[1], values[3]]),
    )

    assert list(lanes[CLEAN].factors) == ["s"]
    assert_same_factors(lanes[CLEAN].factors["s"], fit(both, s.kernel, ONE.order, 1))


def residual_network(normed=False):
    """b's output is added to a's: x → a → (relu → b) + a."""
    layers = {
        "a": layer("a", 1, (3, 3, 4, 6)),
        "b": layer("b", 2, (3, 3, 6, 6), normed=normed, bias=not normed, beside=1),
    }
    return Network(layers, [("a", 0), (relu, 1), ("b", 2), (np.add, 3, 1)])


@pytest.mark.parametrize("normed", [False, True])
def test_a_sum_is_aimed_at_as_a_whole(images, normed):
    network = residual_network(normed)
    _, lanes = run(network, images, SEQUENTIAL, SHORTCUTS)
    lane, plain = lanes[SHORTCUTS], lanes[SEQUENTIAL]
    b = network.layers["b"]
    trained = network.values(images[:FITTED])
    drifted = network.values(images[:FITTED], {"a": lane.weights["a"]})
    gain = b.norm.gain if normed else 1.0
    # Before the norm, b has to make up for what a lost: its own output plus the loss over the gain.
    mean = b.norm.mean if normed else 0.0
    own = trained[3] / gain + mean
    owed = own + (trained[1] - drifted[1]) / gain
    weight = gain**2 * np.ones(6)

    for factors, aim in ((lane.factors["b"], owed), (plain.factors["b"], own)):
        expected = fit(
            statistics(b, drifted[2].astype(np.float32), aim),
            b.kernel,
            ONE.order,
            1,
            output_weight=weight,
        )
        assert_same_factors(factors, expected)
    assert lane.harm < plain.harm


def test_biasless_layer_gives_its_bias_to_the_norm(images):
    network = residual_network(normed=True)
    _, lanes = run(network, images, SEQUENTIAL)
    weights, b = lanes[SEQUENTIAL].weights["b"], network.layers["b"]
    trained = network.values(images[:FITTED])[3]
    rewritten = network.values(images[:FITTED], lanes[SEQUENTIAL].weights)[3]

    assert weights.bias is None
    assert lanes[SEQUENTIAL].factors["b"].bias is None
    np.testing.assert_array_equal(weights.norm.variance, b.norm.variance)
    np.testing.assert_allclose(rewritten.mean((0, 1, 2)), trained.mean((0, 1, 2)), atol=1e-5)


def test_matched_norms_keep_mean_and_variance(images):
    network = residual_network(normed=True)
    _, lanes = run(network, images, MATCHED)
    trained = network.values(images[:FITTED])[3]
    rewritten = network.values(images[:FITTED], lanes[MATCHED].weights)[3]
    axes = (0, 1, 2)

    np.testing.assert_allclose(rewritten.mean(axes), trained.mean(axes), atol=1e-5)
    np.testing.assert_allclose(rewritten.var(axes), trained.var(axes), rtol=1e-4)


def test_shortcuts_are_refitted_to_what_they_get(images):
    layers = {
        "a": layer("a", 1, (3, 3, 4, 6)),
        "one": layer("one", 2, (1, 1, 6, 5), "shortcut"),
    }
    network = Network(layers, [("a", 0), ("one", 1)])
    _, lanes = run(network, images, SEQUENTIAL, SHORTCUTS)
    unseen = images[:FITTED]
    expected = network.values(unseen)[2]

    def error(recipe):
        return np.linalg.norm(network.values(unseen, lanes[recipe].weights)[2] - expected)

    assert lanes[SEQUENTIAL].refitted == []
    assert lanes[SHORTCUTS].refitted == ["one"]
    assert error(SHORTCUTS) < error(SEQUENTIAL)


def test_observing_shows_the_moments_of_each_convolution(images):
    network = shared_network()
    seen = []
    every = Settings(patches=len(images) * PIXELS)
    observe_network(network, [images], every, lambda site, stats: seen.append((site, stats)))
    (site, (stats,)) = seen[0]
    values = network.values(images)
    both = statistics(
        site,
        np.concatenate([values[0], values[2]]).astype(np.float32),
        np.concatenate([values[1], values[3]]),
    )

    assert len(seen) == 1
    assert stats.count == both.count == 2 * len(images) * PIXELS
    np.testing.assert_allclose(stats.cov, both.cov, atol=1e-4)
    np.testing.assert_allclose(stats.cross, both.cross, atol=1e-4)


def test_a_fixed_batch_is_kept_to(images):
    network = classifier()
    _, free = run(network, images, SEQUENTIAL)
    network.batch_size = 10
    _, fixed = run(network, images, SEQUENTIAL)

    for name in "ab":
        assert_same_factors(fixed[SEQUENTIAL].factors[name], free[SEQUENTIAL].factors[name])


@pytest.mark.parametrize("pairs", [1, 9])
def test_layer_too_wide_for_its_memory_is_fitted_in_blocks(images, pairs):
    network = Network({"a": layer("a", 1, (3, 3, 4, 12))}, [("a", 0)])
    a, choices = network.layers["a"], {"a": Choice(pairs=pairs)}
    # Half of it takes the moments of two channels of nine taps, and not those of three.
    little = Settings(patches=FITTED * PIXELS, memory=2 * moment_bytes(18))
    _, lanes = run(network, images, SEQUENTIAL, settings=little, choices=choices)
    factors = lanes[SEQUENTIAL].factors["a"]
    y = network.values(images[:FITTED])[1]
    rewritten = network.values(images[:FITTED], lanes[SEQUENTIAL].weights)[1]

    assert factors.order == "depthwise-first"
    assert factors.notes == ("fitted in 2 blocks of channels: too wide for one covariance",)
    np.testing.assert_allclose(rewritten.mean((0, 1, 2)), y.mean((0, 1, 2)), atol=1e-5)
    for block in (slice(0, 2), slice(2, 4)):
        part = replace(a, spec=msgspec.structs.replace(a.spec, in_channels=2))
        x = images[:FITTED, ..., block]
        share = convolve(x, a.kernel[:, :, block], a.spec)
        stats = statistics(part, x, share)
        own = fit(stats, a.kernel[:, :, block], "depthwise-first", pairs)
        np.testing.assert_allclose(factors.kernel()[:, :, block], own.kernel(), atol=1e-3)
    if pairs == 9:
        assert factors.data_error < 1e-3

    with pytest.raises(InputError, match="a: a pointwise-first fit of 4 channels"):
        run(
            network,
            images,
            CLEAN,
            settings=little,
            choices={"a": Choice(pairs=1, order="pointwise-first")},
        )


def test_auto_takes_the_lower_error(images):
    network = Network({"a": layer("a", 1, (3, 3, 4, 4))}, [("a", 0)])
    a, values = network.layers["a"], network.values(images[:FITTED])
    stats = statistics(a, values[0], values[1])
    errors = {
        order: fit(stats, a.kernel, order, 1).data_error
        for order in ("depthwise-first", "pointwise-first")
    }

    assert best_fit(stats, a, Choice(pairs=1), FitOptions()).order == min(errors, key=errors.get)
    for order in errors:
        assert best_fit(stats, a, Choice(pairs=1, order=order), FitOptions()).order == order
