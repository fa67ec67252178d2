"""An ONNX model cut into stages: what the fit is told of each layer, and that nothing is lost."""

import numpy as np
import onnx
import pytest
from onnx_native import Net, images, outputs, relative
from refusals import refuses
from stage_networks import COUNT, INT64, NETWORKS, batch, recurrent_then_a_conv, residual, same

from dsconvert.base.errors import InputError
from dsconvert.converter.backends.onnx.stages import OnnxStages
from dsconvert.converter.check_rebuilt import check_rebuilt
from dsconvert.converter.core.stages import Norm, Weights
from dsconvert.converter.rewrite import rewrite
from dsconvert.formats.onnx.graph import OnnxGraph


def stages_of(model, inputs, *rewritten, **more):
    return OnnxStages(OnnxGraph(model), rewritten, inputs, **more)


def walk(stages, inputs, lent=None):
    """The outputs of one batch, computed stage by stage."""
    values = dict(zip(stages.inputs, inputs, strict=True))
    for stage in range(len(stages.sites)):
        with stages.using(stage, (lent or {}).get(stage)):
            made = stages.run(stage, values)
        assert not made.keys() & values.keys()  # what is there already is not copied
        values = {v: made[v] if v in made else values[v] for v in stages.live_after(stage)}
    return [values[value] for value in stages.outputs]


def batches(stages, inputs):
    size = stages.batch_size or 5
    for first in range(0, len(inputs[0]) - size + 1, size):
        yield [array[first : first + size] for array in inputs]


def whole(model, stages, inputs):
    """What ONNX Runtime makes of a batch, without the outputs that no data reach."""
    names = [stages.value_names[v] for v in stages.outputs]
    made = dict(zip([x.name for x in model.graph.output], outputs(model, *inputs), strict=True))
    return [made[name] for name in names]


@pytest.fixture(params=NETWORKS)
def case(request):
    return NETWORKS[request.param]()


class TestWalk:
    def test_stages_compute_what_the_model_computes(self, case):
        model, inputs, roles = case
        names = [name for name, role in roles.items() if role == "conv"]
        stages = stages_of(model, inputs, *names)

        assert {s.name: s.role for s in stages.sites[1:]} == roles
        count = 0
        for given in batches(stages, inputs):
            for got, expected in zip(walk(stages, given), whole(model, stages, given), strict=True):
                got = got[0] if got.shape != expected.shape else got
                # ONNX Runtime fuses other nodes in a part than in the whole.
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
                count += 1
        assert count >= 2

    def test_the_rewritten_model_computes_what_was_fitted(self, case, monkeypatch):
        model, inputs, roles = case
        seen = []
        monkeypatch.setattr(
            "dsconvert.converter.rewrite.check_rebuilt",
            lambda *them: seen.append(them) or check_rebuilt(*them),
        )
        before = model.SerializeToString()
        # More images than the heads have features, so that there is something to gain.
        inputs = [np.concatenate([array] * 3) for array in inputs]
        inputs[0] = np.asarray(inputs[0] + images(*inputs[0].shape, seed=5), inputs[0].dtype)
        names = [name for name, role in roles.items() if role == "conv"]
        for pairs in (1, 2):
            seen.clear()
            result = rewrite(model, calibration=inputs, pairs=pairs, include=names)
            ((rebuilt, shuffled, expected),) = seen
            stages = rebuilt.stages((), shuffled, refit=False)

            assert model.SerializeToString() == before
            assert set(result.report.rewritten) == set(names)
            step = stages.batch_size or len(shuffled[0])
            for first in range(0, len(shuffled[0]), step):
                given = [array[first : first + step] for array in shuffled]
                for got, wanted in zip(whole(rebuilt.model, stages, given), expected, strict=True):
                    wanted = wanted[first : first + step]
                    wanted = wanted[0] if wanted.shape != got.shape else wanted
                    if got.dtype.kind == "f":  # a label may turn on a rounding
                        assert relative(wanted, got) < 1e-4

    def test_one_image_at_a_time_runs_where_sizes_are_not_known(self, monkeypatch):
        """Before the fit has seen what comes out of a stage, and when the whole network runs."""
        seen = {"fit": [], "check": []}
        run = OnnxStages.run

        def counted(self, stage, values, last=None):
            of_fit = len(self.sites) > 1
            seen["fit" if of_fit else "check"].append((stage, len(next(iter(values.values())))))
            return run(self, stage, values, last)

        monkeypatch.setattr(OnnxStages, "run", counted)
        model, inputs, _ = residual()
        rewrite(model, calibration=inputs, pairs=1, include=["b"])
        first = dict(reversed(seen["fit"]))
        assert set(first.values()) == {1}
        assert max(count for _, count in seen["fit"]) > 1
        assert [count for _, count in seen["check"]] == [1] * 8

    def test_only_what_is_needed_later_is_kept(self):
        model, inputs, _ = residual()
        stages = stages_of(model, inputs, "stem", "a", "b")
        live = {
            site.name: len(stages.live_after(i - 1)) for i, site in enumerate(stages.sites) if site
        }
        assert max(live.values()) == 2


