"""Costs of blocks on a board: one visit for many files, kept by what the board is."""

import json
import sys
from dataclasses import replace

import msgspec
import pytest
from local_board import local_board
from refusals import refuses

from dsconvert.base.errors import InputError
from dsconvert.converter.core.planning.cost_model import Block
from dsconvert.converter.core.types import Choice
from dsconvert.deploy.costs import Target, measured_costs
from dsconvert.deploy.devices.device import TimedFile
from dsconvert.deploy.devices.records import DeviceInfo

ONE = Choice(pairs=1, order="depthwise-first")
model_module = sys.modules[measured_costs.__module__]
TWO = Choice(pairs=2, order="depthwise-first")
WIDE = Block(input_size=(28, 28), in_channels=64, out_channels=64, kernel_size=(3, 3))
OTHER = Block(input_size=(8, 8), in_channels=8, out_channels=16, kernel_size=(3, 3))
BOARD = Target(device="ssh:board")


@pytest.fixture
def board(tmp_path, monkeypatch):
    """``ssh:board`` is this machine, without a network; its visits are counted."""
    folder = tmp_path / "board"
    folder.mkdir()
    found = local_board("ssh:board", python=sys.executable, folder=folder)
    found.visits = []
    real = found.visit

    async def visit(jobs, *rest, **options):
        found.visits.append([len(job.cases) for job in jobs])
        return await real(jobs, *rest, **options)

    monkeypatch.setattr(found, "visit", visit)
    monkeypatch.setattr(model_module, "open_device", lambda name: found)
    yield found
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("runtime", ["litert", "ort"])
def test_blocks_of_a_visit(board, tmp_path, runtime):
    target = Target(device="ssh:board", runtime=runtime)
    asked = [(WIDE, [ONE, TWO]), (OTHER, [ONE]), (WIDE, [ONE])]
    costs = replace(measured_costs(target, cache=tmp_path / "cache", seconds=0.02), present=1.0)
    assert costs.unit == "ms"
    assert "(ssh:board)" in costs.target
    first = costs.costs(asked)
    # Equal blocks together, both blocks in one visit, the reference block in turns with each.
    assert board.visits == [[4, 3]]
    assert first[2].choices == first[0].choices[:1]
    assert first[0].choices[0].value < first[0].original.value  # an eighth of the MACs
    assert first[0].choices[0].faster
    again = replace(measured_costs(target, cache=tmp_path / "cache"), present=1.0)
    assert again.costs(asked) == first
    assert board.visits == [[4, 3]]
    measured_costs(target, cache=tmp_path / "cache", seconds=0.0).costs(asked)
    assert board.visits == [[4, 3], [1]]  # what the reference block takes now
    for path in (tmp_path / "cache").rglob("*.json"):
        conditions = json.loads(path.read_text())["conditions"]
        assert conditions["device"] == "ssh:board"
        assert {"cpu", "cores", "version", "system", "architecture"} <= conditions.keys()


def test_not_all_at_once(board, tmp_path, monkeypatch):
    """What an interruption loses is the last visit."""
    monkeypatch.setattr(model_module, "_AT_ONCE", 1)
    steps = []

    class Progress:
        def __init__(self, label, total):
            self.total = total

        def __enter__(self):
            return lambda: steps.append(len(list(tmp_path.rglob("cache/**/*.json"))))

        def __exit__(self, *error):
            return None

    measured_costs(BOARD, cache=tmp_path / "cache", seconds=0.0, progress=Progress).costs(
        [(WIDE, [ONE]), (OTHER, [ONE])]
    )
    assert board.visits == [[3], [3], [1]]
    assert steps == [1, 2]


def test_other_boards_have_other_costs(board, tmp_path, monkeypatch):
    """The name alone does not say what answers to it."""
    options = {"cache": tmp_path / "cache", "seconds": 0.0}
    measured_costs(BOARD, **options).costs([(OTHER, [ONE])])
    info = board.describe()
    for change in ({"cpu": "another"}, {"cores": 17}, {"runtimes": {"litert": "9", "ort": "9"}}):
        other = msgspec.structs.replace(info, **change)
        monkeypatch.setattr(board, "describe", lambda other=other: other)
        measured_costs(BOARD, **options).costs([(OTHER, [ONE])])
    assert len([visit for visit in board.visits if visit == [3]]) == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"emulated": True}, "ssh:board is emulated: its times are no costs to plan by"),
        ({"runtimes": {"ort": "1"}}, "ssh:board does not run .tflite files in LiteRT: it has ort"),
        ({"runtimes": {}}, "it has no runtime"),
    ],
)
def test_boards_that_cannot(board, tmp_path, monkeypatch, change, message):
    info = DeviceInfo(name="ssh:board", cpu="", architecture="", cores=1, runtimes={"litert": "1"})
    monkeypatch.setattr(board, "describe", lambda: msgspec.structs.replace(info, **change))
    with pytest.raises(InputError, match=message):
        measured_costs(BOARD, cache=tmp_path)


def test_form_that_fails_has_no_cost(board, tmp_path, monkeypatch, caplog):
    """And a convolution that fails ends it: there is nothing to compare with."""
    real, bad = board.measure_all, [2]  # after the reference block and the convolution

    def measure_all(jobs, **options):
        (report,) = real(jobs, **options)
        files = [
            TimedFile("LiteRT", "1", "", failure="it broke") if i in bad else timed
            for i, timed in enumerate(report.files)
        ]
        return [type(report)(report.info, report.before, report.after, tuple(files))]

    monkeypatch.setattr(board, "measure_all", measure_all)
    costs = measured_costs(BOARD, cache=tmp_path / "one", seconds=0.0)
    ((choices),) = [one.choices for one in costs.costs([(OTHER, [ONE, TWO])])]
    assert choices[0] is None
    assert choices[1].value > 0
    assert "it broke" in caplog.text
    bad.append(1)
    with refuses("cost-not-measured"):
        measured_costs(BOARD, cache=tmp_path / "two", seconds=0.0).costs([(OTHER, [ONE])])


def test_targets_that_there_are_not():
    for device, message in (
        ("pi", r"unknown device 'pi'; allowed: host, ssh:\[USER@\]HOST"),
        ("ssh:a b", "'ssh:a b' is no board"),
        ("host:1", "unknown device 'host:1'"),
    ):
        with pytest.raises(InputError, match=message):
            Target(device=device)
    with pytest.raises(InputError, match=r"adb runs \.tflite files only, got runtime ort"):
        Target(device="adb", runtime="ort")
    assert not BOARD.on_host
    assert not BOARD.estimated
    assert Target(device="ssh:board", runtime="ort", threads=4).threads == 4
