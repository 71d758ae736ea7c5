"""The full chain at a small size on this machine: from videos to the comparison of baseline and depth.

Every step is the job of the same name with its tiny settings. A repeated demo keeps finished steps. Steps whose videos,
captions or settings have changed run again and write to folders of another name; the older folders stay.
"""

import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dmma_core.config_loading import config_to_dict, load_config
from dmma_core.data.cleaning import find_media
from dmma_core.data.manifest import read_manifest
from dmma_core.job_configs import DemoConfig
from dmma_core.provenance import fingerprint
from dmma_core.storage import paths
from dmma_core.storage.run_folder import RunFolder
from ray_jobs import clean, compare, evaluate, extract, generate, render, train
from ray_jobs.common.demo_names import DATA_FOLDERS, RENDERED_FOLDERS, RUN_FOLDERS, Name, name_for, others
from ray_jobs.common.job import Job, config_path
from ray_jobs.common.runtime import connect

ARMS = ("baseline", "depth")
NUM_STEPS = "recipe.loop.num_steps"  # the setting of the job train
_NO_INPUTS = ("dataset", "name", "mlflow")  # settings that change nothing in the results
Step = tuple[Job[Any], list[str]]


@dataclass(frozen=True)
class Chain:
    """The steps of a demo, in order, each with the settings that differ from its tiny YAML.

    `data` is the name of the folders of videos, manifest and features, `run` that of the folders of all later steps.
    """

    config: DemoConfig
    data: str
    run: str

    def data_at(self, folder: str) -> str:
        return self._at(folder, self.data)

    def run_at(self, folder: str, *rest: str) -> str:
        return self._at(folder, self.run, *rest)

    def _at(self, *parts: str) -> str:
        return paths.join(self.config.work_uri, *parts).removeprefix("./")

    def steps(self) -> list[Step]:
        config, manifest, features = self.config, self.data_at("manifest"), self.data_at("features")
        videos = config.clips or self.data_at("data")
        num_steps = [f"{NUM_STEPS}={config.num_steps}"] if config.num_steps is not None else []
        mlflow = [] if config.mlflow else ["mlflow=false"]
        reports = {arm: self.run_at("reports", f"{arm}.json") for arm in ARMS}
        chain: list[Step] = []
        if not config.clips:
            chain.append((render.JOB, [f"out_uri={videos}", f"scenes.num_clips={config.num_clips}"]))
        labels = [f"captions_uri={captions_of(config) if config.clips else f'{videos}/captions.tsv'}"]
        if config.clips:  # few videos need larger splits
            labels += ["cleaning.val_fraction=0.15", "cleaning.test_fraction=0.15"]
        chain += [
            (clean.JOB, [f"videos_uri={videos}", f"out_uri={manifest}", f"dataset={self.data}", *labels]),
            (extract.JOB, [f"manifest_uri={manifest}", f"out_uri={features}"]),
            (train.JOB, [f"features_uri={features}", f"comparison_uri={self.run_at('runs')}", *num_steps, *mlflow]),
        ]
        for arm in ARMS:
            source = [f"run_uri={self.run_at('runs', arm)}", f"features_uri={features}"]
            chain.append((generate.JOB, [*source, f"out_uri={self.run_at('generated', arm)}"]))
        for arm in ARMS:
            generated = self.run_at("generated", arm)
            chain.append((evaluate.JOB, [f"generated_uri={generated}", f"report_uri={reports[arm]}", *mlflow]))
        compared = [f"{arm}_report_uri={uri}" for arm, uri in reports.items()]
        out = [f"out_uri={self.run_at('comparison')}", f"name={self.run}"]
        return [*chain, (compare.JOB, [*compared, *out, *mlflow])]

    def loaded(self) -> list[tuple[Job[Any], Any]]:
        """Every step's job with its configuration. Raises ConfigError for a setting that one of them cannot use."""
        return [(job, load_config(job.config, config_path(job.name, "tiny"), given)) for job, given in self.steps()]

    def commands(self) -> list[str]:
        """The command line of each step."""
        return [shlex.join([_dmma(), job.name, "--config", "tiny", *given]) for job, given in self.steps()]


def captions_of(config: DemoConfig) -> str:
    """Captions of one's own videos: as given, a table in the folder, or one of its name beside it; "" without any."""
    folder = config.clips.rstrip("/")
    likely = (f"{folder}/captions.tsv", f"{folder}/captions.csv", f"{folder}.tsv", f"{folder}.csv")
    return config.captions or next((uri for uri in likely if paths.exists(uri)), "")


def plain_name(config: DemoConfig) -> str:
    """Name of the results: "demo", "demo-12-clips", or that of the folder of one's own videos."""
    if config.clips:
        name = re.sub("[^A-Za-z0-9_-]+", "-", paths.absolute(config.clips).rstrip("/").rpartition("/")[2]).strip("-")
        return f"{name}-videos" if name in ("", "demo") else name
    usual = config.num_clips == DemoConfig.num_clips
    return "demo" if usual else f"demo-{config.num_clips}-clips"


