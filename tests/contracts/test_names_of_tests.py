"""Tests mirror the code: `tests/unit/<package>/test_<module>[_<aspect>].py` is of `dmma_core/<package>/<module>.py`."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MIRRORS = {"unit": "dmma_core", "jobs": "ray_jobs"}
FILES = sorted(file for mirror in MIRRORS for file in (ROOT / "tests" / mirror).rglob("test_*.py"))


def module_of(test: Path) -> Path | None:
    """The module that a test file is named after: the one with the longest name that is a prefix of the file's."""
    mirror, *folders = test.relative_to(ROOT / "tests").parent.parts
    words = test.stem.split("_")[1:]
    for length in range(len(words), 0, -1):
        module = ROOT.joinpath(MIRRORS[mirror], *folders, f"{'_'.join(words[:length])}.py")
        if module.is_file():
            return module
    return None


@pytest.mark.parametrize("test", FILES, ids=lambda file: str(file.relative_to(ROOT / "tests")))
def test_a_test_is_named_after_a_module(test: Path) -> None:
    assert module_of(test), f"there is no such module: move or rename {test}"


@pytest.mark.parametrize("name", ["unit/data/test_feature_store.py", "unit/data/test_feature_store_writing.py"])
def test_the_longest_name_counts(name: str) -> None:
    assert module_of(ROOT / "tests" / name) == ROOT / "dmma_core" / "data" / "feature_store.py"
    assert module_of(ROOT / "tests" / "unit" / "data" / "test_feature.py") is None