class TestUsing:
    def test_weights_are_lent(self):
        model, (x,), _ = residual()
        stages = stages_of(model, [x], "stem", "a", "b")
        old = walk(stages, [x])[0]
        rng = np.random.default_rng(3)
        lent = {}
        for index, site in enumerate(stages.sites):
            if site is None:
                continue
            norm = None
            if site.norm is not None:
                n = len(site.norm.mean)
                ratio = rng.uniform(0.5, 2, n)
                norm = Norm(
                    site.norm.gain / np.sqrt(ratio), rng.normal(size=n), site.norm.variance * ratio
                )
            lent[index] = Weights(
                rng.normal(size=site.kernel.shape), rng.normal(size=site.bias.shape), norm
            )
        new = walk(stages, [x], lent)[0]
        again = walk(stages, [x])[0]

        assert relative(old, new) > 0.1
        np.testing.assert_array_equal(old, again)
        changed = _with_weights(model, stages, lent)
        assert relative(outputs(changed, x)[0], new) < 1e-5

    def test_weights_come_back_after_a_failure(self):
        model, (x,), _ = residual()
        stages = stages_of(model, [x], "stem")
        before = walk(stages, [x])[0]

        def fail():
            with stages.using(1, Weights(np.zeros((3, 3, 6, 6)), np.zeros(6))):
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail()
        np.testing.assert_array_equal(walk(stages, [x])[0], before)


