import subprocess
import sys
from pathlib import Path

import pytest

from ray_jobs.common import cli

ROOT = Path(__file__).resolve().parents[3]


def test_the_command_line_lists_its_jobs_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in cli.JOBS)
    assert cli.main(["exract"]) == 2
    assert "no job 'exract'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("absent", "message"),
    [("ray", "(ray). Install them: pip install 'dmma[jobs]'."), ("ray_jobs.render", "ModuleNotFoundError")],
)
def test_a_package_that_is_not_installed_is_a_sentence_and_an_own_module_is_a_defect(absent: str, message: str) -> None:
    """In a process of its own, in which nothing has been imported yet."""
    code = (
        f"import sys; sys.modules[{absent!r}] = None; from ray_jobs.common import cli; sys.exit(cli.main(['render']))"
    )
    run = subprocess.run((sys.executable, "-c", code), cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert message in run.stderr
    assert ("Traceback" in run.stderr) == (absent == "ray_jobs.render")
