from pathlib import Path
from typing import Any

import pytest

from dmma_core.errors import CheckpointError, IncompleteError
from dmma_core.storage import paths
from dmma_core.storage.run_folder import MARKER, SCHEMA_VERSION, Checkpoint, RunFolder


def write_marker(folder: RunFolder, step: int, loss: float | None) -> None:
    record: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "step": step, "files": {}}
    if loss is not None:
        record["validation"] = {"loss": loss, "lowest_step": 2, "lowest_loss": 1.0}
    paths.write_json(paths.join(folder.checkpoint_uri(step), MARKER), record)


def test_the_best_checkpoint_has_the_lowest_validation_loss(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    with pytest.raises(IncompleteError, match="no complete checkpoint"):
        folder.best_checkpoint()
    write_marker(folder, 1, None)
    assert folder.best_checkpoint().step == 1, "none was validated: the newest"
    for step, loss in ((2, 1.0), (3, 2.0), (4, 1.0), (5, None)):
        write_marker(folder, step, loss)
    assert folder.best_checkpoint().step == 2, "of equals the first"
    assert folder.checkpoint().step == 5


def test_over_fitting_is_a_rise_that_noise_does_not_explain() -> None:
    def checkpoint(loss: float | None) -> Checkpoint:
        return Checkpoint("run", 9, {"validation": {"loss": loss, "lowest_step": 2, "lowest_loss": 2.05}})

    assert not checkpoint(2.05).overfitting and not checkpoint(2.1).overfitting and not checkpoint(None).overfitting
    assert "risen from 2.050 (step 2) to 3.350 (step 9)" in checkpoint(3.35).overfitting
    assert not Checkpoint("imported", 0, {}).overfitting


def test_a_checkpoint_of_another_schema_version_is_refused_with_a_remedy(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    paths.write_json(paths.join(folder.checkpoint_uri(1), MARKER), {"schema_version": 1, "step": 1})
    with pytest.raises(CheckpointError, match=r"schema version 1, this DMMA reads 2. Train or import it again"):
        folder.checkpoint()
