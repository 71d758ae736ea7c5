"""The whole chain, small, on this machine: videos to the comparison of baseline and depth.

Every step is the job of the same name with its tiny settings; run again, finished steps are recognised and kept.
"""

import re
import shlex
import time
from collections.abc import Sequence
from typing import Any

from dmma_core.config_loading import load_config
from dmma_core.job_configs import DemoConfig
from dmma_core.provenance import fingerprint
from dmma_core.storage import paths
from dmma_core.storage.overwriting import is_own_json, refuse_overwriting
from ray_jobs import clean, compare, evaluate, extract, generate, render, train
from ray_jobs.common.job import Job, config_path
from ray_jobs.common.runtime import connect

ARMS = ("baseline", "depth")
SECONDS = "seconds.json"
Step = tuple[Job[Any], list[str]]


def name_of(config: DemoConfig) -> str:
    """What the comparison is called: "rendered", or the name of the videos' folder with a mark of where that lies."""
    if not config.clips:
        return "rendered"
    uri = paths.absolute(config.clips).rstrip("/")
    stem = re.sub("[^A-Za-z0-9_-]+", "-", uri.rpartition("/")[2])
    return f"{stem}-{fingerprint(uri)[:6]}"


def steps(config: DemoConfig) -> list[Step]:
    """The jobs of the chain with the settings that differ from their tiny YAML, in order."""
    name = name_of(config)

    def at(room: str, *rest: str) -> str:
        return paths.join(config.work_uri, room, name, *rest)

    videos = config.clips or at("videos")
    chain: list[Step] = []
    if not config.clips:
        chain.append((render.JOB, [f"out_uri={videos}", f"scenes.num_clips={config.num_clips}"]))
    num_steps = [f"recipe.loop.num_steps={config.num_steps}"] if config.num_steps is not None else []
    mlflow = [] if config.mlflow else ["mlflow=false"]
    chain += [
        (clean.JOB, [f"videos_uri={videos}", f"out_uri={at('manifest')}", f"dataset={name}", *_labels(config, videos)]),
        (extract.JOB, [f"manifest_uri={at('manifest')}", f"out_uri={at('features')}"]),
        (train.JOB, [f"features_uri={at('features')}", f"comparison_uri={at('runs')}", *num_steps, *mlflow]),
    ]
    for arm in ARMS:
        source = [f"run_uri={at('runs', arm)}", f"features_uri={at('features')}"]
        chain.append((generate.JOB, [*source, f"out_uri={at('generated', arm)}"]))
    for arm in ARMS:
        measured = [f"generated_uri={at('generated', arm)}", f"report_uri={at('reports', f'{arm}.json')}"]
        chain.append((evaluate.JOB, [*measured, *mlflow]))
    reports = [f"{arm}_report_uri={at('reports', f'{arm}.json')}" for arm in ARMS]
    chain.append((compare.JOB, [*reports, f"out_uri={at('comparison')}", f"name={name}", *mlflow]))
    return chain


def _labels(config: DemoConfig, videos: str) -> list[str]:
    """Captions: as given, or a table in the folder, or one beside it of its name. Few own videos need larger splits."""
    if not config.clips:
        return [f"captions_uri={videos}/captions.tsv"]
    likely = (paths.join(videos, "captions.tsv"), *(f"{videos.rstrip('/')}{suffix}" for suffix in (".tsv", ".csv")))
    captions = config.captions or next((uri for uri in likely if paths.exists(uri)), "")
    return [f"captions_uri={captions}", "cleaning.val_fraction=0.15", "cleaning.test_fraction=0.15"]


def plan(config: DemoConfig) -> Sequence[str]:
    """Check the settings of every step and the input of the first; the others' input is made on the way."""
    _check(config)
    paths.check_writable(config.work_uri)
    return [f"{number}. {_command(*step)}" for number, step in enumerate(steps(config), start=1)]


def run(config: DemoConfig) -> None:
    """Run every step on one local Ray, record how long each took, and say where the result lies."""
    seconds: dict[str, float] = {}
    commands = [_command(*step) for step in steps(config)]
    _check(config)
    with connect(min_cpus=len(ARMS)):
        for number, (job, job_config) in enumerate(_load(config), start=1):
            print(f"\n[{number}/{len(commands)}] {commands[number - 1]}", flush=True)
            started_s = time.monotonic()
            job.run(job_config)
            seconds[job.name] = seconds.get(job.name, 0.0) + time.monotonic() - started_s
    name = name_of(config)
    paths.write_json(paths.join(config.work_uri, SECONDS), {key: round(value, 2) for key, value in seconds.items()})
    print(f"\nThe whole chain took {sum(seconds.values()):.0f} s.")
    print(f"Report:     {paths.join(config.work_uri, 'comparison', name, 'report.html')}")
    if config.mlflow:
        print(f"MLflow UI:  dmma ui {paths.join(config.work_uri, 'runs', name)}")


def _check(config: DemoConfig) -> None:
    """Check the settings of every step, the input of the first, and the place for the results."""
    is_own = is_own_json(paths.join(config.work_uri, SECONDS), "clean", "compare")
    refuse_overwriting(config.work_uri, [SECONDS], is_own)
    first, first_config = _load(config)[0]
    first.plan(first_config)


def _load(config: DemoConfig) -> list[tuple[Job[Any], Any]]:
    """Every step's job with its configuration. Raises ConfigError for a setting that one of them cannot use."""
    return [(job, load_config(job.config, config_path(job.name, "tiny"), settings)) for job, settings in steps(config)]


def _command(job: Job[Any], settings: Sequence[str]) -> str:
    """What a person would type for this step."""
    return shlex.join(["dmma", job.name, "--config", "tiny", *settings])


JOB = Job(
    name="demo",
    summary=__doc__ or "",
    config=DemoConfig,
    plan=plan,
    run=run,
    example="dmma demo                   # on rendered clips, whose distances and onsets are known\n"
    "dmma demo path/to/videos    # on your own videos",
    positional="clips",
)

if __name__ == "__main__":
    raise SystemExit(JOB.main())
