"""One arm of a comparison, from its plan to its last checkpoint. Independent of Ray: any process can call `train_arm`.

Arms differ in the network and the feature columns that it reads. Rows, their order, seeds and noise are the same in all
arms of a comparison.
"""

import logging
import time
from collections.abc import Generator
from dataclasses import dataclass

import torch

from dmma_core.config_loading import config_to_dict
from dmma_core.data.batching import ClipBatch, prefetch, training_batches
from dmma_core.data.feature_store import FeatureStore
from dmma_core.data.mixing import SampleOrder, Source
from dmma_core.errors import CheckpointError, ConfigError, IncompleteError, LeaseLostError, SchemaError
from dmma_core.models.initialisation import initialise, parameter_count
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import MMDiTConfig
from dmma_core.recipe import Recipe, changes_text, refused_changes
from dmma_core.storage import paths
from dmma_core.storage.lease import LeaseToken
from dmma_core.storage.metrics_log import MetricsLog, MetricsPoint
from dmma_core.storage.run_folder import EMA, Checkpoint, RunFolder
from dmma_core.training.checkpoint import (
    RunIdentity,
    TrainingState,
    restore_checkpoint,
    save_checkpoint,
)
from dmma_core.training.ema import PostHocEma
from dmma_core.training.initial_weights import network_from
from dmma_core.training.loop import run_training
from dmma_core.training.normalisation import Normalisation
from dmma_core.training.optim import build_optimizer
from dmma_core.training.snapshots import save_snapshot
from dmma_core.training.step import StepNoise, TrainingStep, training_noise
from dmma_core.training.validation import validation_loss
from dmma_core.training.workers import Workers

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ArmPlan:
    """Inputs of the training of one arm. Training stops with a checkpoint once a file exists at `stop_uri`.

    Training starts from the averaged weights and the normalisation of the checkpoint `init`, or without one from the seed's
    weights and `normalisation`, which depth added to `init` uses too. An arm with a checkpoint of its own needs neither;
    if its initial weights were not the seed's, `init_sha256` is their sha256. `allow_changes` names settings of the recipe
    that may differ from those of the checkpoint that it resumes from.

    Worker 0 writes while the job holds the `lease` on `run_uri`; None means that no other job can write there.
    """

    arm: str
    run_uri: str
    features_uri: str
    stop_uri: str
    model: MMDiTConfig
    init: Checkpoint | None
    normalisation: Normalisation | None
    recipe: Recipe
    init_sha256: str = ""
    allow_changes: tuple[str, ...] = ()
    lease: LeaseToken | None = None

    def identity(self, store: FeatureStore) -> RunIdentity:
        init_sha256 = self.init.record["files"][EMA] if self.init else self.init_sha256
        model, features = config_to_dict(self.model), store.schema.to_dict()
        return RunIdentity(self.arm, self.recipe, model, features, store.fingerprint, init_sha256, self.allow_changes)

    def bytes_to_keep(self) -> tuple[int, int]:
        """Maximum bytes of checkpoints, and bytes of snapshots, that a complete run stores.

        A checkpoint holds the network, its average, two moments of the optimiser and the tracked averages, in float32; in
        addition to `keep_checkpoints` there is the best one, and temporarily one more. Snapshots hold the tracked averages
        and stay.
        """
        total, trainable = parameter_count(self.model)
        loop, ema = self.recipe.loop, self.recipe.ema
        averages = total * len(ema.tracked_sigma_rel)
        num_checkpoints = min(loop.keep_checkpoints + 2, -(-loop.num_steps // loop.checkpoint_every))
        num_snapshots = loop.num_steps // ema.snapshot_every
        return 4 * num_checkpoints * (2 * total + 2 * trainable + averages), 4 * num_snapshots * averages


def train_arm(plan: ArmPlan, workers: Workers) -> bool:
    """Train the arm on this worker, from its newest checkpoint if there is one. False if a stop was requested.

    Every worker of the arm calls this with the same plan; worker 0 writes. Raises subclasses of DmmaError.
    """
    store = FeatureStore(plan.features_uri)
    folder, identity = RunFolder(plan.run_uri), plan.identity(store)
    if checkpoint := newest_checkpoint(folder):
        state = _state_of(MMDiT(plan.model), plan, workers)
        restore_checkpoint(checkpoint, state, identity)
        _log.info("%s resumes at step %d.", plan.arm, state.step)
        if changes := refused_changes(identity.changes_since(checkpoint), allowed=()):
            _log.info("%s continues with another recipe: %s.", plan.arm, changes_text(changes))
    else:
        state = new_state(plan, store, workers)
    velocity = workers.wrap(state.model)
    step = TrainingStep(state.model, velocity, state.optimizer, plan.recipe)
    batches = _prepared_batches(plan, store, state.samples, workers)
    events = _Events(plan, folder, identity, state.step, workers)
    try:
        return run_training(
            step,
            state,
            batches,
            lambda: validation_loss(state.model, store, plan.recipe, workers),
            plan.recipe,
            events,
            workers,
        )
    finally:
        batches.close()
        events.close()


def _prepared_batches(
    plan: ArmPlan, store: FeatureStore, first_sample: int, workers: Workers
) -> Generator[tuple[ClipBatch, StepNoise], None, None]:
    """Batches of this worker with their noise, on its device. A thread prepares them: at the published sizes the noise
    alone takes 0.3 ms per clip."""
    order = SampleOrder([Source(0, store.rows_of_split("train"))], plan.recipe.seed)
    batches = training_batches([store], order, first_sample, plan.recipe.loop.batch_size, workers.rank, workers.size)

    def prepare(_: int) -> tuple[ClipBatch, StepNoise]:
        batch = next(batches)
        return batch.to(workers.device), training_noise(batch, plan.recipe.seed).to(workers.device)

    return prefetch(prepare)


def new_state(plan: ArmPlan, store: FeatureStore, workers: Workers) -> TrainingState:
    """Initial network with its normalisation, optimiser and averages, at step 0, on the worker's device.

    Raises CheckpointError if the plan is for resuming a run.
    """
    if plan.init_sha256:
        raise CheckpointError(
            f"{plan.run_uri} had a checkpoint to resume from, which is missing.", remedy="Run the same command again."
        )
    assert plan.normalisation is not None
    init, normalisation = plan.init, plan.normalisation
    model = network_from(init, plan.model, plan.recipe.seed) if init else _fresh_network(plan, normalisation, store)
    if init is None or init.record["model"]["depth"] == "off":
        scalars = normalisation.depth_scalars
        model.set_depth_scalar_statistics(torch.tensor(scalars.mean), torch.tensor(scalars.std))
    return _state_of(model, plan, workers)


def _state_of(model: MMDiT, plan: ArmPlan, workers: Workers) -> TrainingState:
    model.to(workers.device)
    ema = PostHocEma(dict(model.named_parameters()), plan.recipe.ema.tracked_sigma_rel)
    return TrainingState(model, build_optimizer(model, plan.recipe.optim), ema)


def _fresh_network(plan: ArmPlan, normalisation: Normalisation, store: FeatureStore) -> MMDiT:
    """Weights of the seed. "No text" is the encoder's own embedding of an empty caption, as in the published training."""
    model = MMDiT(plan.model)
    initialise(model, plan.recipe.seed)
    model.set_latent_statistics(torch.tensor(normalisation.latent.mean), torch.tensor(normalisation.latent.std))
    with torch.no_grad():
        model.empty_text.copy_(torch.from_numpy(store.empty_text.astype("float32")))
    return model


def newest_checkpoint(folder: RunFolder) -> Checkpoint | None:
    """The newest complete checkpoint of the run, None if it has none."""
    try:
        return folder.checkpoint()
    except IncompleteError:
        return None


def check_features(store: FeatureStore, batch_size: int, num_workers: int) -> None:
    """Raise SchemaError or ConfigError, for a feature set or a batch size that training cannot use."""
    for split in ("train", "val"):
        if not store.rows_of_split(split):
            raise SchemaError(
                f"{store.uri} has no clip in the split {split!r}.",
                remedy="Set the fraction of that split in `dmma clean`, then clean and extract again.",
            )
    if batch_size % num_workers:
        raise ConfigError(
            f"recipe.loop.batch_size is {batch_size}, which cannot be split among {num_workers} workers.",
            remedy="Give a multiple of num_workers.",
        )


class _Events:
    """Worker 0 writes points and checkpoints; every worker checks for the stop file, at most twice a second."""

    def __init__(
        self, plan: ArmPlan, folder: RunFolder, identity: RunIdentity, first_step: int, workers: Workers
    ) -> None:
        self._plan, self._folder, self._identity = plan, folder, identity
        self._metrics: MetricsLog | None = None
        self._interval_s = 10.0 if paths.is_remote(plan.stop_uri) else 0.5
        self._checked_s = float("-inf")
        self._lease = plan.lease if workers.rank == 0 else None
        self._require_lease()
        if workers.rank == 0:
            self._metrics = MetricsLog(folder.metrics, first_step if first_step else -1)

    def log(self, point: MetricsPoint) -> None:
        if self._metrics:
            self._metrics.append(point)

    def save_checkpoint(self, state: TrainingState) -> None:
        if self._metrics:
            save_checkpoint(self._folder, state, self._identity, self._require_lease)
            self._metrics.flush()

    def save_snapshot(self, state: TrainingState) -> None:
        if self._metrics:
            self._require_lease()
            save_snapshot(self._folder, state.ema.snapshot())

    def should_stop(self) -> bool:
        now_s = time.monotonic()
        if now_s - self._checked_s < self._interval_s:
            return False
        self._checked_s = now_s
        self._require_lease()
        return paths.exists(self._plan.stop_uri)

    def close(self) -> None:
        if self._metrics:
            self._metrics.flush()

    def _require_lease(self) -> None:
        if self._lease:
            try:
                self._lease.require()
            except LeaseLostError:
                self._metrics = None  # the file belongs to another job, so `close` must not write it
                raise
