"""A complete arm in this process: resuming bit for bit, stopping, diverging, several workers, checkpoints that do not match."""

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from dmma_core.config_loading import config_from_dict, config_to_dict
from dmma_core.data.feature_store import FeatureStore
from dmma_core.errors import CheckpointError, ConfigError, LeaseLostError, SchemaError, StorageError, TrainingError
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.presets import config_for_features
from dmma_core.storage import paths
from dmma_core.storage.lease import held
from dmma_core.storage.metrics_log import read_metrics
from dmma_core.storage.run_folder import EMA, MARKER, MODEL, RunFolder
from dmma_core.storage.tensor_files import read_tensors
from dmma_core.training.arm import ArmPlan, _Events, check_features, new_state, train_arm
from dmma_core.training.checkpoint import STATE, save_checkpoint
from dmma_core.training.snapshots import read_snapshot, snapshot_steps
from dmma_core.training.workers import Workers
from helpers.features import write_feature_set
from helpers.training import ALONE, small_plan, synthesised, with_recipe

TIMES = ("wall_s", "unix_s", "train/samples_per_s", "train/data_wait_percent")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_feature_set(tmp_path_factory.mktemp("data") / "features", num_clips=9, num_val=5)


@pytest.fixture(scope="module")
def straight(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> ArmPlan:
    """A finished run of seven steps; nine clips make an epoch, so it crosses several."""
    plan = small_plan(tmp_path_factory.mktemp("straight"), store, "both", num_steps=7)
    assert train_arm(plan, ALONE)
    return plan


def files_of(plan: ArmPlan, step: int) -> dict[str, dict[str, torch.Tensor]]:
    checkpoint = RunFolder(plan.run_uri).checkpoint(step)
    return {name: checkpoint.read(name) for name in (MODEL, EMA, STATE)}


def assert_equal_files(first: dict[str, dict[str, torch.Tensor]], second: dict[str, dict[str, torch.Tensor]]) -> None:
    for name, tensors in first.items():
        assert set(tensors) == set(second[name])
        for key, value in tensors.items():
            assert torch.equal(value, second[name][key]), f"{name}: {key}"


def points_of(plan: ArmPlan) -> list[dict[str, float]]:
    points = read_metrics(RunFolder(plan.run_uri).metrics)
    return [{key: value for key, value in point.items() if key not in TIMES} for point in points]


def validation_of(plan: ArmPlan) -> dict[float, float]:
    return {point["step"]: point["val/loss"] for point in points_of(plan) if "val/loss" in point}


def test_resuming_gives_the_same_bits_as_training_without_a_stop(
    store: FeatureStore, straight: ArmPlan, tmp_path: Path
) -> None:
    plan = small_plan(tmp_path, store, "both", num_steps=3)
    assert train_arm(plan, ALONE)
    longer = with_recipe(plan, loop={"num_steps": 7})
    assert train_arm(longer, ALONE)
    assert_equal_files(files_of(longer, 7), files_of(straight, 7))


def test_a_killed_session_leaves_no_trace(store: FeatureStore, straight: ArmPlan, tmp_path: Path) -> None:
    """Killed between two checkpoints, at an arbitrary moment: the points after the last checkpoint are logged again."""
    plan = small_plan(tmp_path, store, "both", num_steps=7, checkpoint_every=3)
    code = f"""
        import os, sys, torch
        sys.path.insert(0, {str(Path(__file__).parents[2])!r})
        from pathlib import Path
        from dmma_core.data.feature_store import FeatureStore
        from dmma_core.training import arm
        from helpers.training import ALONE, small_plan
        class Killed(arm.TrainingStep):
            def __call__(self, batch, noise, step):
                if step == 5:
                    os.kill(os.getpid(), 9)
                return super().__call__(batch, noise, step)
        arm.TrainingStep = Killed
        torch.set_num_threads(1)
        arm.train_arm(small_plan(Path({str(tmp_path)!r}), FeatureStore({store.uri!r}), "both", num_steps=7, checkpoint_every=3), ALONE)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=120)
    assert killed.returncode == -9
    assert [point["step"] for point in points_of(plan)][-1] == 4
    assert RunFolder(plan.run_uri).complete_steps() == [3]
    assert train_arm(plan, ALONE)
    assert_equal_files(files_of(plan, 7), files_of(straight, 7))
    steps = [(point["step"], tuple(point)) for point in points_of(plan)]
    assert len(steps) == len(set(steps)), "a point is in the metrics twice"


def test_validation_first_and_last_and_every_interval(straight: ArmPlan) -> None:
    validated = validation_of(straight)
    assert list(validated) == [0, 2, 4, 6, 7]
    assert all(math.isfinite(loss) for loss in validated.values())
    assert [point["samples"] for point in points_of(straight)][-1] == 28


def test_both_arms_start_alike_and_see_the_same_noise(store: FeatureStore, straight: ArmPlan, tmp_path: Path) -> None:
    baseline = small_plan(tmp_path, store, "off", num_steps=2)
    first, second = (new_state(plan, store, ALONE).model.state_dict() for plan in (baseline, straight))
    assert set(first) < set(second)
    assert all(torch.equal(value, second[key]) for key, value in first.items())
    assert train_arm(baseline, ALONE)
    # The final layer starts at zero, so before the first step both networks predict nothing: equal noise, equal loss.
    assert points_of(baseline)[0]["val/loss"] == points_of(straight)[0]["val/loss"]


def test_stop_writes_a_checkpoint_and_returns(store: FeatureStore, straight: ArmPlan, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, store, "both", num_steps=7)
    Path(plan.stop_uri).touch()
    assert not train_arm(plan, ALONE)
    assert RunFolder(plan.run_uri).complete_steps() == [1]
    Path(plan.stop_uri).unlink()
    assert train_arm(plan, ALONE)
    assert_equal_files(files_of(plan, 7), files_of(straight, 7))


def test_a_lost_lease_ends_the_arm_without_a_marker(store: FeatureStore, tmp_path: Path) -> None:
    """As for workers of a driver that died: another job's token, or none."""
    plan = small_plan(tmp_path, store, num_steps=6)
    with held(plan.run_uri, "train") as lease:
        mine = replace(plan, lease=lease.token)
        assert train_arm(with_recipe(mine, loop={"num_steps": 2}), ALONE)
    with held(plan.run_uri, "train"), pytest.raises(LeaseLostError, match="taken over by train"):
        train_arm(mine, ALONE)
    with pytest.raises(LeaseLostError, match=r"LEASE.json is gone"):
        train_arm(mine, ALONE)
    folder = RunFolder(plan.run_uri)
    assert folder.steps() == [2]
    assert snapshot_steps(folder, 6) == [2]

    def lose(name: str) -> Callable[[], None]:
        def require() -> None:
            if paths.exists(f"{plan.run_uri}/checkpoints/step=000000004/{name}"):
                raise LeaseLostError("This job lost its lease.")

        return require

    state = new_state(plan, store, ALONE)
    state.step = 4
    with pytest.raises(LeaseLostError):
        save_checkpoint(folder, state, plan.identity(store), lose(MODEL))
    assert (folder.steps(), folder.complete_steps()) == ([2, 4], [2])


def test_a_lost_lease_leaves_the_metrics_of_the_other_job_alone(
    store: FeatureStore, tmp_path: Path, bucket: str
) -> None:
    """On a bucket the full file is written again at the end of a session."""
    plan = replace(small_plan(tmp_path, store), run_uri=f"{bucket}/arm")
    folder = RunFolder(plan.run_uri)
    with held(plan.run_uri, "train") as lease:
        mine = replace(plan, lease=lease.token)
        events = _Events(mine, folder, plan.identity(store), 0, ALONE)
        events.log({"step": 0.0})
    paths.write_bytes(folder.metrics, b'{"step": 9}\n')
    with pytest.raises(LeaseLostError):
        events.save_snapshot(new_state(plan, store, ALONE))
    events.close()
    with pytest.raises(LeaseLostError):
        train_arm(mine, ALONE)
    assert paths.read_bytes(folder.metrics) == b'{"step": 9}\n'
    assert paths.list_files(plan.run_uri) == [folder.metrics]


def test_divergence_is_reported_and_keeps_the_checkpoint(store: FeatureStore, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, store, num_steps=2)
    assert train_arm(plan, ALONE)
    changed = ("recipe.optim.learning_rate", "recipe.schedule.kind")
    broken = with_recipe(
        replace(plan, allow_changes=changed),
        loop={"num_steps": 200},
        optim={"learning_rate": 1e30},
        schedule={"kind": "constant"},
    )
    with pytest.raises(
        TrainingError, match=r"diverged in step \d+.*The checkpoint of step \d+ is intact.*learning_rate"
    ):
        train_arm(broken, ALONE)
    weights = RunFolder(plan.run_uri).checkpoint(2).read(MODEL)
    assert all(torch.isfinite(value).all() for value in weights.values())


def test_keeps_the_newest_checkpoints_and_every_snapshot(straight: ArmPlan) -> None:
    folder = RunFolder(straight.run_uri)
    assert folder.complete_steps() == [6, 7]
    assert snapshot_steps(folder, 7) == [2, 4, 6]
    assert snapshot_steps(folder, 5) == [2, 4]


def test_the_size_of_a_run_is_known_before_training(straight: ArmPlan, store: FeatureStore, tmp_path: Path) -> None:
    """The rest is headers and JSON, a larger part of a network as small as this one."""
    small = small_plan(tmp_path, store, num_steps=1)
    assert train_arm(small, ALONE)
    for plan, kept in ((straight, 2 / 4), (small, 1)):
        expected = (kept * plan.bytes_to_keep()[0], plan.bytes_to_keep()[1])
        for folder, num_bytes in zip(("checkpoints", "ema_snapshots"), expected, strict=True):
            files = list(Path(plan.run_uri, folder).rglob("*.safetensors"))
            assert sum(path.stat().st_size for path in files) == pytest.approx(num_bytes, rel=0.15)


def test_copies_made_by_hand_are_kept(store: FeatureStore, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, store, num_steps=2)
    assert train_arm(plan, ALONE)
    folder = RunFolder(plan.run_uri)
    copies = [Path(f"{folder.checkpoint_uri(2)}-copy"), Path(folder.uri) / "checkpoints" / "step=2"]
    for copy in copies:
        shutil.copytree(folder.checkpoint_uri(2), copy)
    snapshot = Path(folder.uri) / "ema_snapshots" / "step=000000002.safetensors"
    shutil.copy(snapshot, snapshot.with_stem("step=000000002-copy"))
    assert train_arm(with_recipe(plan, loop={"num_steps": 4, "keep_checkpoints": 1}), ALONE)
    assert folder.complete_steps() == [4]
    assert snapshot_steps(folder, 4) == [2, 4]
    assert all(copy.is_dir() for copy in copies)


def test_another_average_can_be_computed_after_training(straight: ArmPlan) -> None:
    folder = RunFolder(straight.run_uri)
    made = synthesised([read_snapshot(folder, step) for step in snapshot_steps(folder, 6)], sigma_rel=0.05)
    averaged = folder.checkpoint(6).read(EMA)
    for key, value in made.items():
        torch.testing.assert_close(value, averaged[key], atol=1e-4, rtol=0)


def test_checkpoint_alone_rebuilds_the_network(straight: ArmPlan, store: FeatureStore) -> None:
    from dmma_core.models.mmdit_config import MMDiTConfig

    checkpoint = RunFolder(straight.run_uri).checkpoint()
    model = MMDiT(config_from_dict(MMDiTConfig, checkpoint.record["model"], checkpoint.uri))
    checkpoint.load_into(model, EMA)
    assert model.config == straight.model
    torch.testing.assert_close(model.latent_mean, torch.tensor(straight.normalisation.latent.mean))
    other = MMDiT(config_for_features("tiny", store.schema))
    with pytest.raises(CheckpointError, match="another architecture"):
        checkpoint.load_into(other, EMA)


def spoil_architecture(plan: ArmPlan, store: FeatureStore, tmp_path: Path) -> ArmPlan:
    return replace(plan, model=replace(plan.model, hidden_width=64))


def spoil_seed(plan: ArmPlan, store: FeatureStore, tmp_path: Path) -> ArmPlan:
    return with_recipe(plan, seed=plan.recipe.seed + 1)


def spoil_features(plan: ArmPlan, store: FeatureStore, tmp_path: Path) -> ArmPlan:
    other = write_feature_set(tmp_path / "other", num_clips=9, num_val=5, encoder="another")
    return replace(plan, features_uri=other.uri)


def spoil_file(plan: ArmPlan, store: FeatureStore, tmp_path: Path) -> ArmPlan:
    path = Path(RunFolder(plan.run_uri).checkpoint().uri) / STATE
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return plan


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_architecture, "another architecture: hidden_width 32 .now 64."),
        (spoil_seed, r"another recipe: recipe.seed 3 \(now 4\).*allow_changes=\[recipe.seed\]"),
        (spoil_features, "another feature set"),
        (spoil_file, "differs from its recorded sha256"),
    ],
)
def test_a_checkpoint_that_does_not_match_is_refused(
    spoil: Callable[[ArmPlan, FeatureStore, Path], ArmPlan], message: str, store: FeatureStore, tmp_path: Path
) -> None:
    plan = small_plan(tmp_path, store, num_steps=2)
    assert train_arm(plan, ALONE)
    with pytest.raises(CheckpointError, match=message):
        train_arm(spoil(plan, store, tmp_path), ALONE)


