"""The examples for clusters tell each worker who it is, and start it with options that exist."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path

import pytest

from dsconvert.cli.finetune import finetune

EXAMPLES = Path(__file__).parents[2] / "examples"
PRINTS = '#!/bin/sh\necho "$TF_CONFIG"\necho "$@"\n'


@pytest.fixture
def tools(tmp_path):
    """Programs that stand in for Slurm's and for dsconvert; the latter prints what it is told."""
    programs = {
        "scontrol": "#!/bin/sh\nprintf 'node1\\nnode2\\n'\n",
        "srun": '#!/bin/sh\necho x >> "$TRIES"\n[ "$(wc -l < "$TRIES")" -ge 3 ]\n',
        "sleep": "#!/bin/sh\n",
        "dsconvert": PRINTS,
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    return {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "TRIES": f"{tmp_path}/tries"}


def started(printed):
    """What a worker is told, and its command line, read by the command itself."""
    config, words = printed.strip().splitlines()
    _, *options = shlex.split(words)
    parsed = finetune.make_parser(finetune.make_context("finetune", [], resilient_parsing=True))
    return json.loads(config), parsed.parse_args(options)[0]


def check(config, options, workers, index):
    assert config["cluster"] == {"worker": workers}
    assert config["task"] == {"type": "worker", "index": index}
    assert options["strategy"] == "multiworker"
    assert options["resume"]
    assert options["overwrite"]


def test_slurm(tools, tmp_path):
    script = EXAMPLES / "finetune_slurm.sh"
    here = {
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_PROCID": "1",
        "SLURM_SUBMIT_DIR": str(tmp_path),
    }
    done = subprocess.run(
        ["bash", script, "worker"], env=tools | here, capture_output=True, text=True, check=True
    )
    check(*started(done.stdout), ["node1:2222", "node2:2222"], 1)


def test_slurm_starts_all_again(tools, tmp_path):
    subprocess.run(["bash", EXAMPLES / "finetune_slurm.sh"], env=tools, check=True)
    assert (tmp_path / "tries").read_text().split() == ["x", "x", "x"]


def test_kubernetes(tools):
    yaml = pytest.importorskip("yaml")
    text = (EXAMPLES / "finetune_kubernetes.yaml").read_text()
    service, job = yaml.safe_load_all(text)
    pod = job["spec"]["template"]["spec"]
    assert service["metadata"]["name"] == pod["subdomain"] == job["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    command = pod["containers"][0]["command"]
    for index in range(job["spec"]["completions"]):
        here = {"JOB_COMPLETION_INDEX": str(index)}
        done = subprocess.run(command, env=tools | here, capture_output=True, text=True, check=True)
        workers = [f"finetune-{number}.finetune:2222" for number in range(2)]
        check(*started(done.stdout), workers, index)
