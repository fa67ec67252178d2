"""MobileNet blocks: BatchNorm and ReLU between the two kernels of a pair, started from data."""

from __future__ import annotations

import json
from collections import Counter

import keras
import msgspec
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from keras import layers
from keras_checks import conv, model_of, outputs
from numerics import plan_of
from onnx_native import Net, kinds
from onnx_native import outputs as onnx_outputs
from onnx_twin import onnx_twin
from refusals import refuses

from dsconvert.base import fidelity
from dsconvert.base.errors import InputError
from dsconvert.cli import main
from dsconvert.converter.core.types import ORDERS, Choice, Plan
from dsconvert.converter.rewrite import rewrite
from dsconvert.deploy.exporting.export import export
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.models.data.datasets import Data
from dsconvert.models.onnx_import import import_onnx
from dsconvert.models.training.finetune import finetune
from dsconvert.models.training.settings import FinetuneSettings

DW, PW = ORDERS
MOBILENET = Choice(pairs=1, block="mobilenet")


@pytest.fixture(scope="module")
def calibration(digits):
    return digits[0][:150]


@pytest.fixture(scope="module")
def blocked(digits_cnn, calibration):
    """The digits network with MobileNet blocks, of each kind."""
    twin = onnx_twin(digits_cnn)
    first = np.ascontiguousarray(calibration.transpose(0, 3, 1, 2))
    return {
        "keras": rewrite(digits_cnn, calibration=calibration, block="mobilenet"),
        "onnx": rewrite(twin, calibration=first, block="mobilenet"),
    }


def run(model, x):
    """The first output for images (n, H, W, C)."""
    if isinstance(model, keras.Model):
        return outputs(model, x)[0]
    return onnx_outputs(model, np.ascontiguousarray(x.transpose(0, 3, 1, 2)))[0]


class TestStructure:
    def test_keras(self, blocked):
        kinds = {
            "middle_dw": layers.DepthwiseConv2D,
            "middle_bn": layers.BatchNormalization,
            "middle_relu": layers.ReLU,
            "middle_pw": layers.Conv2D,
        }
        found = blocked["keras"].model.layers
        names = [layer.name for layer in found]
        start = names.index("middle_dw")
        assert names[start : start + 4] == list(kinds)
        assert [type(layer) for layer in found[start : start + 4]] == list(kinds.values())
        depthwise, norm, _, pointwise = found[start : start + 4]
        assert not depthwise.use_bias
        assert depthwise.activation is keras.activations.linear
        assert norm.trainable
        assert pointwise.use_bias
        assert pointwise.activation is keras.activations.relu
        assert names[start + 5 : start + 6] == ["last_dw"]  # a pooling layer stands between
        assert not next(x for x in found if x.name == "last_pw").use_bias  # "norm" takes it

    def test_onnx(self, blocked):
        model = blocked["onnx"].model
        onnx.checker.check_model(model, full_check=True)
        block = ["Conv", "BatchNormalization", "Relu", "Conv"]
        expected = ["Conv", "Relu", *block, "Relu", "MaxPool", *block, "Relu"]
        assert kinds(model)[: len(expected)] == expected  # its own norm went into the last one

    @pytest.mark.parametrize("kind", ["keras", "onnx"])
    def test_report(self, kind, blocked):
        result = blocked[kind]
        rows = {row.name: row for row in result.report.layers}
        assert rows["stem"].block is None
        for name in ("middle", "last"):
            row = rows[name]
            assert (row.block, row.order, row.weight_error) == ("mobilenet", DW, None)
            assert 0 < row.data_error < 1
            assert result.plan.chosen[name] == Choice(pairs=1, order=DW, block="mobilenet")
        assert any(
            "MobileNet blocks need fine-tuning: middle, last" in n for n in result.report.notes
        )
        model = result.model
        held = (
            {layer.name: layer.count_params() for layer in model.layers}
            if kind == "keras"
            else {tensor.name: np.prod(tensor.dims) for tensor in model.graph.initializer}
        )
        assert result.report.params_after == sum(held.values())
        for name in ("middle", "last"):
            own = sum(size for key, size in held.items() if key.startswith(f"{name}_"))
            assert rows[name].params_after == own

    def test_the_norm_has_seen_the_data(self, blocked, calibration):
        model = blocked["keras"].model
        inner = keras.Model(model.input, model.get_layer("middle_dw").output)
        values = np.asarray(inner(calibration)).reshape(-1, 16)
        norm = model.get_layer("middle_bn")
        spread = values.std(0)
        # All of 120 images of the 150.
        assert np.abs(norm.moving_mean - values.mean(0)).max() < 0.1 * spread.max()
        np.testing.assert_allclose(np.sqrt(norm.moving_variance), spread, rtol=0.1)