def test_an_allowed_change_is_recorded_with_its_step(store: FeatureStore, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, store, num_steps=2)
    assert train_arm(plan, ALONE)
    changed = with_recipe(plan, loop={"num_steps": 4}, optim={"learning_rate": 5e-4})
    with pytest.raises(CheckpointError, match=r"another recipe: recipe.optim.learning_rate 0.001 \(now 0.0005\)\."):
        train_arm(changed, ALONE)
    assert train_arm(replace(changed, allow_changes=("recipe.optim.learning_rate",)), ALONE)
    record = RunFolder(plan.run_uri).checkpoint(4).record
    assert record["recipe"] == json.loads(json.dumps(config_to_dict(changed.recipe)))
    expected = {"recipe.loop.num_steps": [2, 4], "recipe.optim.learning_rate": [0.001, 0.0005]}
    assert record["recipe_changes"] == [{"step": 2, "changes": expected}]
    assert train_arm(with_recipe(changed, loop={"num_steps": 5}), ALONE)
    assert [entry["step"] for entry in RunFolder(plan.run_uri).checkpoint(5).record["recipe_changes"]] == [2, 4]


def test_averages_of_other_lengths_cannot_be_tracked_afterwards(store: FeatureStore, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, store, num_steps=2)
    assert train_arm(plan, ALONE)
    other = with_recipe(plan, ema={"tracked_sigma_rel": (0.05, 0.2)})
    with pytest.raises(CheckpointError, match="recipe.ema.tracked_sigma_rel"):
        train_arm(replace(other, allow_changes=("recipe.ema.tracked_sigma_rel",)), ALONE)


