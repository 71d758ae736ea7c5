"""Checkpoints: network, averages, optimiser state and counters as safetensors and JSON, completeness marker last.

checkpoints/step=000000500/model.safetensors    the network, latent statistics included
                           ema.safetensors      the averaged network that generation uses
                           state.safetensors    optimiser state and tracked averages, for resuming
                           COMPLETE.json        recipe, architecture, features, counters, sha256 of every file
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dmma_core.config_loading import config_to_dict
from dmma_core.errors import CheckpointError, DmmaError
from dmma_core.models.mmdit import MMDiT
from dmma_core.provenance import provenance
from dmma_core.recipe import Changes, Recipe, changes_between, changes_text, refused_changes
from dmma_core.storage import paths
from dmma_core.storage.run_folder import EMA, MARKER, MODEL, SCHEMA_VERSION, Checkpoint, RunFolder
from dmma_core.storage.tensor_files import write_tensors
from dmma_core.training.ema import EmaSnapshot, PostHocEma
from dmma_core.training.optim import load_optimizer_tensors, optimizer_tensors

STATE = "state.safetensors"
SOURCE = "source"  # entry of the record of a network that was not trained in its run: where it is from
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunIdentity:
    """What must stay the same for a run to resume: arm, recipe, architecture, features and initial weights.

    `model` is the configuration of the network, `features` the feature schema (`FeatureSchema.to_dict`),
    `features_fingerprint` the contents of the feature set, `init_sha256` the file of the initial weights ("" for those of
    the seed). `allow_changes` names settings of the recipe that may differ from the checkpoint's.
    """

    arm: str
    recipe: Recipe
    model: Mapping[str, Any]
    features: Mapping[str, Any]
    features_fingerprint: str
    init_sha256: str = ""
    allow_changes: tuple[str, ...] = ()

    def changes_since(self, checkpoint: Checkpoint) -> Changes:
        """Settings of the recipe that differ from the checkpoint's."""
        return changes_between(checkpoint.record["recipe"], config_to_dict(self.recipe))

    def require_same(self, checkpoint: Checkpoint) -> None:
        """Raise CheckpointError, naming what differs, unless `checkpoint` is of this run."""
        record = checkpoint.record
        if STATE not in record["files"]:
            raise CheckpointError(
                f"{checkpoint.uri} holds a network alone, without what is needed to resume training.",
                remedy="Start another run from it: give its run as init_uri, and another comparison_uri.",
            )
        mine = dict(self.model)
        if differing := sorted(key for key in {*mine, *record["model"]} if mine.get(key) != record["model"].get(key)):
            pairs = ", ".join(f"{key} {record['model'].get(key)!r} (now {mine.get(key)!r})" for key in differing[:5])
            raise CheckpointError(
                f"{checkpoint.uri} holds another architecture: {pairs}.",
                remedy="Train with the settings the run was started with, or give another comparison_uri.",
            )
        if record["features_fingerprint"] != self.features_fingerprint:
            raise CheckpointError(
                f"{checkpoint.uri} was trained on another feature set "
                f"({record['features_fingerprint'][:12]}, now {self.features_fingerprint[:12]}).",
                remedy="Give the feature set the run was started with, or another comparison_uri.",
            )
        if record["init_sha256"] != self.init_sha256:
            raise CheckpointError(
                f"{checkpoint.uri} was trained from other initial weights than are given now.",
                remedy="Give the init_uri that the run was started with, or another comparison_uri.",
            )
        if record["arm"] != self.arm:
            raise CheckpointError(
                f"{checkpoint.uri} is of the arm {record['arm']!r}, not of {self.arm!r}.",
                remedy="Name the arm as the run was started, or give another comparison_uri.",
            )
        if refused := refused_changes(self.changes_since(checkpoint), self.allow_changes):
            raise CheckpointError(
                f"{checkpoint.uri} was trained with another recipe: {changes_text(refused)}.",
                remedy=f"Give the settings the run was started with, another comparison_uri, "
                f"or, to change them from here on, 'allow_changes=[{','.join(refused)}]'.",
            )


@dataclass
class TrainingState:
    """Everything that training changes. `step` and `samples` count what has been trained, `wall_s` its seconds.

    `lowest` and `newest` are (step, validation loss), None before the first validation. `recipe_changes` lists what the
    run was resumed with: {"step", "changes": {setting: [before, after]}}.
    """

    model: MMDiT
    optimizer: torch.optim.Optimizer
    ema: PostHocEma
    step: int = 0
    samples: int = 0
    wall_s: float = 0.0
    lowest: tuple[int, float] | None = None
    newest: tuple[int, float] | None = None
    recipe_changes: list[dict[str, Any]] = field(default_factory=list)

    def validated(self, loss: float) -> None:
        """Record the validation loss of the present step."""
        self.newest = (self.step, loss)
        if self.lowest is None or loss < self.lowest[1]:
            self.lowest = self.newest

    def validation_record(self) -> dict[str, Any] | None:
        if self.lowest is None or self.newest is None:
            return None
        loss = self.newest[1] if self.newest[0] == self.step else None
        return {"loss": loss, "lowest_step": self.lowest[0], "lowest_loss": self.lowest[1]}