def names_of(config: DemoConfig) -> tuple[Name, Name]:
    """Names of the data folders and of the run folders, which depend on the files and on all settings. Writes nothing.

    Raises DmmaError where the videos or the captions are absent.
    """
    plain = plain_name(config)
    chain = Chain(config, plain, plain)
    given = {job.name: {text.partition("=")[0] for text in settings} for job, settings in chain.steps()}
    settings = {
        job.name: fingerprint(
            {
                key: value
                for key, value in config_to_dict(job_config).items()
                if key not in _NO_INPUTS and not (key in given[job.name] and key.endswith("_uri"))
            }
        )
        for job, job_config in chain.loaded()
    }
    steps: dict[str, str] = {key: settings[key] for key in ("render", "clean", "extract") if key in settings}
    folders = DATA_FOLDERS if config.clips else RENDERED_FOLDERS
    data = name_for(config.work_uri, plain, folders, {**_files(config), **steps})
    later = {key: settings[key] for key in ("train", "generate", "evaluate", "compare")}
    plain = data.text if config.num_steps is None else f"{data.text}-{config.num_steps}-steps"
    run = name_for(config.work_uri, plain, RUN_FOLDERS, {"data": fingerprint(dict(data.inputs)), **later})
    return data, run


def _files(config: DemoConfig) -> dict[str, str]:
    """Fingerprints of the videos and of the captions, from their names, sizes and modification times."""
    if not config.clips:
        return {}
    captions = captions_of(config)
    videos = {uri: list(paths.size_and_version(uri)) for uri in find_media(config.clips)}
    table = [paths.absolute(captions), *paths.size_and_version(captions)] if captions else []
    return {"videos": fingerprint(videos), "captions": fingerprint(table)}


def plan(config: DemoConfig) -> Sequence[str]:
    """Check the settings of every step and the input of the first; the earlier steps write the input of the others."""
    return _checked(config, names_of(config))


def run(config: DemoConfig) -> None:
    """Run every step on one local Ray, record how long each took, and print where the result is."""
    names = names_of(config)
    _checked(config, names)  # reports wrong input before Ray starts
    chain = Chain(config, *(name.text for name in names))
    for note in _notes(names):
        print(note)
    for name in names:
        name.claim(config.work_uri)
    seconds: dict[str, float] = {}
    commands = chain.commands()
    with connect(min_cpus=len(ARMS)):
        for number, (job, job_config) in enumerate(chain.loaded(), start=1):
            print(f"\n[{number}/{len(commands)}] {commands[number - 1]}", flush=True)
            started_s = time.monotonic()
            job.run(job_config)
            seconds[job.name] = seconds.get(job.name, 0.0) + time.monotonic() - started_s
    rounded = {key: round(value, 2) for key, value in seconds.items()}
    paths.write_json(chain.run_at("comparison", "seconds.json"), rounded)
    print(f"\nAll steps took {sum(seconds.values()):.0f} s.")
    print(f"Report: {chain.run_at('comparison', 'report.html')}")
    print("\n".join(["What you can do next:", *(f"  {line}" for line in next_commands(chain))]))
    if older := others(config.work_uri, plain_name(config), names):
        remove = "gcloud storage rm -r" if paths.is_remote(config.work_uri) else "rm -r"
        found = shlex.join(paths.join(config.work_uri, folder).removeprefix("./") for folder in older)
        print(f"Results of other inputs are kept. To remove them:\n  {remove} {found}")


def _checked(config: DemoConfig, names: tuple[Name, Name]) -> list[str]:
    """Check what can be checked before the first step. Returns what would be done."""
    chain = Chain(config, *(name.text for name in names))
    paths.check_writable(config.work_uri)
    (first, first_config), *_ = chain.loaded()
    numbered = [f"{number}. {command}" for number, command in enumerate(chain.commands(), start=1)]
    return [*_notes(names), *first.plan(first_config), *numbered]


def next_commands(chain: Chain) -> list[str]:
    """Commands to run after a demo, on its results."""
    clips = read_manifest(chain.data_at("manifest")).clips
    clip = next((clip for clip in clips if clip.split == "test"), clips[0])
    prompt = ["--prompt", clip.caption] if clip.caption else []
    sound = [_dmma(), "generate", clip.source_uri, "--run", chain.run_at("runs", ARMS[-1]), *prompt]
    video = f"# or any video of {clip.duration_s:g} s or more"
    trained = RunFolder(chain.run_at("runs", ARMS[-1])).checkpoint().step
    longer = config_to_dict(replace(chain.config, num_steps=2 * trained))
    changed = [f"{key}={value}" for key, value in longer.items() if value != config_to_dict(DemoConfig())[key]]
    lines = [
        f"{shlex.join(sound)}    {video}",
        f"{chain.commands()[-1]} num_examples=8    # the report with more clips to listen to",
        f"{shlex.join([_dmma(), 'demo', *changed])}    # train longer",
    ]
    if chain.config.mlflow:
        lines.append(f"{shlex.join([_dmma(), 'ui', chain.run_at('runs')])}    # all metrics in MLflow")
    return lines


def _notes(names: tuple[Name, Name]) -> list[str]:
    return [name.note for name in names if name.note]


def _dmma() -> str:
    """The command as it can be typed here, whether or not the virtual environment is active."""
    return "dmma" if shutil.which("dmma") else os.path.relpath(os.path.join(os.path.dirname(sys.executable), "dmma"))


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
