"""The use cases on model objects and arrays, and how results and errors speak."""

from __future__ import annotations

import io
import sys

import keras
import numpy as np
import onnx
import pytest
from onnx_twin import onnx_twin

import dsconvert as ds
from dsconvert.base.progress import as_progress, plain, silent
from dsconvert.deploy.runtimes.registry import open_runtime
from dsconvert.workflows import model_files, plan_session
from dsconvert.workflows.plan_session import TargetWish, wanted_target

FEW = ds.PlanOptions(max_pairs=2)


@pytest.fixture(scope="module")
def images(digits) -> np.ndarray:
    return digits[0][:80]


@pytest.fixture(scope="module")
def proto(digits_cnn) -> onnx.ModelProto:
    return onnx_twin(digits_cnn)


@pytest.fixture(scope="module")
def folder(digits, proto, tmp_path_factory):
    place = tmp_path_factory.mktemp("workflows")
    onnx.save(proto, place / "model.onnx")
    np.savez(place / "test.npz", x=digits[0][1200:1300], y=digits[1][1200:1300])
    return place


class TestObjects:
    def test_a_keras_model_gives_a_keras_model(self, digits_cnn, images):
        before = digits_cnn.get_weights()
        planned = ds.plan(digits_cnn, calibration=images, goals=ds.Goals(macs="0.5x"), options=FEW)
        small = ds.rewrite(digits_cnn, plan=planned, calibration=images, refine=0)
        assert isinstance(small.model, keras.Model)
        assert small.report.macs_after == planned.plan.after.macs <= planned.plan.before.macs / 2
        assert (small.record.output, small.record.size_bytes) == ("", None)
        assert all(map(np.array_equal, before, digits_cnn.get_weights()))

    def test_an_onnx_model_gives_an_onnx_model(self, proto, images, tmp_path):
        before = proto.SerializeToString()
        planned = ds.plan(proto, calibration=images, goals=ds.Goals(params="0.5x"), options=FEW)
        small = ds.rewrite(proto, plan=planned, calibration=images, output=tmp_path / "s.onnx")
        assert type(small.model).__name__ == "ModelProto"
        assert proto.SerializeToString() == before
        (output,) = open_runtime(tmp_path / "s.onnx").predict([images.transpose(0, 3, 1, 2)])
        assert np.isfinite(output).all()

    def test_both_kinds_of_the_same_network_answer_alike(self, digits_cnn, proto, folder):
        found = ds.evaluate([digits_cnn, proto], folder / "test.npz", reference=proto)
        assert found[0].top1 == found[1].top1
        assert found[0].fidelity[0].sqnr_db > 80
        assert ds.verify(proto, digits_cnn, data=folder / "test.npz").passed

    def test_float32_is_no_nearer_to_half_precision_than_that_allows(self, digits_cnn, images):
        def policy(layer):
            return type(layer).from_config(layer.get_config() | {"dtype": "mixed_bfloat16"})

        half = keras.models.clone_model(digits_cnn, clone_function=policy)
        half.set_weights(digits_cnn.get_weights())
        verified = ds.verify(half, digits_cnn, data=images)
        assert verified.fidelity[0].sqnr_db < 60
        assert verified.passed

    def test_export_of_an_object(self, proto, images, folder, tmp_path):
        int8 = ds.ExportOptions(quantize="int8", equalize="off", correct_biases=False)
        test = ds.load_data(folder / "test.npz", split="test", model=folder / "model.onnx")
        made = ds.export(proto, tmp_path / "int8.onnx", int8, calibration=images, verification=test)
        assert made.calibration.source == "memory"
        assert made.verified_on == "verification data"
        assert made.fidelity[0].sqnr_db > 15

    def test_what_is_no_model(self):
        with pytest.raises(ds.InputError) as caught:
            ds.inspect(np.zeros(3))
        assert caught.value.code == "not-a-model"

    def test_a_graph_that_does_not_run_is_refused(self, proto):
        broken = onnx.ModelProto()
        broken.CopyFrom(proto)
        broken.graph.node[0].input[0] = "nobody"
        with pytest.raises(ds.InputError) as caught:
            ds.rewrite(broken)
        assert caught.value.code == "does-not-run"


class TestOpenedOnce:
    def test_a_loaded_model_is_not_opened_again(self, folder, images, monkeypatch):
        opened = ds.load(folder / "model.onnx")
        monkeypatch.setattr(
            model_files, "_open_onnx", lambda path: pytest.fail(f"{path} opened again")
        )
        planned = ds.plan(opened, calibration=images, goals=ds.Goals(macs="0.6x"), options=FEW)
        assert planned.plan.source_sha256 == opened.sha256
        assert planned.model == str(folder / "model.onnx")
        ds.rewrite(opened, plan=planned, calibration=images)
        assert ds.inspect(opened).params > 0

    def test_a_path_is_hashed_once_by_a_plan(self, folder, images, monkeypatch):
        from dsconvert.formats.onnx import open as opening

        hashed = []
        real = opening.sha256
        monkeypatch.setattr(opening, "sha256", lambda path: hashed.append(path) or real(path))
        goals = ds.Goals(macs="0.6x")
        ds.plan(folder / "model.onnx", calibration=images, goals=goals, options=FEW)
        assert hashed == [folder / "model.onnx"]


