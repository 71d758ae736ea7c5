"""Every command that a page, a help text or a SkyPilot task shows is one that our own command line accepts."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from contextlib import chdir
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from dmma_core.storage import weights
from ray_jobs.common.cli import JOBS, module_name
from ray_jobs.tools import doctor
from ray_jobs.tools.weights import arguments_parser

ROOT = Path(__file__).resolve().parents[2]
PAGES = {
    **{
        path.name: path.read_text()
        for pattern in ("README.md", "docs/*.md", "infra/*.sh")
        for path in ROOT.glob(pattern)
    },
    "help of weights": str(arguments_parser().description),
    "help of doctor": str(doctor.__doc__),
}
TASKS = sorted((ROOT / "sky").glob("*.yaml"))
_COMMAND = re.compile(r"(infra/submit\.sh .*-- )?(dmma|python -m ray_jobs\.\w+) ")
_PLACEHOLDERS = ("<", "…")


def require_accepted(words: list[str], folder: Path) -> None:
    """Load the job's configuration as the command would. Submitted commands run in a copy of the project."""
    place = ROOT
    if words[0] == "infra/submit.sh":
        place, words = folder / "_ray_pkg_copy", words[words.index("--") + 1 :]
        place.mkdir(exist_ok=True)
    name, *rest = words[1:] if words[0] == "dmma" else [words[2].removeprefix("ray_jobs."), *words[3:]]
    assert name in JOBS, words
    module = importlib.import_module(module_name(name))
    if not rest:  # a mention
        return
    if hasattr(module, "JOB"):
        with chdir(place):
            module.JOB.configure(module.JOB.parse(rest))
    else:
        module.arguments_parser().parse_args(rest)


def commands_of(text: str) -> list[list[str]]:
    """Commands in code spans and on lines of their own, as words; those with placeholders are left out."""
    lines = [line.strip().removeprefix("#").strip() for line in text.splitlines()]
    spans = [span for line in lines for span in re.findall(r"`([^`]+)`", line) or [re.split("  +", line)[0]]]
    found = [span for span in spans if _COMMAND.match(span) and not any(mark in span for mark in _PLACEHOLDERS)]
    return [shlex.split(os.path.expandvars(span), comments=True) for span in found]


@pytest.mark.parametrize("page", PAGES)
def test_commands_of_a_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PWD", str(ROOT))
    for words in commands_of(PAGES[page]):
        require_accepted(words, tmp_path)


def test_commands_are_found() -> None:
    assert sum(len(commands_of(text)) for text in PAGES.values()) >= 20


@pytest.mark.parametrize("name", JOBS)
def test_the_example_of_a_job(name: str, tmp_path: Path) -> None:
    job = getattr(importlib.import_module(module_name(name)), "JOB", None)
    for line in job.example.splitlines() if job else ():
        words = shlex.split(line, comments=True)
        assert words[:2] == ["dmma", name]
        require_accepted(words, tmp_path)


def launches(task: Path) -> list[dict[str, str]]:
    """The environments of all `sky launch` lines in a task's heading."""
    lines = re.findall(r"^# +(sky launch .*)$", task.read_text(), re.MULTILINE)
    words = [shlex.split(line) for line in lines]
    return [dict(w.split("=", 1) for flag, w in pairwise(each) if flag == "--env") for each in words]


@pytest.mark.parametrize(
    ("task", "number"),
    [(task, number) for task in TASKS for number in range(len(launches(task)))],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_commands_of_a_task(task: Path, number: int, tmp_path: Path) -> None:
    """Bash runs the task's own scripts; the programs are replaced by ones that only record how they were called."""
    config = yaml.safe_load(task.read_text())
    calls = _run_scripts(config, {**config["envs"], **config["secrets"], **launches(task)[number]}, tmp_path)
    fetched = [words for words in calls if words[:3] == ["dmma", "weights", "fetch"]]
    submitted = [words for words in calls if words[0] == "ray"]
    assert [words[words.index("--") + 2] for words in submitted] == ["clean", "extract", "train"]
    for words in submitted:
        require_accepted(["infra/submit.sh", *words[words.index("--") :]], tmp_path)
    for words in fetched:
        assert weights.expand(arguments_parser().parse_args(words[2:]).names)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_tasks_secrets_are_in_no_command(task: Path, tmp_path: Path) -> None:
    config = yaml.safe_load(task.read_text())
    secrets = {name: f"secret-{name}" for name in config["secrets"]}
    assert secrets.keys() == {"MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"}
    for server, mlflow in (("http://host:5000", "mlflow=true"), ("", "mlflow=false")):
        envs = {**config["envs"], **launches(task)[0], **secrets, "MLFLOW_TRACKING_URI": server}
        calls = _run_scripts(config, envs, tmp_path)
        assert calls[-1][-1] == mlflow
        assert not [word for words in calls for word in words if "secret-" in word]


def _run_scripts(config: dict[str, str], envs: dict[str, str | None], folder: Path) -> list[list[str]]:
    for program in ("bin/uv", "bin/ray", "bin/dmma", "sky_templates/ray/start_cluster", "dmma/bin/activate"):
        path = folder / program
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('#!/bin/sh\nprintf "%s\\037" "${0##*/}" "$@" >> "$CALLS"; echo >> "$CALLS"\n')
        path.chmod(0o755)
    (folder / "dmma/bin/activate").write_text("")
    assert all(value is not None for value in envs.values()), "a launch line leaves out what it must give"
    path = os.pathsep.join([f"{folder}/bin", str(Path(sys.executable).parent), os.environ["PATH"]])
    own = {"HOME": str(folder), "PATH": path, "CALLS": str(folder / "calls"), "SKYPILOT_NODE_RANK": "0"}
    for script in ("setup", "run"):
        subprocess.run(["bash", "-c", config[script]], env={**envs, **own}, cwd=ROOT, check=True)  # type: ignore[arg-type]
    return [line.split("\037")[:-1] for line in (folder / "calls").read_text().splitlines()]
