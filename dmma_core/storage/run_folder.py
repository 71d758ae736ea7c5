"""Layout of a training run on storage, shared by the job that writes it and the jobs that read it.

    runs/<name>/job.yaml                          the full configuration
                metrics.jsonl                     one JSON object per logged point; written with and without MLflow
                evaluations.jsonl                 the same form, from `dmma evaluate`: metrics of the run's sounds
                checkpoints/step=000000500/       model.safetensors, ema files, state files
                                    COMPLETE.json  architecture, feature schema, counters, sha256 of every file; last
                LEASE.json, STOP, FAILED.json  of the job that trains it: its lease, a request to stop, its error

A checkpoint's COMPLETE.json describes everything that is needed to build its network, so a checkpoint folder can be
copied on its own.
"""

import re
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from dmma_core.errors import CheckpointError, IncompleteError, WeightsError
from dmma_core.storage import paths
from dmma_core.storage.state_dicts import load_strictly
from dmma_core.storage.tensor_files import read_tensors

SCHEMA_VERSION = 2
MARKER = "COMPLETE.json"
MODEL = "model.safetensors"  # the network as it was trained
EMA = "ema.safetensors"  # the averaged network, which generation uses
_OVERFITTING = 1.05  # ratio of the validation loss to its lowest value that noise does not explain
_TRAINING = (
    "step",
    "samples",
    "recipe",
    "recipe_changes",
    "model",
    "features_fingerprint",
    "init_sha256",
    "validation",
    "source",
)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint. `record` is its COMPLETE.json: step, samples, recipe, model, features, files, …"""

    uri: str
    step: int
    record: dict[str, Any]

    @property
    def training(self) -> dict[str, Any]:
        """How the network was trained, for the records of generated sounds. Absent entries are None."""
        training = {key: self.record.get(key) for key in _TRAINING}
        return {**training, "provenance": self.record.get("provenance")}

    @property
    def overfitting(self) -> str:
        """A warning if the validation loss has risen well above its lowest value, else empty."""
        validation = self.record.get("validation") or {}
        loss = validation.get("loss")
        if loss is None or loss <= _OVERFITTING * validation["lowest_loss"]:
            return ""
        return (
            f"The validation loss has risen from {validation['lowest_loss']:.3f} (step {validation['lowest_step']}) to "
            f"{loss:.3f} (step {self.step}): the network over-fits its training clips."
        )

    @property
    def validation_loss(self) -> float | None:
        """The loss measured at this step; None if it was not measured."""
        return (self.record.get("validation") or {}).get("loss")

    def read(self, name: str) -> dict[str, Tensor]:
        """Tensors of one of its files, after comparing the sha256. Raises CheckpointError if it differs."""
        uri = paths.join(self.uri, name)
        if name not in self.record["files"]:
            raise CheckpointError(
                f"{self.uri} has no {name}.", remedy=f"It holds {', '.join(sorted(self.record['files']))}."
            )
        if paths.sha256_of(uri) != self.record["files"][name]:
            raise CheckpointError(
                f"{uri} differs from its recorded sha256.",
                remedy="Delete this checkpoint; the previous one is used then.",
            )
        return read_tensors(uri)

    def load_into(self, model: nn.Module, name: str) -> None:
        """Load MODEL or EMA into `model`. Raises CheckpointError unless names and shapes are the same."""
        try:
            load_strictly(model, self.read(name), "this network", f"{self.uri}/{name}")
        except WeightsError as error:
            raise CheckpointError(
                f"The network is of another architecture, or damaged: {error.message}",
                remedy="Build it from the checkpoint's own COMPLETE.json.",
            ) from error


@dataclass(frozen=True)
class RunFolder:
    """Paths of the run at `uri`, and its complete checkpoints."""

    uri: str

    @property
    def name(self) -> str:
        return self.uri.rstrip("/").rsplit("/", 1)[-1]

    @property
    def job_yaml(self) -> str:
        return paths.join(self.uri, "job.yaml")

    @property
    def metrics(self) -> str:
        return paths.join(self.uri, "metrics.jsonl")

    @property
    def evaluations(self) -> str:
        return paths.join(self.uri, "evaluations.jsonl")

    def checkpoint_uri(self, step: int) -> str:
        return paths.join(self.uri, "checkpoints", step_name(step))

    def steps(self) -> list[int]:
        """Steps of all checkpoints, ascending, also of incomplete ones (without a marker) of a killed run."""
        found = (step_of(name) for name in paths.list_folders(paths.join(self.uri, "checkpoints")))
        return sorted(step for step in found if step is not None)

    def complete_steps(self) -> list[int]:
        """Steps of all checkpoints with a marker, ascending."""
        return [step for step in self.steps() if paths.exists(paths.join(self.checkpoint_uri(step), MARKER))]

    def checkpoint(self, step: int | None = None) -> Checkpoint:
        """The checkpoint of `step`, or the newest complete one. Raises IncompleteError if there is none."""
        steps = self.complete_steps()
        if not steps:
            raise IncompleteError(f"{self.uri} has no complete checkpoint.", remedy=self._advice())
        if step is not None and step not in steps:
            raise IncompleteError(
                f"{self.uri} has no complete checkpoint of step {step}, only of {', '.join(map(str, steps))}.",
                remedy="Give another step, or none for the newest.",
            )
        return self._read(steps[-1] if step is None else step)

    def best_checkpoint(self) -> Checkpoint:
        """The complete checkpoint with the lowest validation loss; the newest if none was validated.

        Raises IncompleteError if there is no complete checkpoint.
        """
        newest = self.checkpoint()
        older = [self._read(step) for step in self.complete_steps() if step != newest.step]
        validated = [checkpoint for checkpoint in (*older, newest) if checkpoint.validation_loss is not None]
        return min(validated, key=lambda found: (found.validation_loss, found.step), default=newest)

    def _read(self, step: int) -> Checkpoint:
        uri = self.checkpoint_uri(step)
        record = paths.read_json(paths.join(uri, MARKER))
        if record.get("schema_version") != SCHEMA_VERSION:
            raise CheckpointError(
                f"{uri} has schema version {record.get('schema_version')!r}, this DMMA reads {SCHEMA_VERSION}.",
                remedy="Train or import it again, into a new folder.",
            )
        return Checkpoint(uri, record["step"], record)

    def _advice(self) -> str:
        """Remedy for a folder without checkpoints: the runs below it if it is a comparison's folder."""
        runs = [paths.join(self.uri, name) for name in paths.list_folders(self.uri)]
        arms = [run for run in runs if paths.exists(paths.join(run, "checkpoints"))]
        return (
            f"Give one of its runs: {', '.join(arms)}."
            if arms
            else "Run `dmma train` (again) or `dmma weights import`."
        )


def step_name(step: int) -> str:
    return f"step={step:09d}"


def step_of(name: str) -> int | None:
    """The step in a name made by `step_name`; None for any other name, such as a copy made by hand."""
    digits = re.fullmatch("step=([0-9]+)", name)
    step = int(digits[1]) if digits else 0
    return step if name == step_name(step) else None
