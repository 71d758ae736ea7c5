"""Train the arms of a comparison side by side: same rows, same order, same noise, same initial weights.

dmma train --config tiny                      both arms, resuming where an earlier call stopped
dmma train --config tiny 'only=[baseline]'    one of them
"""

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace

from dmma_core.config_loading import config_to_dict, config_to_yaml
from dmma_core.data.feature_store import FeatureStore
from dmma_core.errors import TrainingError
from dmma_core.job_configs import TrainConfig
from dmma_core.log import size_text, without_password
from dmma_core.models.initialisation import parameter_count
from dmma_core.models.presets import config_for_features
from dmma_core.storage import paths
from dmma_core.storage.lease import LeaseToken, held, require_free
from dmma_core.storage.overwriting import refuse_overwriting
from dmma_core.storage.run_folder import RunFolder
from dmma_core.training.arm import ArmPlan, check_features, newest_checkpoint
from dmma_core.training.initial_weights import find_init, require_init
from dmma_core.training.normalisation import Normalisation, stored_normalisation
from ray_jobs.common.job import Job
from ray_jobs.common.placement import cluster_nodes, expected_nodes, place
from ray_jobs.common.reporting import DESCRIPTION, IDS, TrackedComparison, Uploader
from ray_jobs.common.runtime import connect
from ray_jobs.common.tracking_server import require_tracking_server, tracking_uri_for
from ray_jobs.common.train_driver import stop_on_signal, train_arms

NORMALISATION = "normalisation.json"
_log = logging.getLogger(__name__)


def plan(config: TrainConfig) -> Sequence[str]:
    """Check features, architectures, earlier checkpoints and write access; describe what would be trained."""
    store = FeatureStore(config.features_uri)
    check_features(store, config.recipe.loop.batch_size, config.num_workers)
    _check_place(config)
    paths.check_writable(config.comparison_uri)
    for name in config.chosen_arms():
        require_free(paths.join(config.comparison_uri, name))
    placement = place(
        sorted(config.chosen_arms()), config.num_workers, expected_nodes(_min_cpus(config)), config.device
    )
    if config.mlflow:
        require_tracking_server(tracking_uri_for(config.comparison_uri))
    mlflow = f" and to MLflow at {without_password(tracking_uri_for(config.comparison_uri))}" if config.mlflow else ""
    lines = [
        f"Train on {len(store.rows_of_split('train'))} clips of {config.features_uri}, "
        f"validate on {min(len(store.rows_of_split('val')), config.recipe.validation.max_clips)}; "
        f"{config.recipe.loop.num_steps} steps of {config.recipe.loop.batch_size} clips.",
        str(placement),
        f"Metrics go to {config.comparison_uri}/<arm>/metrics.jsonl{mlflow}.",
    ]
    for arm in arm_plans(config, store, normalisation=None):
        checkpoint = newest_checkpoint(RunFolder(arm.run_uri))
        if checkpoint:
            arm.identity(store).require_same(checkpoint)
        start = f"from the weights of {arm.init.uri}" if arm.init else "from initial weights of the seed"
        start = f"resuming at step {checkpoint.step}" if checkpoint else start
        count = parameter_count(arm.model)[1]
        checkpoints, snapshots = map(size_text, arm.bytes_to_keep())
        lines += [
            f"Arm {arm.arm}: {config.preset}, depth {arm.model.depth}, {count:,} trainable parameters, {start}.",
            f"A full run of it stores up to {checkpoints} of checkpoints and {snapshots} of snapshots of averages.",
        ]
    return lines


def run(config: TrainConfig) -> None:
    """Train all arms to the end. Raises TrainingError naming the arms that failed, KeyboardInterrupt if stopped.

    The lease on each arm's run folder is held meanwhile; another job may train other arms of the comparison at the same
    time. Raises LeaseHeldError where another job trains one of these arms.
    """
    config = replace(
        config, features_uri=paths.absolute(config.features_uri), comparison_uri=paths.absolute(config.comparison_uri)
    )
    if config.mlflow:
        _log.info("Metrics also go to MLflow at %s.", without_password(tracking_uri_for(config.comparison_uri)))
    store = FeatureStore(config.features_uri)
    check_features(store, config.recipe.loop.batch_size, config.num_workers)
    _check_place(config)
    with ExitStack() as stack:
        leases = {
            arm: stack.enter_context(held(paths.join(config.comparison_uri, arm), "train")).token
            for arm in sorted(config.chosen_arms())
        }
        _train(config, store, leases)


