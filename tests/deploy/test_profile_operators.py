"""What the runtimes' profilers say is read strictly, and told apart by what the file says."""

from __future__ import annotations

import json

import numpy as np
import pytest

from dsconvert.deploy.devices.records import OperatorTime
from dsconvert.deploy.profiling.operator_matching import matched
from dsconvert.deploy.runner.operators import median_ms, parse_ort_profile
from dsconvert.formats.stats import Op


def node(name: str, type_: str, duration: object, index: int = 0) -> dict[str, object]:
    args = {"op_name": type_, "node_index": str(index)}
    return {"cat": "Node", "name": f"{name}_kernel_time", "dur": duration, "args": args}


RUN = {"cat": "Session", "name": "model_run", "dur": 9}


def test_median_of_what_was_cut_to_whole_microseconds() -> None:
    """The median of cut values, 3 or 4, is half a microsecond or more beside the true one."""
    rng = np.random.default_rng(0)
    for true in (1.6, 3.2, 3.9, 57.5):
        cut = np.floor(rng.normal(true, 0.6, 4001).clip(0)).astype(int).tolist()
        assert median_ms(cut) * 1e3 == pytest.approx(true, abs=0.12)
    assert median_ms([0, 0, 0]) == pytest.approx(0.5e-3)


class TestOnnxRuntimesProfile:
    def test_medians_in_the_order_of_the_first_run(self) -> None:
        first = [node("b", "Conv", 900, 1), node("a", "Relu", 900, 2), RUN]
        others = [node("b", "Conv", 10, 1), node("a", "Relu", 2, 2), RUN] * 3
        found = parse_ort_profile(json.dumps([*first, *others]), skipped=1)
        assert [(one.name, one.type) for one in found] == [("b", "Conv"), ("a", "Relu")]
        assert [one.p50_ms for one in found] == pytest.approx([0.0105, 0.0025])

    def test_nodes_of_one_name_are_two(self) -> None:
        text = json.dumps([node("same", "Conv", 1, 1), node("same", "Conv", 5, 2), RUN])
        assert len(parse_ort_profile(text, skipped=0)) == 2

    @pytest.mark.parametrize(
        ("events", "message"),
        [
            ({"no": "list"}, "no list"),
            ([node("a", "Conv", 1)], "has 0 runs"),
            ([RUN], "names no operator"),
            ([node("a", "Conv", "1"), RUN], "the duration '1' at a"),
            ([node("a", "Conv", -1), RUN], "the duration -1 at a"),
            ([{**node("a", "Conv", 1), "args": {}}, RUN], "no operator type at a"),
            ([node("a", "Conv", 1), RUN, RUN], "1 times of a in 2 runs"),
        ],
    )
    def test_anything_else_is_refused(self, events: object, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            parse_ort_profile(json.dumps(events), skipped=0)

    def test_broken_json_is_refused(self) -> None:
        with pytest.raises(ValueError, match="Expecting"):
            parse_ort_profile("[{", skipped=0)


OPS = (
    Op("stem", "CONV_2D", "convolution"),
    Op("dw", "DEPTHWISE_CONV_2D", "depthwise"),
    Op("pw", "CONV_2D", "pointwise"),
    Op("scores", "SOFTMAX"),
    Op("fc", "FULLY_CONNECTED", "dense"),
)


def kinds(*said: tuple[str, str]) -> list[tuple[str, str]]:
    times = [OperatorTime(name=name, type=type_, p50_ms=1, share=0.25) for name, type_ in said]
    return [(time.name, time.kind) for time in matched(times, OPS)]


class TestMatching:
    def test_xnnpack_in_order(self) -> None:
        assert kinds(
            ("[Delegate]:0", "Convolution (NHWC, F32) IGEMM"),
            ("[Delegate]:1", "Convolution (NHWC, F32) DWConv"),
            ("[Delegate]:2", "Convert (NC, F32, QS8)"),
            ("[Delegate]:3", "Fully Connected (NC, F32) GEMM"),
            ("[Builtin]:3", "SOFTMAX"),
            ("[Delegate]:0", "Fully Connected (NC, F32) GEMM"),
        ) == [
            *(("stem", "convolution"), ("dw", "depthwise"), ("[Delegate]:2", "other")),
            *(("pw", "pointwise"), ("scores", "other"), ("fc", "dense")),
        ]

    def test_a_fused_one_makes_the_others_unsure(self) -> None:
        """Three of four: which of the file's they are is not known, but a depthwise says so."""
        assert kinds(
            ("[Delegate]:0", "Convolution (NHWC, F32) IGEMM"),
            ("[Delegate]:1", "Convolution (NHWC, F32) DWConv"),
            ("[Delegate]:2", "Fully Connected (NC, F32) GEMM"),
        ) == [
            *(("[Delegate]:0", "unknown"), ("[Delegate]:1", "depthwise")),
            ("[Delegate]:2", "unknown"),
        ]

    def test_an_order_that_cannot_be_is_not_taken(self) -> None:
        found = kinds(
            ("[Delegate]:0", "Convolution (NHWC, F32) IGEMM"),
            ("[Delegate]:1", "Fully Connected (NC, F32) GEMM"),
            ("[Delegate]:2", "Convolution (NHWC, F32) DWConv"),
            ("[Delegate]:3", "Fully Connected (NC, F32) GEMM"),
        )
        assert [kind for _, kind in found] == ["unknown", "unknown", "depthwise", "unknown"]

    def test_onnx_runtime_by_name_in_any_order(self) -> None:
        assert kinds(
            *(("fc", "Gemm"), ("pw_nchwc", "Conv"), ("ReorderOutput", "ReorderOutput")),
            *(("dw_token_7", "QLinearConv"), ("odd", "Conv")),
        ) == [
            *(("fc", "dense"), ("pw", "pointwise"), ("ReorderOutput", "other")),
            *(("dw", "depthwise"), ("stem", "convolution")),
        ]

    def test_benchmark_model_names_tensors_and_places(self) -> None:
        assert kinds(
            *(("[pw;relu]:2", "CONV_2D"), ("[dw]:1", "DEPTHWISE_CONV_2D")),
            *(("[stem]:0", "CONV_2D"), ("[fc]:4", "FULLY_CONNECTED")),
        ) == [
            *(("pw", "pointwise"), ("dw", "depthwise")),
            *(("stem", "convolution"), ("fc", "dense")),
        ]

    def test_without_the_files_operators_nothing_is_claimed(self) -> None:
        (time,) = matched([OperatorTime(name="a", type="Conv", p50_ms=1, share=1)], ())
        assert time.kind == ""
