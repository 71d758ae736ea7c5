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
SOURCE = "source"  # entry in the record of a network that was not trained in its run: its origin
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
                f"{checkpoint.uri} holds only a network, without the state for resuming training.",
                remedy="Start another run from it: give its run as init_uri, and another comparison_uri.",
            )
        mine = dict(self.model)
        if differing := sorted(key for key in {*mine, *record["model"]} if mine.get(key) != record["model"].get(key)):
            pairs = ", ".join(f"{key} {record['model'].get(key)!r} (now {mine.get(key)!r})" for key in differing[:5])
            raise CheckpointError(
                f"{checkpoint.uri} holds another architecture: {pairs}.",
                remedy="Use the settings the run was started with, or give another comparison_uri.",
            )
        if record["features_fingerprint"] != self.features_fingerprint:
            raise CheckpointError(
                f"{checkpoint.uri} was trained on another feature set "
                f"({record['features_fingerprint'][:12]}, now {self.features_fingerprint[:12]}).",
                remedy="Give the feature set the run was started with, or another comparison_uri.",
            )
        if record["init_sha256"] != self.init_sha256:
            raise CheckpointError(
                f"{checkpoint.uri} was trained from other initial weights than the given ones.",
                remedy="Give the init_uri that the run was started with, or another comparison_uri.",
            )
        if record["arm"] != self.arm:
            raise CheckpointError(
                f"{checkpoint.uri} is of the arm {record['arm']!r}, not of {self.arm!r}.",
                remedy="Use the arm's name that the run was started with, or give another comparison_uri.",
            )
        if refused := refused_changes(self.changes_since(checkpoint), self.allow_changes):
            raise CheckpointError(
                f"{checkpoint.uri} was trained with another recipe: {changes_text(refused)}.",
                remedy=f"Give the settings the run was started with, another comparison_uri, "
                f"or, to change them from this step on, 'allow_changes=[{','.join(refused)}]'.",
            )


@dataclass
class TrainingState:
    """Everything that training changes. `step` and `samples` count trained ones, `wall_s` is the training time.

    `lowest` and `newest` are (step, validation loss), None before the first validation, `newest` also after resuming
    until the next one. `recipe_changes` lists the changes
    with which the run was resumed: {"step", "changes": {setting: [before, after]}}.
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

    def record_validation(self, loss: float) -> None:
        """Record the validation loss of the current step."""
        self.newest = (self.step, loss)
        if self.lowest is None or loss < self.lowest[1]:
            self.lowest = self.newest

    def validation_record(self) -> dict[str, Any] | None:
        if self.lowest is None:
            return None
        loss = self.newest[1] if self.newest and self.newest[0] == self.step else None
        return {"loss": loss, "lowest_step": self.lowest[0], "lowest_loss": self.lowest[1]}


def save_checkpoint(
    folder: RunFolder, state: TrainingState, identity: RunIdentity, require_lease: Callable[[], None] = lambda: None
) -> Checkpoint:
    """Write the checkpoint of `state.step`, then remove all but the newest `keep_checkpoints` and the best one.

    Older checkpoints are removed only after the new one is complete, so a full disk or a kill loses no complete one.
    `require_lease` is called before the first file and before the marker; it raises if another job holds the folder.
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
    complete = {"schema_version": SCHEMA_VERSION, **record, "files": files, "provenance": provenance()}
    before_marker()
    paths.write_json(paths.join(uri, MARKER), complete)
    return Checkpoint(uri, record["step"], complete)


def restore_checkpoint(checkpoint: Checkpoint, state: TrainingState, identity: RunIdentity) -> None:
    """Set `state` to that of `checkpoint`. Training then continues bit for bit as without the interruption.

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
    state.recipe_changes = list(checkpoint.record["recipe_changes"])
    if changes := identity.changes_since(checkpoint):
        state.recipe_changes.append(
            {"step": checkpoint.step, "changes": {key: list(pair) for key, pair in changes.items()}}
        )


def _remove_older(folder: RunFolder, newest: int, keep: int) -> None:
    """Remove incomplete checkpoints and all complete ones except the newest `keep` and the one with the lowest validation
    loss. If that fails, only a warning is logged."""
    try:
        best = folder.best_checkpoint().step
    except DmmaError as error:  # an older marker is damaged: which one is the best cannot be known
        _log.warning("No older checkpoint of %s is removed: %s", folder.uri, error)
        return
    kept = {*[step for step in folder.complete_steps() if step <= newest][-keep:], best}
    for step in folder.steps():
        if step in kept or step > newest:
            continue
        uri = folder.checkpoint_uri(step)
        try:
            paths.remove(paths.join(uri, MARKER))  # first, so that a partly removed one does not count as complete
            paths.remove(uri)
        except DmmaError as error:
            _log.warning("The old checkpoint %s could not be removed: %s", uri, error)


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
