"""The examples for clusters: the Slurm script is run, the others are read and every command in them is one there is."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import ROOT, InProcess, write_bank
from tests.support.fences import Block, commands, shell
from tests.test_docs import parse

EXAMPLES = ROOT / "docs" / "examples"
SCRIPTS = {
    "kubernetes-shards.yaml": ("spec", "template", "spec", "containers", 0, "args", 0),
    "skypilot-shard.yaml": ("run",),
    "kuberay-job.yaml": ("spec", "entrypoint"),
}


def bash(script: Path, *arguments: str, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", script, *arguments], env=env, cwd=cwd, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_slurm_array_gives_the_undivided_run(tmp_path: Path, cli: InProcess) -> None:
    bank = write_bank(tmp_path, 6)
    settings = {"RUN": str(tmp_path / "run"), "MODEL": "scripted/weak", "BANK": str(bank), "SHARDS": "2"}
    env, script = shell(tmp_path, settings), EXAMPLES / "slurm-shards.sh"
    begun = bash(script, "begin", env=env, cwd=tmp_path)
    assert begun.returncode == 0, begun.stderr
    for task in ("1", "2"):
        done = bash(script, env={**env, "SLURM_ARRAY_TASK_ID": task}, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    merged = bash(script, "merge", env=env, cwd=tmp_path)
    assert merged.returncode == 0, merged.stderr
    assert "18 of 18 attempts recorded" in merged.stdout
    whole = tmp_path / "whole"
    assert cli("eval", "--model", "scripted/weak", "--bank", bank, "--judge", "refusal", "--run", whole).code == 0
    assert cli("report", tmp_path / "run-merged", "--json").out == cli("report", whole, "--json").out


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_example_in_yaml_reads_and_its_commands_are_there(name: str) -> None:
    yaml = pytest.importorskip("yaml")
    found: Any = yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))
    for step in SCRIPTS[name]:
        found = found[step]
    subprocess.run(["bash", "-n"], input=found, text=True, check=True, env=os.environ)
    asked = commands(Block(name, 1, "sh", found))
    assert [words[1] for words in asked] == ["eval"]
    for words in asked:
        parse(words[1:])


def test_the_ray_job_holds_no_key_and_a_worker_for_each_gpu() -> None:
    yaml = pytest.importorskip("yaml")
    spec: Any = yaml.safe_load((EXAMPLES / "kuberay-job.yaml").read_text(encoding="utf-8"))["spec"]
    assert "runtimeEnvYAML" not in spec
    cluster = spec["rayClusterSpec"]
    (gpus,) = cluster["workerGroupSpecs"]
    assert f"--workers {gpus['replicas']} " in spec["entrypoint"]
    for group in (cluster["headGroupSpec"], gpus):
        (container,) = group["template"]["spec"]["containers"]
        assert not [one["name"] for one in container["env"] if "KEY" in one["name"]]
        assert container["envFrom"]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*shard*")), ids=lambda path: path.name)
def test_the_verbs_that_an_example_tells_of_are_there(path: Path) -> None:
    from redinstruct.cli import VERBS

    named = set(re.findall(r"redinstruct ([a-z]+) ", path.read_text(encoding="utf-8")))
    assert named
    assert named <= VERBS.keys()