def _with_weights(model, stages, lent):
    """The same graph with other initialisers."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    held = {t.name: t for t in changed.graph.initializer}

    def put(name, values):
        array = np.ascontiguousarray(values, np.float32)
        held[name].CopyFrom(onnx.numpy_helper.from_array(array, name))

    makers = {n.output[0]: n for n in changed.graph.node}
    for index, weights in lent.items():
        site = stages.sites[index]
        node = next(n for n in changed.graph.node if n.name == site.name)
        kernel = weights.kernel.transpose(3, 2, 0, 1)
        put(node.input[1], kernel[:, :, 0, 0] if site.role == "head" else kernel)
        if len(node.input) > 2:
            put(node.input[2], weights.bias)
        norm = makers.get(f"{site.name}.norm")
        if weights.norm is None:
            continue
        if norm.op_type == "Add":  # the given norm over the stored Mul: gain and offset
            old = onnx.numpy_helper.to_array(held["offset"]).reshape(-1)
            put("gain", weights.norm.gain[:, None, None])
            put("offset", (old - weights.norm.mean * weights.norm.gain)[:, None, None])
            continue
        bias = weights.bias if len(node.input) == 2 else 0.0
        gamma = onnx.numpy_helper.to_array(held[norm.input[1]])
        put(norm.input[3], weights.norm.mean - bias)
        put(norm.input[4], (gamma / weights.norm.gain) ** 2 - 1e-5)
    return changed


class TestSites:
    def test_of_a_convolution(self):
        model, inputs, _ = residual()
        sites = {s.name: s for s in stages_of(model, inputs, "stem", "a", "b").sites[1:]}
        a, b = sites["a"], sites["b"]

        assert (a.role, a.call, a.calls, a.channels_first) == ("conv", 0, 1, True)
        assert a.spec.input_sizes == ((9, 10),)
        np.testing.assert_array_equal(a.bias, np.zeros(7))
        gamma, mean, var = (_weight(model, f"a.norm.{x}") for x in ("gamma", "mean", "var"))
        np.testing.assert_allclose(a.norm.variance, var + 1e-5, rtol=1e-6)
        np.testing.assert_allclose(a.norm.gain, gamma / np.sqrt(var + 1e-5), rtol=1e-6)
        np.testing.assert_array_equal(a.norm.mean, mean)
        np.testing.assert_array_equal(b.norm.gain, _weight(model, "gain").ravel())
        assert b.kernel.shape == (3, 3, 7, 7)

    def test_what_is_added_is_known_in_time(self):
        """The last of a sum's two operands knows the other one."""
        model, inputs, _ = residual()
        stages = stages_of(model, inputs, "stem", "a", "b")
        beside = {s.name: s.beside for s in stages.sites[1:]}
        named = {k: None if v is None else stages.value_names[v] for k, v in beside.items()}

        assert named == {
            "stem": None, "a": None, "b": "shortcut", "shortcut": None, "head": None
        }  # fmt: skip

    @pytest.mark.parametrize("width", [1, 10])
    def test_what_is_added_by_broadcasting_is_not_beside(self, width):
        net = Net()
        same(net, "x", "a")
        same(net, "a", "b")
        net.node("ReduceMax", "x", "m", axes=[3], keepdims=1)
        net.node("Add", "m b" if width == 1 else "x b", "y")
        stages = stages_of(net.model(), batch(), "a", "b")
        assert (stages.sites[2].beside is None) == (width == 1)

    @pytest.mark.parametrize(
        "change", ["alpha", "transA", "computed", "wide", "read", "middle", "rank", "per row"]
    )
    def test_what_is_no_head(self, change):
        net = Net()
        same(net, "x", "a")
        net.node("GlobalAveragePool", "a", "p")
        net.node("Flatten", "p", "f")
        source, attributes, width = "f", {"transB": 1}, 6
        if change == "alpha":
            attributes["alpha"] = 0.5
        if change == "transA":
            net.node("Transpose", "f", "t", perm=[1, 0])
            source, attributes["transA"] = "t", 1
        if change == "wide":
            net.node("Tile", ["f", net.constant("times", np.int64([1, 700]))], "tiled")
            source, width = "tiled", 4200
        net.constant("w", (5, width))
        net.constant("b", (5,))
        weights = "w"
        if change == "computed":
            net.node("ReduceMax", "x", "top", keepdims=0)
            weights = net.node("Mul", "w top", "gated")
        if change == "rank":
            net.node("Transpose", "a", "f3", perm=[0, 2, 3, 1])
            net.node("Transpose", "w", "wt", perm=[1, 0])
            net.constant("w3", net.normal(6, 5))
            net.node("MatMul", "f3 w3", "product", name="dense")
            net.node("Add", "product b", "y")
        elif change == "per row":
            net.constant("rows", (COUNT, 1))
            net.constant("w3", net.normal(6, 5))
            net.node("MatMul", "f w3", "product", name="dense")
            net.node("Add", "product rows", "y")
        else:
            net.node("Gemm", [source, weights, "b"], "y", name="dense", **attributes)
        names = "y"
        if change == "read":
            net.node("Neg", "y", "z")
            net.node("Neg", "z", "other")
            names = "other"
        if change == "middle":
            net.node("Tanh", "y", "z")
            net.constant("w2", (5, 4))
            net.node("MatMul", "z w2", "last")
            names = "last"
        inputs = {"x": (COUNT if change == "per row" else "n", 6, 9, 10)}
        model = net.model(names, inputs=inputs)
        assert [s.name for s in stages_of(model, batch(), "a").sites[1:]] == ["a"]


def _weight(model, name):
    return next(onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name == name)


