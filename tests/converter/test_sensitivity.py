"""What one choice for one layer does to the network: measured, and worked out by hand."""

from contextlib import nullcontext
from dataclasses import replace
from threading import Condition

import numpy as np
import pytest
from msgspec import structs
from numpy_network import (
    EVERYTHING,
    FITTED,
    HELD_OUT,
    Network,
    classifier,
    layer,
    pool,
    relu,
    shared_network,
    smooth_images,
    softmax,
    statistics,
)
from threadpoolctl import ThreadpoolController

from dsconvert.base import fidelity
from dsconvert.converter.core.fitting.linear_block import LinearBlock, best_fit
from dsconvert.converter.core.network import sensitivity, stage_runner
from dsconvert.converter.core.network.activation_store import Store
from dsconvert.converter.core.network.fit_network import place_bias
from dsconvert.converter.core.network.fit_state import FitSettings
from dsconvert.converter.core.network.patch_stream import fits_at_once
from dsconvert.converter.core.network.sensitivity import QUICK, input_sizes, measure_effects
from dsconvert.converter.core.stages import Weights
from dsconvert.converter.core.types import ORDERS, Choice, Effect

DW, PW = ORDERS
BLAS = ThreadpoolController().select(user_api="blas")
CHOICES = tuple(Choice(pairs=pairs, order=order) for order in ORDERS for pairs in (1, 2))


@pytest.fixture(scope="module")
def images():
    return smooth_images()


def measure_with(at_once, images):
    """Measure two layers; two BLAS threads where fits may use them, as sums depend on it."""
    with pytest.MonkeyPatch.context() as patch, BLAS.limit(limits=2):
        patch.setattr(sensitivity, "processors", lambda: at_once)
        return measure(classifier(), images, dict.fromkeys("ab", CHOICES))


def measure(network, images, choices, held_out=HELD_OUT, settings=EVERYTHING, **more):
    return measure_effects(network, [images], held_out, choices, settings, **more)


def by_hand(network, images, name, choice):
    """Fit one layer to all patches of the images that may be seen, and compare the others."""
    site = network.layers[name]
    seen, unseen = network.values(images[:FITTED]), images[FITTED:]
    at = [(i + 1, reads[0]) for i, (what, *reads) in enumerate(network.calls) if what == name]
    x = np.concatenate([seen[reads] for _, reads in at])
    outputs = [seen[reads] for _, reads in at]
    bare = Network({name: replace(site, norm=None)}, [(name, 0)])
    y = np.concatenate([bare.values(part)[1] for part in outputs])
    factors = best_fit(statistics(site, x, y), site, choice, QUICK)
    bias, norm = place_bias(site, factors.bias, site.norm)
    weights = {name: Weights(factors.kernel(), bias, norm)}
    out = network.outputs[0]
    expected, changed = network.values(unseen)[out], network.values(unseen, weights)[out]
    return Effect(
        data_error=factors.data_error, output_error=fidelity.output_error([expected], [changed])
    )


def residual():
    """Two convolutions around a sum, the first with a BatchNorm and no bias of its own."""
    layers = {
        "a": layer("a", 3, (3, 3, 4, 4), bias=False, normed=True),
        "b": layer("b", 4, (3, 3, 4, 4), normed=True),
    }
    calls = [("a", 0), (relu, 1), ("b", 2), (np.add, 2, 3), (relu, 4), (pool, 5)]
    return Network(layers, calls)


@pytest.mark.parametrize("network", [classifier, residual], ids=["classifier", "residual"])
def test_effects_are_what_changing_that_layer_alone_does(network, images):
    made = network()
    effects = measure(made, images, dict.fromkeys("ab", CHOICES))

    assert set(effects) == {(name, choice) for name in "ab" for choice in CHOICES}
    for (name, choice), effect in effects.items():
        expected = by_hand(made, images, name, choice)
        assert effect.output_error > 1e-4
        # Float32 between the stages against float64 by hand.
        assert effect.output_error == pytest.approx(expected.output_error, rel=2e-3)
        assert effect.data_error == pytest.approx(expected.data_error, rel=1e-3)