class TestFit:
    @pytest.mark.parametrize("kind", ["keras", "onnx"])
    def test_as_good_a_start_as_the_linear_pairs(self, kind, digits, digits_cnn, blocked):
        """Held out: the cut is where it changes little, and the rest is fitted around it."""
        test = digits[0][1200:]
        expected = run(digits_cnn, test)
        plain = rewrite(digits_cnn, calibration=digits[0][:150], order=DW).model
        fresh = rewrite(digits_cnn, method="random", block="mobilenet").model

        def output_error(model):
            return fidelity.output_error([expected], [run(model, test)])

        started = output_error(blocked[kind].model)
        assert started < 1.5 * output_error(plain)
        assert started < 0.2 * output_error(fresh)

    def test_both_kinds_come_to_the_same(self, digits, blocked):
        x = digits[0][1200:]
        one, other = (run(blocked[kind].model, x) for kind in ("keras", "onnx"))
        np.testing.assert_allclose(one, other, atol=0.02)

    def test_same_seed_same_model(self, digits_cnn, calibration, blocked):
        again = rewrite(digits_cnn, calibration=calibration, block="mobilenet").model
        for mine, yours in zip(
            again.get_weights(), blocked["keras"].model.get_weights(), strict=True
        ):
            np.testing.assert_array_equal(mine, yours)

    def test_little_memory(self, digits, digits_cnn, calibration, blocked):
        result = rewrite(digits_cnn, calibration=calibration, block="mobilenet", memory=500_000)
        assert any("blocks of channels" in note for note in result.report.layers[2].notes)
        test = digits[0][1200:]
        expected = run(digits_cnn, test)
        output_errors = [
            fidelity.output_error([expected], [run(each.model, test)])
            for each in (result, blocked["keras"])
        ]
        assert output_errors[0] < 2 * output_errors[1]


def test_frozen_layers_and_formats_stay(calibration):
    keras.utils.set_random_seed(0)
    model = model_of(conv(8, name="kept", trainable=False, dtype="mixed_bfloat16"))
    made = rewrite(model, method="random", block="mobilenet").model
    norm = made.get_layer("kept_bn")
    assert not norm.trainable
    assert norm.dtype_policy.name == made.get_layer("kept_relu").dtype_policy.name
    assert norm.dtype_policy.name == "mixed_bfloat16"


