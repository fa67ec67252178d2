"""What files would need: the arena of a microcontroller, and Vela's estimates for NPUs."""

from __future__ import annotations

import shutil
import sys
from itertools import permutations
from pathlib import Path

import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given
from hypothesis import strategies as st
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.deploy.costs import estimate
from dsconvert.deploy.profiling.estimates import estimate_measurements
from dsconvert.deploy.profiling.profile import profile
from dsconvert.deploy.profiling.tflm_arena import ALIGNMENT, Buffer, arena_of, floor, needed, plan


@st.composite
def lives(draw: st.DrawFn, most: int) -> list[Buffer]:
    """Buffers of any size and life; several of one size, so that ties occur."""
    count = draw(st.integers(1, most))
    found = []
    for _ in range(count):
        size = draw(st.sampled_from([1, 16, 17, 48, 160]) | st.integers(0, 400))
        first = draw(st.integers(0, 8))
        found.append(Buffer(size, first, first + draw(st.integers(0, 5))))
    return found


def aligned(size: int) -> int:
    return (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT


@given(lives(14))
def test_tensors_that_are_alive_together_do_not_overlap(buffers: list[Buffer]) -> None:
    offsets = plan(buffers)
    assert all(offset % ALIGNMENT == 0 for offset in offsets)
    for i, (a, start) in enumerate(zip(buffers, offsets, strict=True)):
        assert start + a.size <= needed(buffers, offsets)
        for b, other in list(zip(buffers, offsets, strict=True))[i + 1 :]:
            apart = start + a.size <= other or other + b.size <= start
            assert apart or not a.meets(b)


@given(lives(14))
def test_no_plan_needs_less_than_what_is_alive_in_a_step(buffers: list[Buffer]) -> None:
    steps = range(max(b.last for b in buffers) + 1)
    alive = [sum(aligned(b.size) for b in buffers if b.first <= t <= b.last) for t in steps]
    assert floor(buffers) == max(alive)
    assert needed(buffers, plan(buffers)) >= floor(buffers)
    assert needed(buffers, plan(buffers)) <= sum(aligned(b.size) for b in buffers)


def best(buffers: list[Buffer]) -> int:
    """The least that any plan needs: buffers put down in every order, each as low as it goes.

    An optimal plan can be pressed down until nothing moves; then putting its buffers down by their
    offsets, each as low as it goes, gives it again.
    """
    least = sys.maxsize
    for order in permutations(range(len(buffers))):
        offsets: dict[int, int] = {}
        for i in order:
            met = sorted((offsets[j], j) for j in offsets if buffers[i].meets(buffers[j]))
            start = 0
            for offset, j in met:
                if offset - start >= aligned(buffers[i].size):
                    break
                start = max(start, offset + aligned(buffers[j].size))
            offsets[i] = start
        least = min(least, max(o + aligned(buffers[i].size) for i, o in offsets.items()))
    return least


@given(lives(5))
def test_the_greedy_plan_lies_between_the_best_one_and_no_sharing(buffers: list[Buffer]) -> None:
    found, optimum = needed(buffers, plan(buffers)), best(buffers)
    assert floor(buffers) <= optimum <= found


def test_a_plan_that_shares() -> None:
    chain = [Buffer(100, 0, 1), Buffer(200, 1, 2), Buffer(50, 2, 3), Buffer(160, 3, 4)]
    assert plan(chain) == (208, 0, 208, 0)
    assert needed(chain, plan(chain)) == 208 + 112
    assert needed([], []) == floor([]) == 0


def test_among_equals_the_last_goes_lowest_as_in_tflm() -> None:
    assert plan([Buffer(64, 0, 1), Buffer(64, 0, 1), Buffer(64, 0, 1)]) == (128, 64, 0)


FORMS = {
    # What tflite-micro 0.dev20261023 reports as "Arena allocation head" of these very files: a
    # 3×3 convolution 5→8 on 11×10, strides 2×2, behind a PAD, and what may replace it.
    "convolution": 1280,
    "two pairs": 1280,
    "three pairs": 2592,
    "three pairs in float": 10320,
    "depth multiplier": 1280,
}
FILES = Path(__file__).parents[1] / "support" / "arena_files"


def save(path: Path, name: str = "convolution") -> Path:
    shutil.copyfile(FILES / f"{name.replace(' ', '_')}.tflite", path)
    return path


@pytest.mark.parametrize("name", FORMS)
def test_the_plan_is_tflm_s_to_the_byte(tmp_path: Path, name: str) -> None:
    assert arena_of(save(tmp_path / "m.tflite", name)).planned == FORMS[name]


def test_what_a_file_s_tensors_need(tmp_path: Path) -> None:
    arena = arena_of(save(tmp_path / "m.tflite"))
    # A PAD, since the padding is none of TFLite's: 11×10×5 to 13×11×5; then 6×5×8.
    assert [tuple(b) for b in arena.buffers] == [
        (550, 0, 1, "x"),
        (715, 1, 2, "x"),
        (240, 2, 2, "y"),
    ]
    assert arena.input_shapes == ((1, 11, 10, 5),)
    assert (arena.types, arena.kernels) == ({"INT8"}, {"INT8"})
    assert arena.multipliers == 8 * 8
    assert arena.weights == 3 * 3 * 5 * 8 + 4 * 8 + 4 * 2 * 4  # kernel, bias, pads


def test_every_file_gives_a_record(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.tflite"), save(tmp_path / "b.tflite", "three pairs")]
    first, second = profile(paths, device="mcu")
    assert first.latency is first.startup is None
    assert first.failure == ""
    assert first.estimate is not None
    assert second.estimate is not None
    assert (first.estimate.kind, first.estimate.arena_kib) == ("mcu", 1280 / 1024)
    assert first.estimate.flash_kib == paths[0].stat().st_size / 1024
    assert first.estimate.cycles is first.estimate.inference_ms is None
    assert "planned from the file, not measured" in first.notes[0]
    assert not any("no plan needs less" in note for note in first.notes)
    assert any("no plan needs less than 2.3 KiB" in note for note in second.notes)
    assert first.macs == 6 * 5 * 9 * 5 * 8


def test_vela_s_figures(tmp_path: Path) -> None:
    path = save(tmp_path / "m.tflite", "two pairs")
    (found,) = estimate_measurements([path], "ethos-u55-128")
    figures = estimate(path, "ethos-u55-128")
    assert found.estimate is not None
    assert (found.estimate.kind, found.estimate.cycles) == ("npu", figures.cycles)
    assert found.estimate.inference_ms == figures.inference_ms
    assert found.estimate.sram_kib == figures.sram_kib
    assert found.estimate.npu_share == figures.npu_share == 1
    assert figures.version in found.estimate.method
    assert "Ethos_U55_High_End_Embedded, Shared_Sram" in found.estimate.method
    assert found.latency is None


def test_an_npu_takes_no_float_file(tmp_path: Path) -> None:
    path = save(tmp_path / "m.tflite", "convolution in float")
    with pytest.raises(InputError, match=r"m\.tflite computes in float") as caught:
        estimate_measurements([path], "ethos-u55-128")
    assert "--quantize int8" in caught.value.words.hint
    (found,) = estimate_measurements([path], "mcu")  # a microcontroller does, slowly
    assert found.estimate is not None
    assert found.estimate.arena_kib == (2864 + 2208) / 1024


@pytest.mark.parametrize(("device", "name"), [("mcu", "m.onnx"), ("ethos-u65-256", "m.h5")])
def test_other_formats_say_how_to_export(tmp_path: Path, device: str, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"runs \.tflite files only") as caught:
        estimate_measurements([tmp_path / name], device)
    assert "dsconvert export" in caught.value.words.hint


def test_what_cannot_be_estimated(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown device 'ethos-u1'"):
        estimate_measurements([tmp_path / "m.tflite"], "ethos-u1")
    with refuses("file-not-found"):
        estimate_measurements([tmp_path / "m.tflite"], "mcu")
    (tmp_path / "m.tflite").write_bytes(b"no flatbuffer")
    with refuses("not-a-tflite-file"):
        estimate_measurements([tmp_path / "m.tflite"], "mcu")


def changed(path: Path, change: object) -> Path:
    """The file with its object tree changed."""
    import flatbuffers

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes()))
    change(model)  # type: ignore[operator]
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(builder.Output())
    return path


def test_control_flow_and_types_of_unknown_size_are_refused(tmp_path: Path) -> None:
    def branch(model: schema.ModelT) -> None:
        model.subgraphs.append(model.subgraphs[0])

    def text(model: schema.ModelT) -> None:
        model.subgraphs[0].tensors[0].type = schema.TensorType.STRING

    with pytest.raises(InputError, match="2 subgraphs"):
        arena_of(changed(save(tmp_path / "m.tflite"), branch))
    with refuses("size-unknown"):
        arena_of(changed(save(tmp_path / "m.tflite"), text))


def test_what_vela_compiled_has_no_figures_any_more(tmp_path: Path) -> None:
    def compiled(model: object) -> None:
        (code,) = {op.opcodeIndex for op in model.subgraphs[0].operators[-1:]}
        model.operatorCodes[code].builtinCode = schema.BuiltinOperator.CUSTOM
        model.operatorCodes[code].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
        model.operatorCodes[code].customCode = b"ethos-u"

    path = changed(save(tmp_path / "m.tflite"), compiled)
    for device in ("mcu", "ethos-u55-128"):
        with refuses("compiled-file"):
            estimate_measurements([path], device)
    with refuses("does-not-load") as caught:
        profile([path])
    assert "runs there alone. Give the int8 file" in caught.value.words.hint


def test_an_output_lives_to_the_end(tmp_path: Path) -> None:
    def second_output(model: schema.ModelT) -> None:
        graph = model.subgraphs[0]
        names = [tensor.name for tensor in graph.tensors]
        graph.outputs = [*graph.outputs, names.index(b"between0")]

    before = arena_of(save(tmp_path / "m.tflite", "two pairs"))
    after = arena_of(changed(tmp_path / "m.tflite", second_output))
    lasts = [{b.name: b.last for b in arena.buffers}["between0"] for arena in (before, after)]
    assert lasts == [3, 6]  # PAD, 2 × (depthwise, pointwise), ADD


def test_weights_that_tflm_has_no_kernels_for_are_said(tmp_path: Path) -> None:
    def hybrid(model: schema.ModelT) -> None:
        graph = model.subgraphs[0]
        (conv,) = (op for op in graph.operators if len(op.inputs) == 3)
        weights = graph.tensors[conv.inputs[1]]
        weights.type = schema.TensorType.INT8
        stored = model.buffers[weights.buffer]
        stored.data = stored.data[: len(stored.data) // 4]

    path = changed(save(tmp_path / "m.tflite", "convolution in float"), hybrid)
    (found,) = estimate_measurements([path], "mcu")
    assert any("no kernels for weights in int8 with" in note for note in found.notes)


def test_without_vela_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ethosu.vela", None)
    with refuses("missing-extra") as caught:
        estimate_measurements([save(tmp_path / "m.tflite")], "ethos-u55-128")
    assert "dsconvert[ethosu]" in caught.value.hint
