"""Fine-tuning in several processes and on several devices ends as on one."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from workers import trained

pytest.importorskip("tensorflow")

from dsconvert.base.errors import InputError
from dsconvert.models.training.replicas import One, replicas_of

# Gradients are averaged in another order: rounding of 6e-8 in each of 24 steps of Adam, whose
# first steps are the signs of the gradients, times a rate of 0.02.
TOLERANCE = 1e-4


def weights(path):
    with np.load(path) as file:
        return [file[name] for name in file.files if name != "steps"]


def assert_close(found, expected, tolerance=TOLERANCE):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The weights of one process with the whole batch."""
    path = tmp_path_factory.mktemp("one") / "one.npz"
    ((code, told),) = trained("one", [path])
    assert code == 0, told
    return weights(path)


@pytest.mark.slow
class TestWorkers:
    def test_two_processes_end_as_one(self, alone, tmp_path):
        paths = [tmp_path / "first.npz", tmp_path / "second.npz"]
        ended = trained("multiworker", paths)
        assert [code for code, _ in ended] == [0, 0], ended
        first, second = map(weights, paths)
        assert_close(first, second, 0)
        assert_close(first, alone)
        assert not paths[1].with_suffix(".state").exists()

    def test_a_killed_worker_comes_back(self, alone, tmp_path):
        paths = [tmp_path / "first.npz", tmp_path / "second.npz"]
        (left, told), (killed, _) = trained("multiworker", paths, (None, 11))
        assert killed == -signal.SIGKILL
        assert left == 2, told
        assert told.rstrip().endswith("worker-lost")
        assert paths[0].with_suffix(".state").exists()
        ended = trained("multiworker", paths)
        assert [code for code, _ in ended] == [0, 0], ended
        first, second = map(weights, paths)
        assert_close(first, second, 0)
        assert_close(first, alone)

    def test_two_devices_end_as_one(self, alone, tmp_path):
        path = tmp_path / "mirrored.npz"
        ((code, told),) = trained("mirrored", [path])
        assert code == 0, told
        assert_close(weights(path), alone)


class TestStrategy:
    def test_one_where_nothing_else_is(self, monkeypatch):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        assert isinstance(replicas_of("auto"), One)

    @pytest.mark.parametrize(
        "config",
        [
            None,
            "{",
            json.dumps({"cluster": {"worker": ["a:1", "b:1"]}}),
            json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}),
            json.dumps({"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}),
        ],
    )
    def test_a_cluster_that_is_not_described(self, monkeypatch, config):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        if config is not None:
            monkeypatch.setenv("TF_CONFIG", config)
        with pytest.raises(InputError) as refused:
            replicas_of("multiworker")
        assert refused.value.code == "no-cluster"
