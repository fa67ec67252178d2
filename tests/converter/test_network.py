"""The walk through a network: whose inputs a layer is fitted to, and what is kept in the end."""

import numpy as np
import pytest
from numpy_network import (
    EVERYTHING,
    FITTED,
    HELD_OUT,
    ONE,
    PIXELS,
    Network,
    assert_same_factors,
    classifier,
    fit_strategies,
    layer,
    relu,
    shared_network,
    smooth_images,
    statistics,
)

from dsconvert.base import fidelity
from dsconvert.converter.core.fitting.fit import fit
from dsconvert.converter.core.network.fit_network import fit_network
from dsconvert.converter.core.network.fit_state import FitSettings, FitStrategy

CLEAN, SEQUENTIAL = FitStrategy(), FitStrategy(sequential=True)
SHORTCUTS = FitStrategy(sequential=True, shortcuts=True)
MATCHED = FitStrategy(sequential=True, match_variance=True)


@pytest.fixture(scope="module")
def images():
    return smooth_images()


def test_each_recipe_fits_to_its_own_inputs(images):
    network = classifier()
    fit_runs = fit_strategies(network, images, CLEAN, SEQUENTIAL)
    clean, own = fit_runs[CLEAN], fit_runs[SEQUENTIAL]
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
    fit_runs = list(fit_strategies(network, images, CLEAN, SEQUENTIAL).values())
    unseen = images[FITTED:]
    expected = network.values(unseen)[7]
    output_errors = [
        fidelity.output_error([expected], [network.values(unseen, fit_run.weights)[7]])
        for fit_run in fit_runs
    ]

    assert output_errors == sorted(output_errors)
    assert output_errors[0] < output_errors[1]
    assert [fit_run.output_error for fit_run in fit_runs] == pytest.approx(output_errors, rel=1e-4)


def test_held_out_images_are_not_fitted_to(images):
    changed = images.copy()
    changed[FITTED:] *= -3
    settings = FitSettings(patches=FITTED * PIXELS, refit_head=False)
    before = fit_strategies(classifier(), images, SEQUENTIAL, settings=settings)
    after = fit_strategies(classifier(), changed, SEQUENTIAL, settings=settings)

    for name in "ab":
        np.testing.assert_array_equal(
            before[SEQUENTIAL].factors[name].kernel(), after[SEQUENTIAL].factors[name].kernel()
        )
    assert before[SEQUENTIAL].output_error != after[SEQUENTIAL].output_error


def test_patches_are_drawn_by_the_seed(images):
    first, again, other = (
        fit_strategies(classifier(), images, CLEAN, settings=FitSettings(patches=200, seed=seed))[
            CLEAN
        ]
        for seed in (1, 1, 2)
    )

    for name in "ab":
        kernel = first.factors[name].kernel()
        np.testing.assert_array_equal(again.factors[name].kernel(), kernel)
        assert not np.allclose(other.factors[name].kernel(), kernel, rtol=1e-3)


def test_unchosen_layers_are_left_alone(images):
    fit_runs = fit_strategies(classifier(), images, SEQUENTIAL, choices={"b": ONE})

    assert list(fit_runs[SEQUENTIAL].factors) == ["b"]
    assert "a" not in fit_runs[SEQUENTIAL].weights


def test_nothing_chosen_harms_nothing(images):
    network = Network({"a": layer("a", 1, (3, 3, 4, 6))}, [("a", 0)])
    fit_runs = fit_network(network, [images], HELD_OUT, {}, [CLEAN], EVERYTHING)

    assert (fit_runs[0].output_error, fit_runs[0].weights) == (0, {})


def test_head_is_refitted_only_where_it_helps(images):
    kept = []
    for seed in range(1, 31, 3):
        refitted = fit_strategies(classifier(seed), images, CLEAN)
        left = fit_strategies(
            classifier(seed),
            images,
            CLEAN,
            settings=FitSettings(EVERYTHING.patches, refit_head=False),
        )
        assert left[CLEAN].refitted == []
        assert refitted[CLEAN].output_error <= left[CLEAN].output_error * (1 + 1e-6)
        kept.append(refitted[CLEAN].refitted == ["head"])

    assert any(kept)


def test_head_that_sees_few_images_is_refitted_from_them(images, monkeypatch):
    # Six images, nine unknowns. What decides is the same whichever system is solved.
    few = np.concatenate([images[:6], images[FITTED:]])
    fit_runs = [fit_strategies(classifier(seed), few, CLEAN)[CLEAN] for seed in range(1, 31, 3)]
    monkeypatch.setattr(
        "dsconvert.converter.core.network.fit_network._Fitting._few_rows", lambda *_: False
    )
    for seed, fit_run in zip(range(1, 31, 3), fit_runs, strict=True):
        by_moments = fit_strategies(classifier(seed), few, CLEAN)[CLEAN]
        assert fit_run.refitted == by_moments.refitted
        assert fit_run.output_error == pytest.approx(by_moments.output_error, rel=1e-4)
    assert any(fit_run.refitted for fit_run in fit_runs)


