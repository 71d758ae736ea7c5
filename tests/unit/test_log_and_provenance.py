import logging
import time

import pytest

from dmma_core import log
from dmma_core.provenance import fingerprint, git_commit, provenance


def test_fingerprint_is_of_contents_not_of_order() -> None:
    assert fingerprint({"a": 1, "b": [1.5, "ä"]}) == fingerprint({"b": [1.5, "ä"], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": 2})
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint({"a": float("nan")})


def test_provenance_names_code_and_libraries() -> None:
    record = provenance()
    assert record["git_commit"] == git_commit()
    assert record["libraries"]["torch"] != "absent"


def test_progress_without_a_terminal_is_plain_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_PLAIN_INTERVAL_S", 0.0)
    with caplog.at_level(logging.INFO, logger="dmma_core.progress"):
        for _ in log.progress(range(3), "extract", total=3):
            time.sleep(0.01)
    assert caplog.messages[0].startswith("extract: 1/3 clip")
    assert "3/3" in caplog.messages[-1]
