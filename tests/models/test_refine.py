"""Refinement: one step and one optimizer for all; kept only where the held-out error falls."""

from __future__ import annotations

import math
from contextlib import contextmanager

import keras
import numpy as np
import pytest
from keras import layers
from keras_checks import conv, images, norm, outputs

from dsconvert.base import fidelity
from dsconvert.base.errors import InputError
from dsconvert.converter.backends.keras.composed import ComposedModel
from dsconvert.converter.rewrite import rewrite
from dsconvert.models.training import refine as module
from dsconvert.models.training.refine import RefineSettings, refine
from dsconvert.models.training.soap import relative_soap
from dsconvert.models.training.step_sizes import share_of_rate


def composed(student, teacher):
    return ComposedModel(student, teacher), ComposedModel(teacher, teacher, student=student)


def network(*outputs_of):
    """A stem, and a network behind it that has something to lose."""
    keras.utils.set_random_seed(0)
    image = keras.Input((10, 10, 3))
    x = conv(12, activation="relu", name="stem")(image)
    x = layers.ReLU()(norm()(conv(16, name="a", use_bias=False)(x)))
    x = layers.ReLU()(layers.Add()([x, norm()(conv(16, name="b")(x))]))
    x = layers.GlobalAveragePooling2D()(x)
    ends = [layers.Dense(3, activation=end, name=f"out{i}")(x) for i, end in enumerate(outputs_of)]
    return keras.Model(image, ends)


def smooth(count):
    x = images(count, 10, 10, 3)
    return x + np.roll(x, 1, axis=1) + np.roll(x, 1, axis=2)


@pytest.fixture(scope="module")
def made():
    teacher, x = network("softmax"), smooth(120)
    return teacher, rewrite(teacher, block="auto").model, x


def refined(made, seed=0, **settings):
    teacher, student, x = made
    copy = keras.models.clone_model(student)
    copy.set_weights(student.get_weights())
    settings = {"steps": 40, **settings}
    done = refine(*composed(copy, teacher), [x], 24, RefineSettings(seed=seed, **settings))
    return copy, done


class TestRefine:
    @pytest.mark.parametrize("ends", [("softmax",), (None,), ("softmax", None)])
    def test_the_held_out_error_falls(self, ends):
        teacher, x = network(*ends), smooth(120)
        student = rewrite(teacher).model
        after, done = refined((teacher, student, x))
        assert done.kept
        assert done.error_after < done.error_before
        references = outputs(teacher, x[-24:])
        for model, error in ((student, done.error_before), (after, done.error_after)):
            found = fidelity.output_error(references, outputs(model, x[-24:]))
            assert found == pytest.approx(error, rel=1e-4)

    def test_a_teacher_that_gives_nan_is_refused(self, made):
        teacher = network("softmax")
        weights = made[0].get_weights()
        teacher.set_weights([*weights[:-1], weights[-1] * np.float32(np.nan)])
        with pytest.raises(InputError, match=r"itself gives NaN .* 'out0', on 24 of 24 samples"):
            refined((teacher, *made[1:]))

    def test_the_same_seed_gives_the_same_weights(self, made):
        (one, _), (same, _), (other, _) = (refined(made, seed=seed) for seed in (3, 3, 4))
        assert all(map(np.array_equal, one.get_weights(), same.get_weights()))
        assert not all(map(np.array_equal, one.get_weights(), other.get_weights()))

    def test_what_makes_it_worse_is_not_kept(self, made):
        after, done = refined(made, learning_rate=30.0)
        assert not done.kept
        assert math.isfinite(done.error_before)
        assert done.error_after is None or done.error_after >= done.error_before
        assert all(map(np.array_equal, after.get_weights(), made[1].get_weights()))

    @pytest.mark.parametrize(
        ("least", "expected"), [(2.0, 1.0), (1.1, 1.0), (0.9, 0.75), (0.6, 0.5), (0.3, 0.25)]
    )
    def test_weights_that_went_too_far_are_taken_back(self, least, expected):
        """The error is a parabola; from 0 the training has gone to 2."""
        model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
        model.set_weights([np.full((1, 1), 2.0)])

        def judge():
            return float((model.get_weights()[0][0, 0] - least) ** 2)

        error, way = module.first_better(model, [np.zeros((1, 1))], least**2, judge)
        assert way == expected
        assert model.get_weights()[0] == 2 * expected
        assert error == pytest.approx(judge())

    @pytest.mark.parametrize("end", [2.0, math.nan])
    def test_where_nothing_on_the_way_is_better_the_end_is_told(self, end):
        model = keras.Sequential([keras.Input((1,)), layers.Dense(1, use_bias=False)])
        model.set_weights([np.full((1, 1), end)])
        error, way = module.first_better(
            model, [np.zeros((1, 1))], 0.0, lambda: float(model.get_weights()[0][0, 0] ** 2)
        )
        assert way == 1
        assert math.isnan(error) if math.isnan(end) else error == 4

    def test_a_run_that_is_not_kept_is_repeated_in_smaller_steps(self, made):
        """At this rate nothing on the way is better; at a quarter of it something is."""
        after, done = refined(made, learning_rate=1.5)
        assert (done.kept, done.gentler) == (True, True)
        assert done.error_after < done.error_before
        assert not all(map(np.array_equal, after.get_weights(), made[1].get_weights()))

    def test_the_stem_and_moving_statistics_stay(self, made):
        after, _ = refined(made)
        before, moved = made[1], []
        for layer, old in zip(after.layers, before.layers, strict=True):
            same = [*map(np.array_equal, layer.get_weights(), old.get_weights())]
            if layer.name == "stem":
                assert all(same)
            elif isinstance(layer, layers.BatchNormalization):
                assert same == [False, False, True, True]
            elif same and not all(same):
                moved.append(layer.name)
        assert {"a_dw", "a_pw"} <= set(moved) or {"a_in", "a_dw", "a_out"} <= set(moved)
        assert "out0" in moved

    def test_timed_steps_change_nothing(self, made, monkeypatch):
        """The steps that are timed are taken back: as many steps without a clock end the same."""
        monkeypatch.setattr(module, "TIMED", 3)
        timed, done = refined(made, steps=None, seconds=1e-3)
        assert done.steps == 3
        plain, _ = refined(made, steps=3)
        assert all(map(np.array_equal, timed.get_weights(), plain.get_weights()))

    def test_seconds_become_steps(self, made):
        _, done = refined(made, steps=None, seconds=1.0)
        assert done.steps >= 20

    def test_an_interrupt_leaves_the_fit(self, made):
        @contextmanager
        def impatient(label, total):
            def advance():
                raise KeyboardInterrupt

            yield advance

        teacher, student, x = made
        before = student.get_weights()
        settings = RefineSettings(steps=5)
        done = refine(*composed(student, teacher), [x], 24, settings, progress=impatient)
        assert done.interrupted
        assert not done.kept
        assert all(map(np.array_equal, before, student.get_weights()))

    def test_no_time_is_refused(self):
        for wrong in ({"seconds": 0.0}, {"seconds": -1.0}, {"steps": 0}):
            with pytest.raises(InputError):
                RefineSettings(**wrong)