class TestReplay:
    @pytest.mark.parametrize("kind", ["keras", "onnx"])
    def test_a_plan_says_which_layers_are_blocks(self, kind, digits_cnn, calibration):
        model = digits_cnn if kind == "keras" else onnx_twin(digits_cnn)
        x = calibration if kind == "keras" else calibration.transpose(0, 3, 1, 2)
        plan = plan_of(["last"], MOBILENET)
        read = msgspec.json.decode(msgspec.json.encode(plan), type=Plan)
        result = rewrite(model, plan=read, calibration=np.ascontiguousarray(x))
        blocks = {row.name: row.block for row in result.report.layers}
        assert blocks == {"stem": None, "middle": None, "last": "mobilenet"}
        again = rewrite(model, plan=result.plan, calibration=np.ascontiguousarray(x))
        np.testing.assert_array_equal(run(result.model, calibration), run(again.model, calibration))

    def test_an_old_plan_is_linear(self):
        text = b'{"pairs": 1, "order": "depthwise-first", "lowering": "sum"}'
        assert msgspec.json.decode(text, type=Choice).block == "linear"

    def test_a_plan_in_another_style(self, digits_cnn, calibration):
        plan = plan_of(["middle", "last"], Choice(pairs=1, order=PW))
        result = rewrite(digits_cnn, plan=plan, calibration=calibration, block="mobilenet")
        assert set(result.plan.chosen.values()) == {Choice(pairs=1, order=DW, block="mobilenet")}
        assert any("planned pointwise-first" in note for note in result.report.notes)
        back = rewrite(digits_cnn, plan=result.plan, calibration=calibration, block="linear")
        assert {row.block for row in back.report.layers if row.pairs} == {"linear"}
        assert not any("fine-tuning" in note for note in back.report.notes)

    def test_a_multiplier_is_one_block(self, digits_cnn, calibration):
        ways = ("sum", "multiplier")
        made = {}
        for lowering in ways:
            choice = Choice(pairs=2, order=DW, lowering=lowering, block="mobilenet")
            result = rewrite(digits_cnn, plan=plan_of(["last"], choice), calibration=calibration)
            made[lowering] = result.model
        norms = {
            way: [x.gamma.shape for x in made[way].layers if "last_bn" in x.name] for way in ways
        }
        assert norms == {"sum": [(24,), (24,)], "multiplier": [(48,)]}
        np.testing.assert_allclose(*(run(made[way], calibration) for way in ways), atol=1e-5)


class TestRefusals:
    def test_pointwise_first(self, digits_cnn, calibration):
        with refuses("option-not-applicable"):
            rewrite(digits_cnn, calibration=calibration, block="mobilenet", order=PW)
        plan = plan_of(["last"], Choice(pairs=1, order=PW, block="mobilenet"))
        with refuses("choice-not-possible"):
            rewrite(digits_cnn, plan=plan, calibration=calibration)

    @pytest.mark.parametrize(
        "how", [{"block": "mobilenet"}, {"plan": plan_of(["last"], MOBILENET)}]
    )
    def test_no_images(self, digits_cnn, how):
        with refuses("needs-calibration") as caught:
            rewrite(digits_cnn, **how)
        assert "--calibration" in caught.value.words.hint
        assert "--method random" in caught.value.words.hint

    def test_an_opset_without_the_norm(self):
        net = Net()
        net.conv("x", "y")
        model = net.model(opset=6)
        with pytest.raises(InputError, match="opset 6") as caught:
            rewrite(model, method="random", block="mobilenet")
        assert "7" in caught.value.hint


