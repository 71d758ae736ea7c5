"""A comparison's folder: its owner, and which sounds stay in it."""

from pathlib import Path

import pytest

from dmma_core.errors import StorageError
from dmma_core.evaluation.report.folder import ComparisonFolder
from dmma_core.evaluation.report_file import Report


def report(uri: str, arm: str, generation: str = "g", evaluator: str = "e") -> Report:
    record = {"arm": arm, "generation_fingerprint": generation, "features_fingerprint": "f"}
    return Report(uri, {**record, "evaluator": {"fingerprint": evaluator}})


def test_the_same_reports_are_accepted_at_any_uri_and_others_refused(tmp_path: Path) -> None:
    first, second = report("/a/first.json", "baseline"), report("/a/second.json", "depth")
    ComparisonFolder(str(tmp_path), first, second).claim()
    ComparisonFolder(str(tmp_path), report("/moved/first.json", "baseline"), second).claim()
    for others in (
        (second, first),
        (first, report("/a/second.json", "depth", generation="of another checkpoint")),
        (first, report("/a/second.json", "depth", evaluator="with other settings")),
    ):
        with pytest.raises(StorageError, match=r"/moved/first.json and /a/second.json\. Give another out_uri"):
            ComparisonFolder(str(tmp_path), *others).claim()


def test_only_named_sounds_stay(tmp_path: Path) -> None:
    folder = ComparisonFolder(str(tmp_path), report("a", "baseline"), report("b", "depth"))
    folder.remove_other_sounds([])  # there are none yet
    (tmp_path / "sounds").mkdir()
    for name in ("kept.wav", "stale.wav"):
        (tmp_path / "sounds" / name).touch()
    folder.remove_other_sounds(["kept.wav"])
    assert [path.name for path in (tmp_path / "sounds").iterdir()] == ["kept.wav"]