def _train(config: TrainConfig, store: FeatureStore, leases: Mapping[str, LeaseToken]) -> None:
    normalisation = stored_normalisation(paths.join(config.comparison_uri, NORMALISATION), store)
    plans = arm_plans(config, store, normalisation, leases)
    for arm in plans:
        if checkpoint := newest_checkpoint(RunFolder(arm.run_uri)):
            _log.info("%s has been trained up to step %d.", arm.arm, checkpoint.step)
            if _is_finished(arm, store) and checkpoint.record["ema"]["sigma_rel"] != arm.recipe.ema.sigma_rel:
                wanted = f"dmma weights average {arm.run_uri} --sigma-rel {arm.recipe.ema.sigma_rel:g}"
                _log.info(
                    "It holds the average of another recipe.ema.sigma_rel; `%s` computes the one given now.", wanted
                )
    plans = [arm for arm in plans if not _is_finished(arm, store)]
    if not plans:
        _log.info("Nothing is left to do.")
        return
    for arm in plans:
        paths.write_bytes(RunFolder(arm.run_uri).job_yaml, config_to_yaml(config).encode())
    comparison = TrackedComparison.describe(
        config.comparison_uri, {arm.arm: _parameters(config, arm) for arm in plans}, store
    )
    with (
        stop_on_signal() as stop,
        connect(min_cpus=_min_cpus(config)),
        Uploader(comparison, enabled=config.mlflow) as uploader,
    ):
        placement = place([arm.arm for arm in plans], config.num_workers, cluster_nodes(), config.device)
        failed = train_arms(plans, placement, config.max_restarts, stop)
        uploader.finish({arm.arm: _status(arm, store, failed) for arm in plans})
    for arm in plans:
        if (checkpoint := newest_checkpoint(RunFolder(arm.run_uri))) and checkpoint.overfitting:
            _log.warning(
                "%s: %s `dmma generate` takes the best of the stored checkpoints.", arm.arm, checkpoint.overfitting
            )
    if failed:
        sentences = " ".join(f"Arm {arm} failed: {sentence}" for arm, sentence in failed.items())
        others = [arm.arm for arm in plans if arm.arm not in failed]
        unharmed = f" Not affected: {', '.join(others)}." if others else ""
        raise TrainingError(sentences + unharmed, remedy="Then run the same command again; finished work is kept.")
    if stop.is_set() and not all(_is_finished(arm, store) for arm in plans):
        raise KeyboardInterrupt


def _min_cpus(config: TrainConfig) -> int:
    """Logical CPUs of a local Ray that all workers fit on."""
    return len(config.chosen_arms()) * config.num_workers


def arm_plans(
    config: TrainConfig,
    store: FeatureStore,
    normalisation: Normalisation | None,
    leases: Mapping[str, LeaseToken] | None = None,
) -> list[ArmPlan]:
    """The plans of the chosen arms, in name order. They differ in their network alone.

    Raises DmmaError where an arm cannot start from the weights of `init_uri`. An arm with a checkpoint of its own
    resumes from that, so the run of `init_uri` may by then have been trained further or deleted.
    """
    plans = [
        ArmPlan(
            arm=name,
            run_uri=paths.join(config.comparison_uri, name),
            features_uri=config.features_uri,
            stop_uri=paths.join(config.comparison_uri, name, "STOP"),
            model=config_for_features(config.preset, store.schema, arm.depth, arm.fusion),
            init=None,
            normalisation=normalisation,
            recipe=config.recipe,
            allow_changes=tuple(config.allow_changes),
            lease=(leases or {}).get(name),
        )
        for name, arm in sorted(config.chosen_arms().items())
    ]
    if not config.init_uri:
        return plans
    init_sha256 = {
        name: checkpoint.record.get("init_sha256", "")
        for name in config.arms
        if (checkpoint := newest_checkpoint(RunFolder(paths.join(config.comparison_uri, name))))
    }
    if all(init_sha256.get(plan.arm) for plan in plans):
        return [replace(plan, init_sha256=init_sha256[plan.arm]) for plan in plans]
    init = find_init(RunFolder(paths.absolute(config.init_uri)), config.init_step, set(init_sha256.values()) - {""})
    for plan in plans:
        require_init(init, plan.model, store.schema)
    return [replace(plan, init=init) for plan in plans]


def _check_place(config: TrainConfig) -> None:
    """Raise StorageError where the comparison's folder holds files of these names that no training wrote."""
    is_own = any(paths.exists(paths.join(config.comparison_uri, name)) for name in (NORMALISATION, DESCRIPTION))
    refuse_overwriting(config.comparison_uri, (*config.chosen_arms(), NORMALISATION, DESCRIPTION, IDS), is_own)


def _parameters(config: TrainConfig, arm: ArmPlan) -> dict[str, object]:
    """Parameters of an arm in MLflow: its settings, without those of the other arms."""
    settings = {key: value for key, value in config_to_dict(config).items() if key not in ("arms", "only")}
    return {**settings, "arm": arm.arm, "model": config_to_dict(arm.model)}


def _is_finished(arm: ArmPlan, store: FeatureStore) -> bool:
    checkpoint = newest_checkpoint(RunFolder(arm.run_uri))
    if checkpoint is None or checkpoint.step < arm.recipe.loop.num_steps:
        return False
    arm.identity(store).require_same(checkpoint)
    return True


def _status(arm: ArmPlan, store: FeatureStore, failed: dict[str, str]) -> str:
    if arm.arm in failed:
        return "FAILED"
    return "FINISHED" if _is_finished(arm, store) else "KILLED"


JOB = Job(
    name="train",
    summary="Train baseline and depth side by side on one Ray cluster. Run again, it resumes where it stopped.",
    config=TrainConfig,
    plan=plan,
    run=run,
    example="dmma train --config tiny features_uri=features/demo comparison_uri=runs/demo",
    flags={"--comparison": "comparison_uri"},
)

if __name__ == "__main__":
    raise SystemExit(JOB.main())
