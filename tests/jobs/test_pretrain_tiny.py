"""The pre-training job on a real local Ray, with sizes that only show that it runs to the end and what it writes."""

from pathlib import Path

import pytest
import torch

from dmma_core.encoders.clip import tiny_clip
from dmma_core.encoders.depth import tiny_depth
from dmma_core.encoders.pretraining.files import CARD
from dmma_core.evaluation.tagger import load_tagger
from dmma_core.storage import paths
from ray_jobs.pretrain_tiny import JOB

SMALL = [
    "pretraining.num_clips=8",
    "pretraining.num_unseen_clips=8",
    "pretraining.num_tagger_clips=8",
    "pretraining.num_depth_steps=2",
    "pretraining.num_text_steps=2",
    "pretraining.num_clip_steps=2",
    "pretraining.num_tagger_steps=2",
    "num_threads=1",
]


def test_it_writes_weights_that_load_and_prints_their_metrics(
    ray_cluster: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    try:
        assert JOB.main([f"out_uri={tmp_path}", *SMALL]) == 0
    finally:
        torch.set_num_threads(threads)
    printed = capsys.readouterr().out
    assert "MISSED" in printed  # two steps reach no threshold, and the job reports it
    assert "tagger accuracy" in printed
    card = paths.read_json(str(tmp_path / CARD))
    assert card["training"]["num_clip_steps"] == 2
    assert set(card["unseen"]) == {"depth", "clip"}
    tiny_clip(str(tmp_path / "clip.safetensors"))
    tiny_depth(str(tmp_path / "depth.safetensors"))
    load_tagger(tmp_path)


def test_dry_run_and_wrong_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert JOB.main(["--dry-run", f"out_uri={tmp_path}/new"]) == 0
    assert "1000 clips" in capsys.readouterr().out
    assert JOB.main([f"out_uri={tmp_path}", "pretraining.num_clips=0"]) == 2
    assert "num_clips is 0" in capsys.readouterr().err