class TestBatches:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("residual", None),
            ("fixed_batch_of_one", 1),
            ("fixed_batch_of_four", 4),
            ("free_size", None),
            ("reshape_by_computed_batch", 1),
            ("recurrent", 1),
            ("recurrent_then_a_conv", 1),
        ],
    )
    def test_size(self, name, expected):
        model, inputs, roles = NETWORKS[name]()
        names = [name for name, role in roles.items() if role == "conv"]
        assert stages_of(model, inputs, *names).batch_size == expected

    def test_values_without_batch_axis_in_a_fixed_batch(self):
        model, inputs, _ = recurrent_then_a_conv()
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
        with refuses("no-batch-axis") as caught:
            rewrite(model, calibration=inputs)
        assert "svd" in caught.value.hint

    @pytest.mark.parametrize("fixed", [None, 1, 9])
    def test_a_result_whose_size_depends_on_the_data(self, fixed):
        """As boxes after a suppression."""
        net = Net()
        same(net, "x", "a")
        same(net, "a", "b")
        net.node("Relu", "b", "r")
        net.node("NonZero", "r", "y")
        model = net.model(inputs={"x": (fixed or "n", 6, 9, 10)})
        report = rewrite(model, calibration=batch()).report
        assert report.rewritten == ("a", "b")
        assert report.trials[0].output_error > 0

    def test_sequences_between_layers(self):
        net = Net()
        same(net, "x", "a")
        net.node("SplitToSequence", "a", "parts", axis=1)
        net.node("ConcatFromSequence", "parts", "joined", axis=1)
        same(net, "joined", "b")
        net.node("ConcatFromSequence", "parts", "again", axis=1)
        net.node("Add", "b again", "y")
        model = net.model("a")
        model.graph.output[0].name = "y"
        with pytest.raises(InputError, match=r"'parts'.* is a list") as caught:
            rewrite(model, calibration=batch())
        assert "svd" in caught.value.hint
        assert rewrite(model).report.rewritten == ("a", "b")

    def test_images_that_are_too_small(self):
        """The model leaves the size free, but not this one."""
        net = Net()
        net.conv("x", "a", size=(5, 5))
        net.conv("a", "b", (8, 8), size=(5, 5))
        model = net.model("b", inputs={"x": ("n", 6, "h", "w")})
        with pytest.raises(InputError) as caught:
            rewrite(model, calibration=images(COUNT, 6, 7, 7))
        assert "(12, 6, 7, 7)" in caught.value.message

    @pytest.mark.parametrize(
        "data",
        [
            images(COUNT, 6, 9, 9),
            images(COUNT, 9, 10, 6),
            images(COUNT, 6 * 9 * 10),
            [images(COUNT, 6, 9, 10)] * 2,
            [],
            images(9, 6, 9, 10),
            images(0, 6, 9, 10),
            np.full((COUNT, 6, 9, 10), np.nan, np.float32),
            np.full((COUNT, 6, 9, 10), np.inf, np.float32),
        ],
    )
    def test_data_that_do_not_fit(self, data):
        model, _, _ = residual()
        with pytest.raises(InputError) as caught:
            rewrite(model, calibration=data)
        assert caught.value.hint

    def test_images_of_a_batch_that_see_each_other(self):
        """Subtracting the mean over the batch: stage by stage means nothing then."""
        net = Net()
        same(net, "x", "a")
        net.node("ReduceMean", "a", "mean", axes=[0], keepdims=1)
        net.node("Sub", "a mean", "s")
        same(net, "s", "y")
        model = net.model()
        stages = stages_of(model, batch(), "a", "y")
        assert stages.batch_size == 1

    def test_integers_too_large_for_float32(self):
        net = Net()
        same(net, "x", "a")
        net.constant("big", np.int64(2**40))
        net.node("Cast", "x", "whole", to=INT64)
        net.node("Add", "whole big", "ids")
        same(net, "a", "b")
        net.node("Cast", "b", "b.whole", to=INT64)
        net.node("Add", "ids b.whole", "more")
        net.node("Sub", "more big", "rest")
        net.node("Cast", "rest", "y", to=1)
        model = net.model("y ids")
        with refuses("integers-too-large") as caught:
            rewrite(model, calibration=batch())
        assert "svd" in caught.value.hint