class TestRefusals:
    @pytest.mark.parametrize(
        ("code", "call"),
        [
            ("model-not-found", lambda model, x: ds.load("absent.keras")),
            ("needs-calibration", lambda model, x: ds.plan(model, calibration=None)),
            (
                "calibration-ignored",
                lambda model, x: ds.rewrite(
                    model, calibration=x, options=ds.RewriteOptions(method="svd")
                ),
            ),
            (
                "preprocessing-ignored",
                lambda model, x: ds.rewrite(
                    model, calibration=x, preprocessing=ds.Preprocessing(scale=2.0)
                ),
            ),
            ("plan-not-found", lambda model, x: ds.rewrite(model, plan="absent.json")),
            ("wrong-suffix", lambda model, x: ds.rewrite(model, output="small.tflite")),
            ("output-is-a-folder", lambda model, x: ds.rewrite(model, output="")),
            (
                "int8-only",
                lambda model, x: ds.export(model, "a.tflite", ds.ExportOptions(report=True)),
            ),
            (
                "needs-labels",
                lambda model, x: ds.plan(
                    model, calibration=x, accuracy=ds.AccuracyGoal("1%", x), options=FEW
                ),
            ),
            ("not-a-drop", lambda model, x: ds.plan(
                model, calibration=x, accuracy=ds.AccuracyGoal("much", x)
            )),
        ],
    )  # fmt: skip
    def test_an_error_has_its_code_and_names_no_option(self, code, call, proto, images, tmp_path,
                                                       monkeypatch):  # fmt: skip
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(plan_session, "wanted_target", lambda *_: None)
        with pytest.raises(ds.InputError) as caught:
            call(proto, images)
        assert caught.value.code == code
        assert " --" not in f" {caught.value}"
        assert not [*tmp_path.iterdir()]


class TestShowing:
    def test_a_result_is_a_table_a_dictionary_and_html(self, proto):
        found = ds.inspect(proto)
        assert "middle" in str(found)
        assert str(found) == repr(found)
        assert found.to_dict()["schema"] == "dsconvert.inspection/1"
        html = found._repr_html_()
        listed = [one for one in found.convolutions if one.reason is None]
        assert 0 < len(listed) < len(found.convolutions)  # the rest is counted by its reasons
        assert html.count("<tr>") == 1 + len(listed)
        assert "<th" in html

    def test_columns_of_numbers_end_in_line(self):
        from dsconvert.base.tables import Table, as_html, as_text

        table = Table(("name",), ("MACs",))
        table.add("a", "1")
        table.add("<b>", "100")
        assert as_text([table, "done"]).splitlines() == [
            "name  MACs",
            "a        1",
            "<b>    100",
            "done",
        ]
        assert "&lt;b&gt;" in as_html([table])

    def test_data_shows_shapes_and_no_pixels(self, folder):
        data = ds.load_data(folder / "test.npz", split="test")
        told = f"float32 {data.inputs[0].shape}; labels int64 (100,)"
        assert repr(data) == f"100 samples of {folder / 'test.npz'}: {told}"


class TestProgress:
    def test_what_is_asked_for(self):
        assert as_progress(True) is plain
        assert as_progress(False) is silent
        assert as_progress(plain) is plain

    def test_a_bar_on_a_terminal(self, monkeypatch):
        class Terminal(io.StringIO):
            def isatty(self):
                return True

        monkeypatch.setattr(sys, "stderr", Terminal())
        with plain("Fitting", 2) as advance:
            advance()
            advance()
        drawn = sys.stderr.getvalue().split("\r")
        assert drawn[1].startswith("Fitting [-")
        assert "############------------] 1/2" in drawn[2]
        assert drawn[3].endswith("########] 2/2\n")

    def test_true_tells_of_the_work(self, proto, images, capsys):
        ds.inspect(proto, calibration=images, progress=True)
        assert "…" in capsys.readouterr().err


class TestTarget:
    def test_a_phone_of_any_name_gets_tflite_files(self, monkeypatch, tmp_path):
        settings = tmp_path / "devices.toml"
        settings.write_text('[phones.pixel]\nserial = "R5CR1"\n')
        monkeypatch.setenv("DSCONVERT_DEVICES", str(settings))
        found = TargetWish(device="pixel").complete("onnx")
        assert (found.runtime, found.device) == ("litert", "pixel")

    def test_nothing_is_measured_where_time_is_no_question(self):
        assert wanted_target(None, ds.Goals(macs="0.5x"), "keras") is None
        assert wanted_target(TargetWish(threads=2), ds.Goals(macs="0.5x"), "keras") is None
        assert wanted_target(None, ds.Goals(), "onnx").runtime == "ort"
        assert wanted_target(None, ds.Goals(latency="0.5x"), "keras").runtime == "litert"
        named = TargetWish(precision="int8", threads=2)
        assert wanted_target(named, ds.Goals(macs="0.5x"), "keras") == ds.Target(
            "litert", "int8", threads=2
        )
