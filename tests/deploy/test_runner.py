"""The runner: one file of the standard library and numpy, for old Pythons, that survives files."""

import ast
import gc
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from board_cases import case_of, expected, save_block

from dsconvert.deploy.devices.device import Job
from dsconvert.deploy.devices.job_files import unwire, wire
from dsconvert.deploy.devices.pack import packed_runner
from dsconvert.deploy.devices.records import DeviceInfo
from dsconvert.deploy.runner import engines, ort_engine
from dsconvert.deploy.runner import measuring as measuring_module
from dsconvert.deploy.runner.child import in_child
from dsconvert.deploy.runner.emulation import is_emulated
from dsconvert.deploy.runner.job import read_job
from dsconvert.deploy.runner.measuring import measure

RUNNER = Path(measuring_module.__file__).parent
QUICK = {"runs": 5, "warmup": 1, "min_seconds": 0.0}
HOST = DeviceInfo(name="here", cpu="", architecture="", cores=1)
SINCE = {  # what the runner must not use: names of the standard library that 3.9 lacks
    "asyncio": {"TaskGroup", "timeout", "Runner"},
    "itertools": {"pairwise", "batched"},
    "contextlib": {"chdir", "aclosing"},
    "hashlib": {"file_digest"},
    "typing": {"ParamSpec", "Self", "TypeAlias", "assert_never", "override", "Concatenate"},
    "types": {"NoneType", "UnionType", "EllipsisType"},
    "enum": {"StrEnum"},
    "datetime": {"UTC"},
    "importlib": {"resources"},
    "statistics": {"correlation", "covariance", "linear_regression"},
    "math": {"cbrt", "exp2"},
    "inspect": {"get_annotations"},
    "operator": {"call"},
}
BUILTINS = {"aiter", "anext", "ExceptionGroup", "BaseExceptionGroup", "EncodingWarning"}
KEYWORDS = {  # arguments that came later
    "zip": {"strict"},
    "dataclass": {"slots", "kw_only"},
    "fields": {"strict"},
    "open": set(),
    "with_stem": set(),
    "rmtree": {"onexc"},
    "walk": set(),
}


def sources():
    return sorted(RUNNER.glob("*.py"))


class TestSources:
    @pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
    def test_python_3_9_reads_them(self, path):
        tree = ast.parse(path.read_text(), feature_version=(3, 9))
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        future = "__future__" in {node.module for node in imports}
        assert future or not tree.body[1:], "int | None in an annotation is an error without it"
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Match)
            if isinstance(node, ast.ImportFrom) and node.module in SINCE:
                assert not SINCE[node.module] & {name.name for name in node.names}
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert node.attr not in SINCE.get(node.value.id, ())
            if isinstance(node, ast.Name):
                assert node.id not in BUILTINS
            if isinstance(node, ast.Call):
                called = getattr(node.func, "id", getattr(node.func, "attr", ""))
                given = {keyword.arg for keyword in node.keywords}
                assert not given & KEYWORDS.get(called, set()), f"{called} in line {node.lineno}"

    @pytest.mark.parametrize("path", sources(), ids=lambda path: path.name)
    def test_they_import_nothing_but_what_every_board_has(self, path):
        """numpy and the runtimes only inside functions: the parent process loads none of them."""
        tree = ast.parse(path.read_text())
        allowed = sys.stdlib_module_names
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = [name.name.partition(".")[0] for name in node.names]
                assert {name for name in names if name not in allowed} <= {"numpy"}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                assert node.module.partition(".")[0] in {*allowed, "numpy"}
        for node in tree.body:
            if isinstance(node, ast.Import):
                assert "numpy" not in {name.name for name in node.names}