def test_full_rank_harms_nothing(images):
    choices = {
        name: [Choice(pairs=network_rank, order=order)]
        for name, order, network_rank in (("a", DW, 6), ("b", PW, 6))
    }
    for effect in measure(classifier(), images, choices).values():
        assert effect.output_error < 1e-8
        assert effect.data_error < 1e-3


def test_more_pairs_err_less(images):
    choices = [Choice(pairs=pairs, order=DW) for pairs in (1, 2, 3, 4)]
    effects = measure(classifier(), images, {"b": choices})
    errors = [effects["b", choice].data_error for choice in choices]
    assert errors == sorted(errors, reverse=True)


def test_held_out_images_are_not_fitted_to(images):
    changed = images.copy()
    changed[FITTED:] *= -3
    first, second = (measure(classifier(), each, {"b": CHOICES[:1]}) for each in (images, changed))
    assert first["b", CHOICES[0]].data_error == second["b", CHOICES[0]].data_error
    assert first["b", CHOICES[0]].output_error != second["b", CHOICES[0]].output_error


def test_a_shared_layer_is_fitted_to_all_its_calls_and_judged_by_the_last(images):
    network = shared_network()
    (effect,) = measure(network, images, {"s": CHOICES[:1]}).values()

    site, seen = network.layers["s"], network.values(images[:FITTED])
    x, y = np.concatenate([images[:FITTED], seen[2]]), np.concatenate([seen[1], seen[3]])
    factors = best_fit(statistics(site, x, y), site, CHOICES[0], QUICK)
    assert effect.data_error == pytest.approx(factors.data_error, rel=1e-3)
    unseen = network.values(images[FITTED:])
    weights = {"s": Weights(factors.kernel(), factors.bias)}
    last = Network(network.layers, [("s", 0), (pool, 1)])
    changed = last.values(unseen[2], weights)[2]
    assert effect.output_error == pytest.approx(
        fidelity.output_error([unseen[4]], [changed]), rel=2e-3
    )


class Counting(Network):
    """Counts how often its stages run."""

    runs = 0

    def run(self, stage, values, last=None):
        self.runs += 1
        return super().run(stage, values, last)


def counting():
    plain = classifier()
    return Counting(plain.layers, plain.calls)


class Meeting:
    """Lets fits wait for each other, so that it does not depend on time whether they meet."""

    def __init__(self, expected):
        self.expected, self.running, self.most = expected, 0, 0
        self.changed = Condition()

    def __enter__(self):
        with self.changed:
            self.running += 1
            self.most = max(self.most, self.running)
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.most >= self.expected, timeout=10)

    def __exit__(self, *_):
        with self.changed:
            self.running -= 1


@pytest.fixture(scope="module")
def fitted_one_by_one(images):
    return measure_with(1, images)


@pytest.mark.parametrize("at_once", [1, 3])
def test_fits_side_by_side_give_what_they_give_one_by_one(
    at_once, fitted_one_by_one, images, monkeypatch
):
    def watch(self, data, choice, *more):
        with meeting:
            assert {one["num_threads"] for one in BLAS.info()} == {1}
            return fit(self, data, choice, *more)

    meeting, fit = Meeting(at_once), LinearBlock.fit
    monkeypatch.setattr(LinearBlock, "fit", watch)
    assert measure_with(at_once, images) == fitted_one_by_one
    assert meeting.most == at_once


def test_wide_layers_fit_fewer_at_once():
    site = classifier().layers["b"]
    blocks = [slice(0, site.spec.in_channels)]
    each = 8 * (site.spec.taps * site.spec.in_channels) ** 2  # bytes of a covariance
    assert [fits_at_once(site, blocks, n * each) for n in (1, 4, 5, 6, 9)] == [1, 1, 1, 2, 3]


