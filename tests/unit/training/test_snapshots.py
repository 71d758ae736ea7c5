"""Averages of other lengths, computed from a finished run's snapshots."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dmma_core.data.feature_store import FeatureStore
from dmma_core.errors import CheckpointError, ConfigError, StorageError
from dmma_core.storage.run_folder import EMA, MARKER, RunFolder
from dmma_core.training.arm import ArmPlan, train_arm
from dmma_core.training.initial_weights import network_from, require_init
from dmma_core.training.snapshots import read_snapshot, snapshot_steps, write_averages
from helpers.features import write_feature_set
from helpers.training import ALONE, small_plan, synthesised
from ray_jobs.tools.weights import main


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return write_feature_set(tmp_path_factory.mktemp("data") / "features")


@pytest.fixture(scope="module")
def plan(store: FeatureStore, tmp_path_factory: pytest.TempPathFactory) -> ArmPlan:
    """A finished run of 17 steps with snapshots of 2, 4, … 16."""
    plan = small_plan(tmp_path_factory.mktemp("runs"), store, num_steps=17)
    assert train_arm(plan, ALONE)
    return plan


def test_averages_become_runs_like_any_other(plan: ArmPlan, store: FeatureStore, tmp_path: Path) -> None:
    run = RunFolder(plan.run_uri)
    folders = [RunFolder(str(tmp_path / name)) for name in ("a", "b")]
    written = write_averages(run, [0.05, 0.08], folders)
    snapshots = [read_snapshot(run, step) for step in range(2, 18, 2)]
    for sigma_rel, folder, checkpoint in zip((0.05, 0.08), folders, written, strict=True):
        found = folder.checkpoint()
        assert (found.uri, found.step, found.record["arm"]) == (checkpoint.uri, 16, f"arm-sigma{sigma_rel}")
        assert (found.record["ema"]["sigma_rel"], set(found.record["files"])) == (sigma_rel, {EMA})
        averaged, expected = found.read(EMA), synthesised(snapshots, sigma_rel)
        assert all(torch.equal(averaged[name], value) for name, value in expected.items())
        require_init(found, plan.model, store.schema)
        model = network_from(found, plan.model, seed=0)
        torch.testing.assert_close(model.latent_std, torch.tensor(plan.normalisation.latent.std))
    tracked = read_snapshot(run, 16).averages[0.05]
    made = written[0].read(EMA)
    assert all(torch.allclose(made[name], value, atol=1e-5, rtol=0) for name, value in tracked.items())


def test_an_average_of_an_earlier_step_uses_no_later_snapshots(plan: ArmPlan, tmp_path: Path) -> None:
    run, folder = RunFolder(plan.run_uri), RunFolder(str(tmp_path))
    assert snapshot_steps(run, 17) == list(range(2, 18, 2))
    for step in (16, 8):
        write_averages(run, [0.09], [folder], step)
    assert folder.complete_steps() == [8, 16]
    expected = synthesised([read_snapshot(run, step) for step in (2, 4, 6, 8)], 0.09)
    averaged = folder.checkpoint(8).read(EMA)
    assert all(torch.equal(averaged[name], value) for name, value in expected.items())


def test_lengths_out_of_reach_are_refused_with_the_possible_range(plan: ArmPlan, tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    with pytest.raises(
        ConfigError,
        match=r"0\.01 is out of reach: the 8 snapshots up to step 16.* by 52%\. Give a length from 0\.04 to 0\.17",
    ):
        write_averages(RunFolder(plan.run_uri), [0.05, 0.01], [folder, folder])
    for sigma_rel in (0.0, 0.5, float("nan")):
        with pytest.raises(ConfigError, match="in .0, 0.28."):
            write_averages(RunFolder(plan.run_uri), [sigma_rel], [folder])
    assert not list(tmp_path.iterdir())


def test_runs_and_steps_without_snapshots_are_refused(plan: ArmPlan, store: FeatureStore, tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path / "average"))
    with pytest.raises(CheckpointError, match=r"no snapshot of step 9; .* of 6, 8, 10, the last is of 16"):
        write_averages(RunFolder(plan.run_uri), [0.08], [folder], 9)
    short = small_plan(tmp_path, store, num_steps=1)
    assert train_arm(short, ALONE)
    write_averages(RunFolder(plan.run_uri), [0.08], [folder])
    for run in (RunFolder(short.run_uri), folder):
        with pytest.raises(CheckpointError, match="has no snapshots of averages"):
            write_averages(run, [0.08], [RunFolder(str(tmp_path / "another"))])


def test_another_run_is_never_written_into(plan: ArmPlan, tmp_path: Path) -> None:
    run, folder = RunFolder(plan.run_uri), RunFolder(str(tmp_path))
    write_averages(run, [0.08], [folder])
    write_averages(run, [0.08], [folder])
    for sigma_rel, other in ((0.09, folder), (0.08, run)):
        with pytest.raises(StorageError, match="holds another run"):
            write_averages(run, [sigma_rel], [other])
    with pytest.raises(CheckpointError, match="holds only a network"):
        train_arm(replace(plan, run_uri=folder.uri), ALONE)
    assert len(list(tmp_path.rglob(MARKER))) == 1


def test_the_command(plan: ArmPlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "mine"
    shutil.copytree(plan.run_uri, copy)
    assert main(["average", f"{copy}/", "--sigma-rel", "0.05", "0.08", "--step", "12"]) == 0
    assert f"{copy}-sigma0.08 holds the average of sigma_rel 0.08 at step 12, snapshots: 6" in capsys.readouterr().out
    assert [RunFolder(f"{copy}-sigma{length}").checkpoint().step for length in ("0.05", "0.08")] == [12, 12]
    assert main(["average", str(copy), "--sigma-rel", "0.09", "--run", str(tmp_path / "other")]) == 0
    assert RunFolder(str(tmp_path / "other")).checkpoint().step == 16
    capsys.readouterr()
    assert main(["average", str(copy), "--sigma-rel", "0.05", "0.08", "--run", str(tmp_path / "other")]) != 0
    assert "Give one --sigma-rel, or no --run" in capsys.readouterr().err