class TestPacked:
    def test_same_sources_same_bytes(self):
        first = packed_runner()
        packed_runner.cache_clear()
        assert packed_runner() == first
        with zipfile.ZipFile(io.BytesIO(first)) as archive:
            names = archive.namelist()
        assert names[0] == "__main__.py"
        assert {f"dsconvert_runner/{path.name}" for path in sources()} == {*names[1:]}
        assert len(first) < 100_000

    def test_it_describes_without_a_package(self, tmp_path):
        """Neither numpy nor dsconvert can be imported there."""
        (tmp_path / "runner.pyz").write_bytes(packed_runner())
        command = [sys.executable, "-I", "-S", str(tmp_path / "runner.pyz"), "describe"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        said = json.loads(done.stdout)
        assert (said["numpy"], said["runtimes"], said["emulated"]) == (False, {}, False)

    def test_it_runs_on_the_oldest_python(self, tmp_path):
        """Where one is at hand: the syntax is not all there is."""
        (tmp_path / "runner.pyz").write_bytes(packed_runner())
        for python in ("python3.9", "python3.10"):
            command = [python, str(tmp_path / "runner.pyz"), "describe"]
            if (
                shutil.which(python)
                and not subprocess.run([python, "-c", ""], capture_output=True).returncode
            ):
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                assert json.loads(done.stdout)["emulated"] is False
                return
        pytest.skip("there is neither python3.9 nor python3.10")

    def test_other_commands_are_explained(self, tmp_path):
        (tmp_path / "runner.pyz").write_bytes(packed_runner())
        command = [sys.executable, str(tmp_path / "runner.pyz"), "help"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1
        assert "measure FOLDER" in done.stderr


def lay_out(folder: Path, *jobs: Job, **options):
    """Write jobs into a folder as they are sent to boards."""
    wired = wire(jobs, **options)
    for name, content in wired.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    return wired


def done(folder: Path, *jobs: Job, **options):
    """Do jobs in this process, which forks; give the reports as this side reads them."""
    wired = lay_out(folder, *jobs, **options)
    measure(read_job(folder), False, lambda: None)
    return read(folder, wired, jobs)


def read(folder, wired, jobs, ended=""):
    said = json.loads((folder / "report.json").read_text())
    outputs = {
        place: (folder / f"{place}.outputs.npz").read_bytes()
        for places in wired.places
        for place in places
        if (folder / f"{place}.outputs.npz").exists()
    }
    return unwire(jobs, wired, str(folder), said, outputs, HOST, ended)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    kinds = [("litert", "float32"), ("litert", "int8"), ("ort", "float32")]
    return [case_of(save_block(folder / f"{r}-{kind}", r, kind)) for r, kind in kinds]


def dies(monkeypatch, name: str, when: str):
    """Let a file bring its process down: when it is loaded, when it runs, or in the rounds."""
    real = engines.open_file

    def open_file(runtime, path, threads):
        if name not in path:
            return real(runtime, path, threads)
        if when == "loading":
            os.kill(os.getpid(), signal.SIGUSR1)
        opened, runs = real(runtime, path, threads), []

        def prepare(arrays):
            engine = opened.prepare(arrays)

            def run():
                runs.append(0)
                if len(runs) > {"running": 0, "rounds": 4}[when]:
                    os.kill(os.getpid(), signal.SIGKILL)
                engine.run()

            return engine._replace(run=run)

        return opened._replace(prepare=prepare)

    monkeypatch.setattr(engines, "open_file", open_file)


class TestMeasuring:
    def test_outputs_and_figures(self, cases, tmp_path):
        (report,) = done(tmp_path, Job(cases=tuple(cases), **QUICK))
        for case, timed in zip(cases, report.files, strict=True):
            assert timed.failure == ""
            assert len(timed.samples_ms) == 5
            for ours, theirs in zip(expected(case), timed.outputs, strict=True):
                np.testing.assert_array_equal(ours, theirs)

    @pytest.mark.parametrize("when", ["loading", "running", "rounds"])
    @pytest.mark.parametrize("startup", [True, False])
    def test_file_that_kills_its_process(self, cases, tmp_path, monkeypatch, when, startup):
        dies(monkeypatch, "0/1/", when)
        (report,) = done(tmp_path, Job(cases=tuple(cases), **QUICK), startup=startup)
        sound, killer, other = report.files
        name = "SIGUSR1" if when == "loading" else "SIGKILL"
        assert killer.failure.startswith(f"it brought its process down ({name}")
        assert killer.samples_ms == ()
        for timed, case in ((sound, cases[0]), (other, cases[2])):
            assert timed.failure == ""
            assert len(timed.samples_ms) == 5
            np.testing.assert_array_equal(timed.outputs[0], expected(case)[0])

    def test_all_together_are_too_much(self, cases, tmp_path, monkeypatch):
        """Each can be timed alone: that they cannot together is said of all."""
        real = measuring_module.time_in_rounds

        def time_in_rounds(calls, *rest, **options):
            if len(calls) > 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(calls, *rest, **options)

        monkeypatch.setattr(measuring_module, "time_in_rounds", time_in_rounds)
        (report,) = done(tmp_path, Job(cases=tuple(cases), **QUICK), startup=False)
        for timed in report.files:
            assert timed.failure.startswith("timed with the others, it brought its process down")

    def test_report_is_there_before_the_end(self, cases, tmp_path, monkeypatch):
        """What was found before the runner fails can be read."""
        dies(monkeypatch, "nothing", "loading")
        jobs = [Job(cases=(cases[0],), **QUICK), Job(cases=(cases[2],), **QUICK)]
        wired = lay_out(tmp_path, *jobs)
        real, count = measuring_module._record_rounds, []

        def rounds(*arguments, **options):
            count.append(0)
            if len(count) > 1:
                raise MemoryError
            real(*arguments, **options)

        monkeypatch.setattr(measuring_module, "_record_rounds", rounds)
        with pytest.raises(MemoryError):
            measure(read_job(tmp_path), False, lambda: None)
        first, second = read(tmp_path, wired, jobs, "it failed")
        assert len(first.files[0].samples_ms) == 5
        assert second.files[0].startup.load_ms > 0
        assert (second.files[0].samples_ms, second.files[0].failure) == ((), "it failed")
        assert first.notes == ("the report is not complete: it failed",)

    def test_nobody_reads_its_lines(self, cases, tmp_path):
        """A connection that breaks between two lines leaves nobody else to remove the folder."""
        folder = tmp_path / "job"
        lay_out(folder, Job(cases=(cases[0],), **QUICK))
        (tmp_path / "runner.pyz").write_bytes(packed_runner())
        reader, writer = os.pipe()
        os.close(reader)
        try:
            command = [sys.executable, str(tmp_path / "runner.pyz"), "measure", str(folder)]
            subprocess.run(command, stdout=writer, stderr=subprocess.DEVNULL, check=False)
        finally:
            os.close(writer)
        assert not folder.exists()

    def test_wrong_provider_is_refused(self, cases, tmp_path, monkeypatch):
        """Never something else than what was asked for."""
        monkeypatch.setattr(ort_engine, "PROVIDERS", ["CPUExecutionProvider", "AzureX"])
        with (
            pytest.warns(UserWarning, match="AzureX"),
            pytest.raises(RuntimeError, match="runs on"),
        ):
            engines.open_file("ort", str(cases[2].path), 1)

    @pytest.mark.parametrize(("took", "runs"), [(0.001, 200), (100.0, 100), (5000.0, 10)])
    def test_operators_of_large_files_are_timed_less_often(self, took, runs):
        assert measuring_module.operator_runs(took) == runs

    def test_a_file_that_does_not_run_any_more_has_no_operators(self, cases, tmp_path):
        lay_out(tmp_path, Job(cases=(cases[2],), **QUICK))
        job = read_job(tmp_path)
        np.savez(job.groups[0][0].inputs, np.zeros((1, 3), np.float32))
        said = measuring_module._operators(job.groups[0][0], job, 0.1)
        signal.alarm(0)
        assert said["operators"].startswith("unavailable: ")

    def test_profiler_that_kills_its_process_leaves_the_times(self, cases, tmp_path, monkeypatch):
        monkeypatch.setattr(
            engines, "time_operators", lambda *_: os.kill(os.getpid(), signal.SIGTERM)
        )
        (report,) = done(tmp_path, Job(cases=(cases[0],), per_op=True, **QUICK))
        (timed,) = report.files
        assert timed.operators.startswith("unavailable: it brought its process down (SIGTERM")
        assert len(timed.samples_ms) == 5

    def test_without_fork_it_works_in_this_process(self, cases, tmp_path, monkeypatch):
        monkeypatch.delattr(os, "fork")
        (report,) = done(tmp_path, Job(cases=(cases[0],), **QUICK))
        (timed,) = report.files
        assert timed.failure == ""
        assert len(timed.samples_ms) == 5
        np.testing.assert_array_equal(timed.outputs[0], expected(cases[0])[0])

    def test_runtimes_are_found_in_their_order(self, monkeypatch):
        there = {"tflite_runtime.interpreter", "tensorflow.lite", "onnxruntime"}
        monkeypatch.setattr(engines, "_is_there", lambda module: module in there)
        module, version = engines.installed("litert")
        assert module == "tflite_runtime.interpreter"
        assert version == "of unknown version (tflite_runtime)"
        there.clear()
        assert engines.installed("litert") is None
        with pytest.raises(ImportError, match="no LiteRT is installed"):
            engines.load("litert")


class Lasting:
    """An object that only a collection destroys."""

    def __init__(self, ended: list[int]) -> None:
        self.ended, self.itself = ended, self

    def __del__(self) -> None:
        self.ended.append(os.getpid())


def test_what_the_parent_left_is_not_destroyed_in_a_child(tmp_path):
    """OpenVINO's objects wait there for threads that only the parent has."""
    ended: list[int] = []
    gc.disable()  # so that it is left until the child collects
    try:
        Lasting(ended)

        def work(send):
            gc.collect()
            send({"ended": len(ended)})

        assert list(in_child(work, tmp_path / "log", attached=False)) == [{"ended": 0}]
    finally:
        gc.enable()
    gc.collect()
    assert ended == [os.getpid()]


class TestEmulation:
    @staticmethod
    def system(folder: Path, shown: bytes, real: bytes, cpuinfo: str = "") -> Path:
        """Files as /proc has them, of programs with these ELF headers."""
        for name, header in (("self", shown), ("thread-self", real)):
            (folder / "proc" / name).mkdir(parents=True)
            (folder / "proc" / name / "exe").write_bytes(header)
        (folder / "proc" / "cpuinfo").write_text(cpuinfo)
        return folder

    X86, ARM64, ARM32 = (
        b"\x7fELF" + bytes([bits, 1]) + bytes(12) + bytes([machine, 0])
        for bits, machine in ((2, 62), (2, 183), (1, 40))
    )

    def test_this_machine_is_real(self):
        assert not is_emulated()

    @pytest.mark.parametrize("program", [X86, ARM64, ARM32, b"#!/bin/sh"])
    def test_real_machines(self, tmp_path, program):
        """A 32-bit system on a 64-bit kernel is one, too."""
        root = self.system(tmp_path, program, program, "CPU part\t: 0xd08\n")
        (tmp_path / "python").write_bytes(program)
        assert not is_emulated(root, str(tmp_path / "python"))
        assert not is_emulated(tmp_path / "nothing", str(tmp_path / "python"))

    def test_interpreted_programs(self, tmp_path):
        root = self.system(tmp_path, self.ARM64, self.X86)
        (tmp_path / "python").write_bytes(self.ARM64)
        assert is_emulated(root, str(tmp_path / "python"))
        # An emulator that does not pretend: Python's own file says what it is for.
        (root / "proc/self/exe").write_bytes(self.X86)
        assert is_emulated(root, str(tmp_path / "python"))

    def test_interpreted_machines(self, tmp_path):
        named = "model name\t: QEMU TCG CPU version 2.5+\n"
        assert is_emulated(self.system(tmp_path, self.X86, self.X86, named), "/none")
