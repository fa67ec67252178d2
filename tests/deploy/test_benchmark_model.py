"""TFLite's command line benchmark: what it is told, and what becomes of what it prints."""

from __future__ import annotations

import benchmark_model_texts as texts
import pytest

from dsconvert.deploy.devices.benchmark_model import InputFile, arguments, parse


def test_words_stay_apart_and_keep_what_they_are_given() -> None:
    words = arguments("/data/a b.tflite", threads=4, runs=20, warmup=3, min_seconds=0.05)
    assert "--graph=/data/a b.tflite" in words
    assert {"--num_threads=4", "--num_runs=20", "--warmup_runs=3", "--min_secs=0.05"} <= {*words}
    assert not any("input" in word or "output" in word or "prof" in word for word in words)


def test_inputs_go_by_order_under_names_without_commas_and_colons() -> None:
    inputs = [InputFile("/t/0.bin", (1, 224, 224, 3)), InputFile("/t/1.bin", (1, 10))]
    words = arguments("m.tflite", inputs=inputs, outputs="/t/out.bin", per_op=True)
    assert "--input_layer=input0,input1" in words
    assert "--input_layer_shape=1,224,224,3:1,10" in words
    assert "--input_layer_value_files=input0:/t/0.bin,input1:/t/1.bin" in words
    assert "--output_filepath=/t/out.bin" in words
    assert {"--enable_op_profiling=true", "--use_profiler=true"} <= {*words}


def test_a_warm_up_of_none_is_one_run_as_the_first_inference_is_of_it() -> None:
    assert "--warmup_runs=1" in arguments("m.tflite", warmup=0)


def test_a_binary_of_2019() -> None:
    result = parse(texts.OF_2019)
    assert (result.init_ms, result.avg_ms) == pytest.approx((9.933, 66.7676))
    assert (result.first_ms, result.count) == pytest.approx((127.425, 15))
    assert (result.min_ms, result.max_ms, result.std_ms) == pytest.approx((66.699, 66.838, 0.039))
    assert result.p50_ms is None
    assert result.typical_ms == result.avg_ms
    assert result.memory_mib is None
    assert result.failure == ""
    assert result.errors == ()


def test_operators_aligned_by_blanks() -> None:
    rows = parse(texts.OF_2019_OPERATORS).operators
    assert [row.type for row in rows] == ["CONV_2D", "DEPTHWISE_CONV_2D", "RESHAPE"]
    assert rows[0].name == "[MobilenetV2/Conv/Relu6]"
    assert [row.p50_ms for row in rows] == [7.237, 3.726, 0.005]
    assert sum(row.share for row in rows) == pytest.approx(1)


def test_a_binary_of_2020_and_its_peak_memory() -> None:
    result = parse(texts.OF_2020)
    assert (result.init_ms, result.first_ms) == (0.855, 49.06)
    assert (result.avg_ms, result.count) == (33.2094, 50)
    assert result.memory_mib == 12.8672
    assert result.operators == ()


def test_operators_are_those_of_the_runs_not_of_the_start() -> None:
    result = parse(texts.OF_2022_OPERATORS)
    assert [row.type for row in result.operators] == [
        "Convolution (NHWC, QU8) IGEMM",
        "Convolution (NHWC, QU8) DWConv",
        "CONCATENATION",
        "TFLite_Detection_PostProcess",
    ]
    assert result.operators[1].name == "Delegate/Convolution (NHWC, QU8) DWConv:1"
    assert result.operators[3].p50_ms == 1.339
    assert result.avg_ms == pytest.approx(7.45497)
    assert result.count == 67  # the profiler's own count is another
    assert result.delegates == ("XNNPACK",)


def test_percentiles() -> None:
    result = parse(texts.WITH_PERCENTILES)
    assert (result.p50_ms, result.p95_ms) == (105.718, 106.281)
    assert result.typical_ms == 105.718
    assert (result.init_ms, result.first_ms, result.count) == (87.639, 106.436, 50)
    assert result.memory_mib == 14.8164


