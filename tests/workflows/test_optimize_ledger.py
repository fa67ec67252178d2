"""A run of optimize keeps account of what is done."""

from __future__ import annotations

import os

import numpy as np
import pytest

from dsconvert.base.errors import GateFailed, InputError
from dsconvert.workflows.optimize.ledger import Ledger, Stage, fingerprint, run_folder


@pytest.fixture
def ledger(tmp_path):
    (tmp_path / "stages").mkdir()
    return Ledger(tmp_path, lambda line: None)


class TestLedger:
    def work(self, folder, text="a"):
        def run():
            (folder / "out.bin").write_text(text)
            self.runs += 1
            return {"found": text}

        return run

    def setup_method(self):
        self.runs = 0

    def stage(self, **given):
        return Stage("one", "One", **{"inputs": {"x": 1}, "files": ("out.bin",), **given})

    def test_a_finished_stage_is_not_run_again(self, ledger, tmp_path):
        first = ledger.run(self.stage(), self.work(tmp_path))
        again = Ledger(tmp_path, lambda line: None)
        assert again.run(self.stage(), self.work(tmp_path)) == first
        assert (self.runs, again.ran, first.result) == (1, [], {"found": "a"})

    def test_another_input_runs_it_again(self, ledger, tmp_path):
        ledger.run(self.stage(), self.work(tmp_path))
        ledger.run(self.stage(inputs={"x": 2}), self.work(tmp_path))
        assert self.runs == 2

    def test_a_file_that_is_not_what_was_written_runs_it_again(self, ledger, tmp_path):
        ledger.run(self.stage(), self.work(tmp_path))
        (tmp_path / "out.bin").write_text("cut of")
        ledger.run(self.stage(), self.work(tmp_path))
        (tmp_path / "out.bin").unlink()
        ledger.run(self.stage(), self.work(tmp_path))
        assert self.runs == 3

    def test_a_stage_before_it_runs_those_after_it_again(self, ledger, tmp_path):
        after = Stage("two", "Two", after=("one",))
        ledger.run(self.stage(), self.work(tmp_path))
        key = ledger.key(after)
        ledger.run(self.stage(inputs={"x": 2}), self.work(tmp_path))
        assert ledger.key(after) != key

    def test_a_record_that_was_cut_off_counts_for_nothing(self, ledger, tmp_path):
        ledger.run(self.stage(), self.work(tmp_path))
        path = tmp_path / "stages" / "one.json"
        path.write_bytes(path.read_bytes()[:-5])
        ledger.run(self.stage(), self.work(tmp_path))
        assert self.runs == 2

    def test_a_failure_is_told_and_tried_again(self, ledger, tmp_path):
        def fail():
            self.runs += 1
            raise GateFailed("no good", code="made-up")

        optional = self.stage(needed=False)
        record = ledger.run(optional, fail)
        assert (record.failure, record.code, record.files) == ("no good", "made-up", {})
        ledger.run(optional, fail)
        assert self.runs == 2
        with pytest.raises(GateFailed):
            ledger.run(self.stage(inputs={"x": 3}), fail)

    def test_notes_are_kept(self, ledger, tmp_path):
        from dsconvert.base.messages import note

        record = ledger.run(Stage("n", "N"), lambda: note("use --method svd"))
        assert record.notes == ("use --method svd",)


class TestFolder:
    def test_a_folder_of_something_else_is_refused(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(InputError) as error, run_folder(tmp_path):
            pass
        assert error.value.code == "not-a-run"
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    @pytest.mark.skipif(os.name != "posix", reason="flock is POSIX")
    def test_two_runs_at_once_are_refused(self, tmp_path):
        folder = tmp_path / "run"
        with run_folder(folder), pytest.raises(InputError) as error, run_folder(folder):
            pass
        assert error.value.code == "run-at-work"
        with run_folder(tmp_path / "run"):
            pass

    def test_what_a_killed_run_left_half_done_is_removed(self, tmp_path):
        with run_folder(tmp_path / "run"):
            left = tmp_path / "run" / "files" / ".a.tflite.x8k2"
            left.mkdir()
        with run_folder(tmp_path / "run"):
            assert not left.exists()

    def test_data_are_known_by_their_content(self, tmp_path):
        path = tmp_path / "a.npy"
        np.save(path, np.zeros(3))
        first = fingerprint(path)
        np.save(path, np.ones(3))
        assert fingerprint(path) != first
        assert fingerprint(tmp_path) == fingerprint(tmp_path)