def test_what_is_known_is_not_measured_again(images):
    choices = dict.fromkeys("ab", CHOICES)
    full, partial, none = counting(), counting(), counting()
    effects = measure(full, images, choices)
    made_up = Effect(data_error=0.5, output_error=9.0)
    known = {key: made_up for key in effects if key != ("b", CHOICES[2])}
    recorded = []

    again = measure(
        partial, images, choices, known=known, record=lambda *args: recorded.append(args)
    )
    ((name, choice, effect),) = recorded
    assert (name, choice) == ("b", CHOICES[2])
    # What it is compared with was computed from another layer on: rounded otherwise.
    assert structs.astuple(effect) == pytest.approx(
        structs.astuple(effects["b", CHOICES[2]]), rel=1e-5
    )
    assert again == known | {("b", CHOICES[2]): effect}
    assert 0 < partial.runs < full.runs / 2

    steps = []
    same = measure(none, images, choices, known=effects, progress=lambda *_: steps.append(1))
    assert same == effects
    assert none.runs == 0
    assert not steps  # nor is anything announced


def test_effects_are_recorded_as_they_come(images):
    network, seen = counting(), []

    def record(name, choice, effect):
        seen.append((name, choice, effect, network.runs))
        if name == "b":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(network, images, {"b": CHOICES[:2], "a": CHOICES[:2]}, record=record)
    *first, last = [each[:2] for each in seen]  # of one layer as they are ready, in any order
    assert sorted(first, key=repr) == sorted((("a", c) for c in CHOICES[:2]), key=repr)
    assert last in [("b", c) for c in CHOICES[:2]]
    assert seen[0][3] < seen[-1][3]


def test_choices_of_one_layer_are_recorded_one_by_one(images):
    network, runs = counting(), []
    measure(network, images, {"a": CHOICES}, record=lambda *_: runs.append(network.runs))
    assert len(set(runs)) == len(CHOICES)


def test_the_walk_ends_at_the_last_layer_asked_for(images):
    stages = []

    def progress(label, total):
        stages.append((label, total))
        return nullcontext(lambda: None)

    measure(classifier(), images, {"a": CHOICES[:1]}, progress=progress)
    assert stages == [("Trying choices", 2)]  # what comes before the first site, and that site
    assert measure(classifier(), images, {}) == {}


class TestMemory:
    def stores(self, monkeypatch):
        made = []

        class Recorded(Store):
            def __init__(self, memory):
                super().__init__(memory)
                made.append(self)

        monkeypatch.setattr(stage_runner, "Store", Recorded)
        return made

    def test_spilling_changes_nothing(self, images, monkeypatch):
        made = self.stores(monkeypatch)
        many = np.concatenate([images] * 8)
        choices = dict.fromkeys("ab", CHOICES)
        tight = FitSettings(patches=EVERYTHING.patches, memory=300_000)
        roomy = FitSettings(patches=EVERYTHING.patches)
        results = [
            measure(classifier(), many, choices, 80, settings) for settings in (roomy, tight)
        ]
        assert results[0] == results[1]
        assert [store.spilled > 0 for store in made] == [False, True]

    def test_a_layer_wider_than_the_memory_has_no_pointwise_first_effects(self, images):
        tight = FitSettings(patches=EVERYTHING.patches, memory=100_000)
        effects = measure(classifier(), images, dict.fromkeys("ab", CHOICES), settings=tight)
        assert {choice.order for name, choice in effects if name == "b"} == {DW}
        assert all(np.isfinite(effect.output_error) for effect in effects.values())


class TestInputSizes:
    def test_one_size_per_call(self, images):
        halves = [("s", 0), (lambda x: x[:, ::2, ::2], 1), ("s", 2), (pool, 3)]
        network = Network(shared_network().layers, halves)
        assert input_sizes(network, [images], EVERYTHING) == {"s": ((6, 5), (3, 3))}

    def test_sizes_are_the_datas(self, images):
        assert input_sizes(classifier(), [images[:, :4]], EVERYTHING) == {
            "a": ((4, 5),),
            "b": ((4, 5),),
        }

    def test_no_convolutions(self, images):
        network = Network({}, [(pool, 0), (softmax, 1)])
        assert input_sizes(network, [images], EVERYTHING) == {}