def test_lines_that_went_through_androids_log() -> None:
    result = parse(texts.THROUGH_LOGCAT)
    assert result.avg_ms == pytest.approx(2719.85)  # printed as 2.71985e+06
    assert (result.first_ms, result.p50_ms, result.count) == (2732.148, 2709.263, 10)
    assert result.delegates == ("XNNPACK", "TfLiteXNNPackDelegate: 1036 of 1097 nodes")
    assert result.memory_mib == 337


def test_litert_s_binary() -> None:
    result = parse(texts.OF_LITERT)
    assert (result.init_ms, result.first_ms) == pytest.approx(
        (4.478, 1.033)
    )  # not the rounded 4.48
    assert result.avg_ms == pytest.approx(0.464545)
    assert (result.p50_ms, result.count) == pytest.approx((0.462, 2112))
    assert result.memory_mib == 11.51
    assert [row.type for row in result.operators] == [
        "LiteRT::Run[buffer registration]",
        "Static Reshape (NC)",
        "Fully Connected (NC, PF32) GEMM",
        "LiteRT::Run[Buffer sync]",
    ]


def test_litert_s_summary_alone_is_enough() -> None:
    lines = texts.OF_LITERT.splitlines()
    start = next(i for i, line in enumerate(lines) if "BENCHMARK RESULTS" in line)
    result = parse("\n".join(lines[start:]))
    assert (result.avg_ms, result.min_ms, result.max_ms) == (0.46, 0.44, 0.98)
    assert (result.init_ms, result.count) == (4.48, 2112)
    assert result.failure == ""


def test_the_summary_of_the_wheel_s_own_script() -> None:
    # What ai-edge-litert 2.3.0's litert-benchmark prints, in Python: it has percentiles here.
    text = """\
========================================
 BENCHMARK RESULTS
========================================
Model initialization:  3.33 ms
Warmup (first):        0.08 ms
Warmup (avg):          0.02 ms (5 runs)
Inference (avg):       0.12 ms (20 runs)
Inference (min):       0.10 ms
Inference (max):       0.15 ms
Inference (median):    0.11 ms
Inference (std):       0.00 ms
Inference (p5):        0.10 ms
Inference (p95):       0.14 ms
Throughput:            133.30 MB/s
Fully accelerated:     True
"""
    result = parse(text)
    assert (result.init_ms, result.first_ms, result.avg_ms) == (3.33, 0.08, 0.12)
    assert (result.p50_ms, result.p95_ms) == (0.11, 0.14)
    assert result.count == 20


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it printed no timings"),
        ("STARTING!\nINFO: Graph: [x]\n", "it printed no timings"),
        (
            "INFO: STARTING!\nERROR: Could not open '/t/x.tflite'.\n"
            "ERROR: Failed to load model /t/x.tflite\nERROR: Benchmarking failed.\n",
            "Could not open '/t/x.tflite'.",
        ),
        (
            "/system/bin/sh: /data/local/tmp/benchmark_model: not executable: 64-bit ELF file",
            "/system/bin/sh: /data/local/tmp/benchmark_model: not executable: 64-bit ELF file",
        ),
        (
            "/system/bin/sh: ./benchmark_model: can't execute: Permission denied",
            "/system/bin/sh: ./benchmark_model: can't execute: Permission denied",
        ),
        ("INFO: Loaded model x\nSegmentation fault \n", "Segmentation fault"),
    ],
)
def test_what_went_wrong_is_one_line(text: str, why: str) -> None:
    assert parse(text).failure == why


def test_flags_that_a_binary_does_not_know() -> None:
    text = "WARN: Unconsumed cmdline flags: --output_filepath=/t/o --use_profiler=true\n"
    result = parse(text + texts.OF_2020)
    assert result.ignored_flags == ("--output_filepath=/t/o", "--use_profiler=true")
    assert result.failure == ""


def test_a_warning_about_names_or_sizes_is_no_error() -> None:
    text = (
        "WARN: Tensor # 0 is named serving_default_x:0 but flags call it input0\n"
        "WARN: Failed to get the input model file size.\n"
    )
    assert parse(text + texts.WITH_PERCENTILES).errors == ()
