import logging
import time

import pytest

from dmma_core import log


def test_progress_without_a_terminal_is_plain_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_PLAIN_INTERVAL_S", 0.0)
    with caplog.at_level(logging.INFO, logger="dmma_core.progress"):
        for _ in log.progress(range(3), "extract", total=3):
            time.sleep(0.01)
    assert caplog.messages[0].startswith("extract: 1/3 clip")
    assert "3/3" in caplog.messages[-1]
