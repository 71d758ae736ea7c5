"""Every shipped YAML is a test case: it must fit its job's configuration class."""

import importlib
from pathlib import Path

import pytest

from dmma_core.config_loading import load_config
from ray_jobs.common.cli import JOBS, module_name
from ray_jobs.common.job import Job
from ray_jobs.common.places import CONFIG_ROOT

FILES = sorted(CONFIG_ROOT.glob("*/*.yaml"))


def job_named(name: str) -> Job:
    return importlib.import_module(module_name(name)).JOB


@pytest.mark.parametrize("file", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_shipped_config_fits_its_job(file: Path) -> None:
    job = job_named(file.parent.name)
    assert isinstance(load_config(job.config, file), job.config)


@pytest.mark.parametrize("name", JOBS)
def test_every_job_answers_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = importlib.import_module(module_name(name))
    with pytest.raises(SystemExit) as stop:
        getattr(module, "JOB", module).main(["--help"])
    assert stop.value.code == 0
    assert f"dmma {name}" in capsys.readouterr().out


def test_there_are_configs_for_every_step_of_the_chain() -> None:
    chain = ("render", "clean", "extract", "train", "generate", "evaluate", "compare")
    assert {f"{name}/tiny.yaml" for name in chain} <= {f"{file.parent.name}/{file.name}" for file in FILES}


def test_what_the_jobs_write_by_default_is_not_uploaded_to_a_cluster() -> None:
    """`ray job submit --working-dir .` and `sky launch` leave out what .gitignore names."""
    ignored = (CONFIG_ROOT.parent / ".gitignore").read_text().splitlines()
    written = {"build", "dist", "mlflow", "generated"}
    for job in map(job_named, ("render", "clean", "extract", "train", "generate", "evaluate", "compare")):
        configs = [job.config(), *(load_config(job.config, file) for file in (CONFIG_ROOT / job.name).glob("*.yaml"))]
        places = [str(value) for config in configs for key, value in vars(config).items() if key.endswith("_uri")]
        written |= {place.partition("/")[0] for place in places if "/" in place}
    assert written >= {"data", "manifest", "features", "runs", "reports", "comparison"}
    assert [folder for folder in sorted(written) if f"/{folder}/" not in ignored] == []