def test_head_whose_images_do_not_fit_into_memory_is_left(images):
    few = np.concatenate([images[:6], images[FITTED:]])

    def refitted(memory):
        settings = FitSettings(EVERYTHING.patches, memory=memory)
        return [
            fit_strategies(classifier(seed), few, CLEAN, settings=settings)[CLEAN].refitted
            for seed in range(1, 31, 3)
        ]

    assert ["head"] in refitted(1 << 20)
    assert refitted(3000) == [[]] * 10


def test_head_that_overfits_is_not_kept(images, monkeypatch):
    # No prior at all, and six images for nine unknowns: perfect on those, poor on others.
    monkeypatch.setattr("dsconvert.converter.core.network.fit_network.HEAD_RIDGES", (1e-12,))
    few = np.concatenate([images[:6], images[FITTED:]])
    fit_runs = fit_strategies(classifier(), few, CLEAN)

    assert fit_runs[CLEAN].refitted == []


def test_shared_layer_is_fitted_once_to_all_its_calls(images):
    network = shared_network()
    fit_runs = fit_strategies(network, images, CLEAN)
    s, values = network.layers["s"], network.values(images[:FITTED])
    both = statistics(
        s,
        np.concatenate([values[0], values[2]]).astype(np.float32),
        np.concatenate([values[1], values[3]]),
    )

    assert list(fit_runs[CLEAN].factors) == ["s"]
    assert_same_factors(fit_runs[CLEAN].factors["s"], fit(both, s.kernel, ONE.order, 1))


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
    fit_runs = fit_strategies(network, images, SEQUENTIAL, SHORTCUTS)
    fit_run, plain = fit_runs[SHORTCUTS], fit_runs[SEQUENTIAL]
    b = network.layers["b"]
    trained = network.values(images[:FITTED])
    drifted = network.values(images[:FITTED], {"a": fit_run.weights["a"]})
    gain = b.norm.gain if normed else 1.0
    # Before the norm, b has to make up for what a lost: its own output plus the loss over the gain.
    mean = b.norm.mean if normed else 0.0
    own = trained[3] / gain + mean
    owed = own + (trained[1] - drifted[1]) / gain
    weight = gain**2 * np.ones(6)

    for factors, aim in ((fit_run.factors["b"], owed), (plain.factors["b"], own)):
        expected = fit(
            statistics(b, drifted[2].astype(np.float32), aim),
            b.kernel,
            ONE.order,
            1,
            output_weight=weight,
        )
        assert_same_factors(factors, expected)
    assert fit_run.output_error < plain.output_error


def test_biasless_layer_gives_its_bias_to_the_norm(images):
    network = residual_network(normed=True)
    fit_runs = fit_strategies(network, images, SEQUENTIAL)
    weights, b = fit_runs[SEQUENTIAL].weights["b"], network.layers["b"]
    trained = network.values(images[:FITTED])[3]
    rewritten = network.values(images[:FITTED], fit_runs[SEQUENTIAL].weights)[3]

    assert weights.bias is None
    assert fit_runs[SEQUENTIAL].factors["b"].bias is None
    np.testing.assert_array_equal(weights.norm.variance, b.norm.variance)
    np.testing.assert_allclose(rewritten.mean((0, 1, 2)), trained.mean((0, 1, 2)), atol=1e-5)


def test_matched_norms_keep_mean_and_variance(images):
    network = residual_network(normed=True)
    fit_runs = fit_strategies(network, images, MATCHED)
    trained = network.values(images[:FITTED])[3]
    rewritten = network.values(images[:FITTED], fit_runs[MATCHED].weights)[3]
    axes = (0, 1, 2)

    np.testing.assert_allclose(rewritten.mean(axes), trained.mean(axes), atol=1e-5)
    np.testing.assert_allclose(rewritten.var(axes), trained.var(axes), rtol=1e-4)


def test_shortcuts_are_refitted_to_what_they_get(images):
    layers = {
        "a": layer("a", 1, (3, 3, 4, 6)),
        "one": layer("one", 2, (1, 1, 6, 5), "shortcut"),
    }
    network = Network(layers, [("a", 0), ("one", 1)])
    fit_runs = fit_strategies(network, images, SEQUENTIAL, SHORTCUTS)
    unseen = images[:FITTED]
    expected = network.values(unseen)[2]

    def error(strategy):
        return np.linalg.norm(network.values(unseen, fit_runs[strategy].weights)[2] - expected)

    assert fit_runs[SEQUENTIAL].refitted == []
    assert fit_runs[SHORTCUTS].refitted == ["one"]
    assert error(SHORTCUTS) < error(SEQUENTIAL)
