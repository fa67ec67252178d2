"""The runner on another architecture: the Arm kernels of both runtimes, emulated."""

import sys
from dataclasses import replace

import numpy as np
import pytest
from arm64_board import arm64_board, obstacle
from board_cases import BLOCK, case_of, expected, save_block

from dsconvert.deploy.devices.board import BoardDevice
from dsconvert.deploy.devices.registry import find_device
from dsconvert.deploy.profiling.profile import profile

pytestmark = [pytest.mark.slow, pytest.mark.skipif(bool(obstacle()), reason=obstacle() or "-")]
KINDS = (("litert", "float32"), ("litert", "int8"), ("ort", "float32"))
PRODUCTS = BLOCK.in_channels * BLOCK.kernel_size[0] * BLOCK.kernel_size[1]


def test_files_run_there_and_have_no_latency(tmp_path, monkeypatch):
    """The outputs are this machine's; the times are known for what they are, and not told."""
    (tmp_path / "board").mkdir()
    paths = [save_block(tmp_path / f"{runtime}-{kind}", runtime, kind) for runtime, kind in KINDS]
    reports, measure = [], BoardDevice.measure_all

    def kept(self, jobs, progress):
        reports.extend(measure(self, jobs, progress))
        return reports

    monkeypatch.setattr(BoardDevice, "measure_all", kept)
    board = arm64_board(tmp_path / "board")
    entry = replace(find_device("ssh:arm64"), open=lambda: board)
    monkeypatch.setattr(
        sys.modules["dsconvert.deploy.profiling.profile"], "find_device", lambda *name: entry
    )
    measurements = profile(paths, device="ssh:arm64", runs=5, warmup=1, min_seconds=0.0)

    (report,) = reports
    info = report.info
    assert (info.architecture, info.cpu, info.emulated) == ("aarch64", "Cortex-A72", True)
    assert set(info.runtimes) == {"litert", "ort"}
    for path, timed, (runtime, kind) in zip(paths, report.files, KINDS, strict=True):
        assert timed.failure == ""
        assert len(timed.samples_ms) == 5
        assert timed.runtime_version == info.runtimes[runtime]
        assert timed.startup.first_run_ms > 0
        case = case_of(path)
        (ours,), (theirs,) = expected(case), timed.outputs
        assert np.ptp(ours) > 0.1
        if kind == "int8":  # sums are exact; scaling them may round the other way, by one step
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=1.01 * case.output_infos[0].scale)
        else:  # as many products added in another order: each step rounds by eps / 2 of the sum
            bound = PRODUCTS * float(np.finfo(np.float32).eps) * max(1.0, float(np.max(ours)))
            np.testing.assert_allclose(theirs, ours, rtol=0, atol=bound)
    for measurement in measurements:
        assert measurement.failure.startswith("emulated: ")
        assert (measurement.latency, measurement.startup) == (None, None)
        assert measurement.device == info
    assert list((tmp_path / "board").iterdir()) == []