class TestOptimizer:
    def test_a_step_is_a_share_of_each_size(self):
        """Neither the size of a tensor nor that of its gradient changes what share it moves by."""
        begun, *slopes = np.random.default_rng(0).normal(size=(4, 4, 4))
        variables = [keras.Variable(np.float32(size * begun)) for size in (1, 100, 0.05)]
        optimizer = relative_soap(variables)
        optimizer.learning_rate = 0.01
        for slope in slopes:
            optimizer.apply([np.float32(size * slope) for size in (1, 30, 0.7)], variables)
        first, large, small = (variable.numpy() for variable in variables)
        assert np.abs(first - begun).max() > 0.01
        np.testing.assert_allclose(large, 100 * first, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(small, 0.05 * first, rtol=1e-4, atol=5e-7)

    def test_zeros_move(self):
        variables = [keras.Variable(np.zeros((3, 3), np.float32)), keras.Variable(np.zeros(3))]
        optimizer = relative_soap(variables)
        optimizer.learning_rate = 0.1
        for _ in range(2):
            optimizer.apply([v.value + 1 for v in variables], variables)
        kernel, bias = (variable.numpy() for variable in variables)
        assert kernel.sum() < 0
        assert (bias < 0).all()

    def test_soap_does_not_depend_on_the_coordinates_inside_a_block(self):
        """What is trained as Q W R ends near to Q (what is trained as W) R; not so Adam."""
        rng = np.random.default_rng(0)
        left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (6, 6))
        start, aim = rng.normal(size=(2, 6, 6))
        scale = np.geomspace(1, 5, 6)[:, None] * np.geomspace(1, 5, 6)
        noise = rng.normal(size=(25, 6, 6))  # of the batches

        def trained(make, left, right):
            variable = keras.Variable(np.float32(left @ start @ right))
            optimizer = make([variable])
            optimizer.learning_rate = 0.02
            for more in noise:
                slope = scale * (left.T @ variable.numpy() @ right.T - aim) + more
                optimizer.apply([np.float32(left @ slope @ right)], [variable])
            return left.T @ variable.numpy() @ right.T

        def adam(variables):
            optimizer = keras.optimizers.Adam()
            optimizer.build(variables)
            return optimizer

        plain = {make: trained(make, np.eye(6), np.eye(6)) for make in (relative_soap, adam)}
        apart = {
            make: np.abs(trained(make, left, right) - found).max() / np.abs(found - start).max()
            for make, found in plain.items()
        }
        assert apart[relative_soap] < 0.15  # what breaks ties between eigenvalues is not turned
        assert apart[adam] > 0.5

    def test_soap_has_a_step_for_every_shape(self):
        """Vectors, kernels, depthwise kernels, and sides that are too long to be turned."""
        rng = np.random.default_rng(0)
        shapes = [(5,), (3, 3, 4, 6), (1, 1, 4, 6), (3, 3, 8, 1), (3, 3, 4, 2), (1100, 3), ()]
        variables = [keras.Variable(np.float32(rng.normal(size=shape) + 2)) for shape in shapes]
        before = [variable.numpy() for variable in variables]
        optimizer = relative_soap(variables)
        optimizer.learning_rate = 0.01
        for _ in range(3):
            optimizer.apply([v.value for v in variables], variables)
        for begun, variable in zip(before, variables, strict=True):
            now = variable.numpy()
            assert np.isfinite(now).all()
            assert np.square(now).sum() < np.square(begun).sum()
            assert 0 < np.abs(now - begun).max() < 0.2 * np.abs(begun).max()

    def test_soap_begins_with_a_look(self):
        variable = keras.Variable(np.eye(3, dtype=np.float32))
        optimizer = relative_soap([variable])
        optimizer.learning_rate = 0.1
        optimizer.apply([variable.value], [variable])
        np.testing.assert_array_equal(variable.numpy(), np.eye(3))

    def test_the_rate_rises_and_falls(self):
        shares = [share_of_rate(number, 100) for number in range(100)]
        assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
        assert shares[5] == 1.0
        assert shares[5:] == sorted(shares[5:], reverse=True)
        assert 0 < shares[-1] < 0.001
        assert share_of_rate(0, 1) == 1.0
        assert share_of_rate(0, 10, warmup=0.0) == 1.0
