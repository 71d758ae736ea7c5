import sys

import pytest

from ray_jobs.common import cli


def test_the_command_line_lists_its_jobs_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.JOBS)
    assert cli.main(["exract"]) == 2
    assert "no job 'exract'" in capsys.readouterr().err


def test_a_package_that_is_not_installed_is_a_sentence_and_an_own_module_is_a_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "ray_jobs.render", raising=False)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        assert cli.main(["render"]) == 1
    assert "(ray). Install them: pip install 'dmma[jobs]'." in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "ray_jobs.render", None)
    with pytest.raises(ModuleNotFoundError, match=r"ray_jobs\.render"):
        cli.main(["render"])