def save_checkpoint(
    folder: RunFolder, state: TrainingState, identity: RunIdentity, require_lease: Callable[[], None] = lambda: None
) -> Checkpoint:
    """Write the checkpoint of `state.step`, then remove all but the newest `keep_checkpoints` and the best one.

    An older checkpoint is touched only after the new one is complete, so a full disk or a kill loses nothing finished.
    `require_lease`, called before the first file and before the marker, raises where the folder is another job's now.
    """
    require_lease()
    recipe, tracked = identity.recipe, state.ema.snapshot()
    tensors: dict[str, dict[str, Tensor]] = {
        MODEL: state.model.state_dict(),
        EMA: {**state.model.state_dict(), **tracked.averages[recipe.ema.sigma_rel]},
        STATE: {
            **{f"optimizer/{key}": value for key, value in optimizer_tensors(state.model, state.optimizer).items()},
            **{f"ema/{key}": value for key, value in tracked.to_tensors().items()},
        },
    }
    record = {
        "step": state.step,
        "samples": state.samples,
        "wall_s": state.wall_s,
        "arm": identity.arm,
        "recipe": config_to_dict(recipe),
        "recipe_changes": state.recipe_changes,
        "validation": state.validation_record(),
        "model": dict(identity.model),
        "features": dict(identity.features),
        "features_fingerprint": identity.features_fingerprint,
        "init_sha256": identity.init_sha256,
        "ema": {
            "step": state.ema.step,
            "sigma_rel": recipe.ema.sigma_rel,
            "tracked_sigma_rel": list(recipe.ema.tracked_sigma_rel),
        },
    }
    checkpoint = write_checkpoint(folder, tensors, record, require_lease)
    _remove_older(folder, state.step, recipe.loop.keep_checkpoints)
    return checkpoint


def write_checkpoint(
    folder: RunFolder,
    tensors: Mapping[str, Mapping[str, Tensor]],
    record: Mapping[str, Any],
    before_marker: Callable[[], None] = lambda: None,
) -> Checkpoint:
    """Write files of tensors as the checkpoint of `record["step"]`, its COMPLETE.json last."""
    uri = folder.checkpoint_uri(record["step"])
    paths.remove(paths.join(uri, MARKER))
    for name, values in tensors.items():
        write_tensors(paths.join(uri, name), values)
    files = {name: paths.sha256_of(paths.join(uri, name)) for name in tensors}
    whole = {"schema_version": SCHEMA_VERSION, **record, "files": files, "provenance": provenance()}
    before_marker()
    paths.write_json(paths.join(uri, MARKER), whole)
    return Checkpoint(uri, record["step"], whole)


def restore_checkpoint(checkpoint: Checkpoint, state: TrainingState, identity: RunIdentity) -> None:
    """Bring `state` to where `checkpoint` was written. Training then continues bit for bit as if it had never stopped.

    Raises CheckpointError for another recipe, architecture or feature set and for a damaged file, before any change.
    """
    identity.require_same(checkpoint)
    saved = checkpoint.read(STATE)
    checkpoint.load_into(state.model, MODEL)
    load_optimizer_tensors(state.model, state.optimizer, _below(saved, "optimizer/"))
    state.ema.restore(EmaSnapshot.from_tensors(checkpoint.record["ema"]["step"], _below(saved, "ema/")))
    state.step, state.samples = checkpoint.step, checkpoint.record["samples"]
    state.wall_s = checkpoint.record["wall_s"]
    if validation := checkpoint.record["validation"]:
        state.lowest = (validation["lowest_step"], validation["lowest_loss"])
        state.newest = state.lowest if validation["loss"] is None else (checkpoint.step, validation["loss"])
    state.recipe_changes = list(checkpoint.record["recipe_changes"])
    if changes := identity.changes_since(checkpoint):
        state.recipe_changes.append(
            {"step": checkpoint.step, "changes": {key: list(pair) for key, pair in changes.items()}}
        )


def _remove_older(folder: RunFolder, newest: int, keep: int) -> None:
    """Remove unmarked leftovers and complete checkpoints, but for the newest `keep` and the one of the lowest validation
    loss. Where that fails there is only a warning."""
    kept = {*[step for step in folder.complete_steps() if step <= newest][-keep:], folder.best_checkpoint().step}
    for step in folder.steps():
        if step in kept or step > newest:
            continue
        uri = folder.checkpoint_uri(step)
        try:
            paths.remove(paths.join(uri, MARKER))  # first, so that a half-removed one is not taken for complete
            paths.remove(uri)
        except DmmaError as error:
            _log.warning("The old checkpoint %s stays: %s", uri, error)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
