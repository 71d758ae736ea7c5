import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from dmma_core.errors import StorageError
from ray_jobs import generate
from ray_jobs.common.job import Job


@dataclass(frozen=True)
class EchoConfig:
    """`text` is printed `times` times."""

    text: str = "hello"
    times: int = 1
    out_uri: str = ""


def echo_job(run=lambda config: print(config.text * config.times)) -> Job:
    return Job(
        name="echo",
        summary="Print a text.",
        config=EchoConfig,
        plan=lambda config: [f"Would print {config.text!r}."],
        run=run,
        example="dmma echo hi",
        flags={"--text": "text"},
        positional="text",
    )


@pytest.mark.parametrize(
    ("argv", "printed"),
    [
        ([], "hello"),
        (["hi"], "hi"),
        (["--text", "ho", "times=2"], "hoho"),
        (["text=a=b"], "a=b"),
        (["hi", "--text", "ho", "times=2"], "hoho"),
        (["--text", "dog: bark #2"], "dog: bark #2"),
    ],
)
def test_settings_come_from_flags_words_and_pairs(
    argv: list[str], printed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert echo_job().main(argv) == 0
    assert capsys.readouterr().out.strip() == printed


def test_a_second_word_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert echo_job().main(["hi", "ho"]) == 2
    assert "2 values are given for text: hi, ho." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "printed"),
    [
        ("a=b.mp4", "a=b.mp4"),  # such a file exists
        ("times=2", "hellohello"),  # here too, but it is a setting
        ("./times=2", "./times=2"),
        ("gs://bucket/a=c.mp4", "gs://bucket/a=c.mp4"),
        ("text=a=b.mp4", "a=b.mp4"),
    ],
)
def test_a_file_may_have_an_equals_sign(
    word: str, printed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a=b.mp4", "times=2"):
        (tmp_path / name).touch()
    assert echo_job().main([word]) == 0
    assert capsys.readouterr().out.strip() == printed


def test_help_explains_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        echo_job().main(["--help"])
    assert stop.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    for part in (
        "example: dmma echo hi",
        "times: 1",
        "`text` is printed `times` times.",
        "a file, is the setting text",
    ):
        assert part in out


def test_dry_run_prints_settings_and_plan_and_does_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def never(config: EchoConfig) -> None:
        raise AssertionError

    assert echo_job(never).main(["--dry-run", "times=3"]) == 0
    out = capsys.readouterr().out
    assert "times: 3" in out
    assert "Would print 'hello'." in out


def test_a_users_error_is_one_sentence_and_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(config: EchoConfig) -> None:
        raise StorageError("There is no x.", remedy="Make it.")

    assert echo_job(fail).main([]) == 1
    assert capsys.readouterr().err == "dmma echo: There is no x. Make it.\n"
    assert echo_job().main(["timse=2"]) == 2
    assert "Did you mean times" in capsys.readouterr().err


def test_ctrl_c_is_130_and_a_defect_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(config: EchoConfig) -> None:
        raise KeyboardInterrupt

    assert echo_job(interrupt).main([]) == 130
    assert "run the same command" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        echo_job(lambda config: print(1 // 0)).main([])


def test_sigterm_ends_a_job_as_ctrl_c_does(capsys: pytest.CaptureFixture[str]) -> None:
    before, ended = signal.getsignal(signal.SIGTERM), []

    def wait(config: EchoConfig) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            signal.pause()
        finally:
            ended.append(True)

    assert echo_job(wait).main([]) == 130
    assert ended and "run the same command" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) is before


CHATTY = """
from ray_jobs.common.job import Job
from test_job import EchoConfig
chat = lambda config: [print(config.text, flush=True) for _ in range(10_000)]
raise SystemExit(Job("echo", "", EchoConfig, plan=lambda config: [], run=chat, example="").main([]))
"""


def test_output_that_is_not_read_to_its_end_is_no_success() -> None:
    command = [sys.executable, "-c", CHATTY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parent) as job:
        assert job.stdout and job.stderr
        assert job.stdout.readline() == b"hello\n"
        job.stdout.close()
        assert job.stderr.read() == b""
    assert job.returncode == 141


def test_a_submitted_job_refuses_paths_in_its_temporary_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "working_dir_files" / "_ray_pkg_0123"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    for lost in ("out_uri=", "out_uri=features/x"):
        assert echo_job().main([lost]) == 2
        assert "absolute path" in capsys.readouterr().err
    places = ["--run", "/run", "/clip.mp4", "out_uri=/out"]
    assert generate.JOB.main([*places, "encoder_weights.vae=x.pth"]) == 2
    assert "encoder_weights.vae is 'x.pth'" in capsys.readouterr().err
    for kept in ("/features", "gs://bucket/features", "file:///features"):
        assert echo_job().main([f"out_uri={kept}"]) == 0


def test_config_files_are_found_by_path_and_named_ones_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("text: from a file\n")
    assert echo_job().main(["--config", str(file)]) == 0
    assert capsys.readouterr().out == "from a file\n"
    assert echo_job().main(["--config", "absent"]) == 2
    assert "There is no configuration file absent" in capsys.readouterr().err