def test_a_damaged_marker_of_an_older_checkpoint_does_not_end_training(
    store: FeatureStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = small_plan(tmp_path, store, num_steps=4)
    assert train_arm(plan, ALONE)
    folder = RunFolder(plan.run_uri)
    Path(folder.checkpoint_uri(2), MARKER).write_text("{")
    assert train_arm(with_recipe(plan, loop={"num_steps": 6}), ALONE)
    assert folder.complete_steps() == [2, 4, 6]
    assert "No older checkpoint" in caplog.text and "COMPLETE.json is not valid JSON" in caplog.text


def test_the_best_checkpoint_is_kept_and_found(store: FeatureStore, tmp_path: Path) -> None:
    """A learning rate that is far too high after step 2 makes every later validation loss worse."""
    plan = small_plan(tmp_path, store, num_steps=2)
    assert train_arm(plan, ALONE)
    worse = with_recipe(
        replace(plan, allow_changes=("recipe.optim.learning_rate",)),
        loop={"num_steps": 8, "keep_checkpoints": 1},
        optim={"learning_rate": 0.03},
    )
    assert train_arm(worse, ALONE)
    folder = RunFolder(plan.run_uri)
    assert folder.complete_steps() == [2, 8]
    best, newest = folder.best_checkpoint(), folder.checkpoint()
    assert (best.step, newest.step) == (2, 8)
    validated = validation_of(plan)
    assert best.validation_loss == validated[2] < newest.validation_loss == validated[8]
    lowest = {"lowest_step": 2, "lowest_loss": validated[2]}
    assert newest.training["validation"] == {"loss": validated[8], **lowest}


def test_a_full_disk_keeps_complete_checkpoints(store: FeatureStore, tmp_path: Path) -> None:
    """A limit on file sizes by the operating system replaces the full disk."""
    plan = small_plan(tmp_path, store, num_steps=2)
    assert train_arm(plan, ALONE)
    longer = with_recipe(plan, loop={"num_steps": 4})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match=r"step=000000004.safetensors could not be read or written"):
            train_arm(longer, ALONE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    folder = RunFolder(plan.run_uri)
    assert folder.complete_steps() == [2]
    assert not list(Path(folder.uri).rglob("*.tmp-*"))
    assert train_arm(longer, ALONE)


def _work(rank: int, size: int, port: int, plan: ArmPlan, copy: str) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=size)
    workers = Workers(torch.device("cpu"), rank, size)
    train_arm(with_recipe(plan, loop={"num_steps": 3}), workers)
    if rank == 0:
        shutil.copytree(plan.run_uri, copy)
    dist.barrier()
    train_arm(plan, workers)
    dist.destroy_process_group()