class TestAfterwards:
    def test_saved_and_loaded(self, blocked, calibration, tmp_path):
        blocked["keras"].model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(
            run(loaded, calibration), run(blocked["keras"].model, calibration)
        )

    def test_training_helps(self, digits, digits_cnn, blocked):
        x, _ = digits
        student = keras.models.clone_model(blocked["keras"].model)
        student.set_weights(blocked["keras"].model.get_weights())
        # 1,200 images are few: only the blocks are trained.
        settings = FinetuneSettings(epochs=2, frozen_epochs=2, learning_rate=2e-2)
        tuned = finetune(student, digits_cnn, Data((x[:1200],), source="digits"), settings)
        expected, test = run(digits_cnn, x[1200:]), x[1200:]
        before, after = (
            fidelity.output_error([expected], [run(model, test)])
            for model in (blocked["keras"].model, tuned.model)
        )
        assert tuned.best_epoch > 0
        assert after < 0.8 * before

    def test_an_onnx_block_is_imported_as_layers_and_written_back(self, blocked, calibration):
        imported = import_onnx(blocked["onnx"].model)
        found = Counter(type(layer).__name__ for layer in imported.model.layers)
        assert found["DepthwiseConv2D"] == found["BatchNormalization"] == 2
        np.testing.assert_allclose(
            run(imported.model, calibration), run(blocked["onnx"].model, calibration), atol=1e-5
        )
        for layer in imported.model.layers:
            if isinstance(layer, layers.BatchNormalization):
                layer.set_weights([1.1 * np.asarray(weight) for weight in layer.get_weights()])
        written = imported.write_back(imported.model)
        assert kinds(written) == kinds(blocked["onnx"].model)
        np.testing.assert_allclose(
            run(imported.model, calibration), run(written, calibration), atol=1e-5
        )

    @pytest.mark.parametrize("suffix", ["tflite", "onnx"])
    def test_exported(self, suffix, blocked, calibration, tmp_path):
        model, path = blocked["keras"].model, tmp_path / f"model.{suffix}"
        export(model, path, verification=calibration)
        got = np.concatenate(
            [open_runtime(path).predict((image[None],))[0] for image in calibration[:8]]
        )
        np.testing.assert_allclose(got, run(model, calibration[:8]), atol=1e-5)
        if suffix == "tflite":
            from ai_edge_litert.interpreter import Interpreter

            operations = Counter(op["op_name"] for op in Interpreter(str(path))._get_ops_details())
            assert operations["DEPTHWISE_CONV_2D"] == 2
            assert not {"MUL", "ADD", "SUB", "RELU"} & operations.keys()  # folded and fused


class TestCommand:
    @pytest.fixture
    def folder(self, digits_cnn, digits, tmp_path):
        digits_cnn.save(tmp_path / "model.keras")
        onnx.save(onnx_twin(digits_cnn), tmp_path / "model.onnx")
        np.savez(tmp_path / "data.npz", x=16 * digits[0][:60])
        return tmp_path

    def call(self, folder, words):
        endings = (".keras", ".npz", ".onnx", ".json")
        return CliRunner().invoke(
            main, [str(folder / w) if w.endswith(endings) else w for w in words.split()]
        )

    @pytest.mark.parametrize("ending", ["keras", "onnx"])
    def test_says_that_training_is_needed(self, folder, ending):
        result = self.call(
            folder,
            f"rewrite model.{ending} -o out.{ending} --calibration data.npz --scale 1/16 "
            "--block mobilenet --json",
        )
        assert result.exit_code == 0, result.output
        notes = json.loads(result.stdout)["report"]["notes"]
        command = (
            f"dsconvert finetune {folder / 'out'}.{ending} --teacher {folder / 'model'}.{ending} "
            "--data DATA --scale 1/16"
        )
        assert f"next: {command}" in notes
        assert any(note.startswith("MobileNet blocks need fine-tuning: middle") for note in notes)
        assert f"MobileNet blocks need fine-tuning; next: {command}" in result.stderr

    def test_shows_what_became_of_the_layers(self, folder):
        result = self.call(
            folder, "rewrite model.keras --calibration data.npz --scale 1/16 --block mobilenet"
        )
        assert result.stdout.count("1 × MobileNet") == 2
        plain = self.call(
            folder, "rewrite model.keras -o plain.keras --calibration data.npz --refine 0"
        )
        assert "MobileNet" not in plain.output

    def test_a_plan_in_this_style(self, folder):
        plan = plan_of(["last"], Choice(pairs=1, order=PW))
        (folder / "plan.json").write_bytes(msgspec.json.encode(plan))
        result = self.call(
            folder,
            "rewrite model.keras --calibration data.npz --plan plan.json --block mobilenet --json",
        )
        rows = json.loads(result.stdout)["report"]["layers"]
        assert [row["block"] for row in rows] == [None, None, "mobilenet"]

    def test_refuses_in_one_sentence(self, folder):
        result = self.call(folder, "rewrite model.keras --block mobilenet")
        assert result.exit_code == 2
        assert "Error: a MobileNet block needs calibration images" in result.stderr
        assert not (folder / "model_ds.keras").exists()