def test_two_workers_learn_what_one_learns_and_one_can_resume(
    store: FeatureStore, straight: ArmPlan, tmp_path: Path, free_port: int
) -> None:
    plan = small_plan(tmp_path, store, "both", num_steps=7)
    copy = replace(plan, run_uri=str(tmp_path / "copy"))
    torch.multiprocessing.spawn(_work, (2, free_port, plan, copy.run_uri), nprocs=2)
    assert train_arm(copy, ALONE)
    expected, start = files_of(straight, 7)[MODEL], new_state(straight, store, ALONE).model.state_dict()
    moved = sum(float((expected[key] - start[key]).square().sum()) for key in expected)
    for run in (plan, copy):
        assert validation_of(run) == pytest.approx({**validation_of(straight), 3: validation_of(run)[3]}, rel=1e-3)
        trained = files_of(run, 7)[MODEL]
        assert sum(float((expected[key] - trained[key]).square().sum()) for key in expected) < 1e-4 * moved


def test_features_that_training_cannot_use(store: FeatureStore, tmp_path: Path) -> None:
    with pytest.raises(SchemaError, match="no clip in the split 'val'"):
        check_features(write_feature_set(tmp_path / "novalidation", num_clips=4, num_val=0), 4, 1)
    with pytest.raises(ConfigError, match="cannot be split among 3 workers"):
        check_features(store, 4, 3)


def test_snapshot_files_hold_both_lengths(straight: ArmPlan) -> None:
    tensors = read_tensors(f"{straight.run_uri}/ema_snapshots/step=000000006.safetensors")
    assert {key.partition("/")[0] for key in tensors} == {"0.05", "0.1"}
