"""The commands doctor and weights as a person types them."""

import sys
from pathlib import Path

import pytest

from dmma_core.storage.weights import REGISTRY
from ray_jobs.tools import doctor, weights


def test_models_are_counted_in_every_form(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--models"]) == 0
    rows = {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()[1:]}
    off, _, deep = (int(count.replace(",", "")) for count in rows["small_44k"])
    assert (round(off / 1e6, 3), round(deep / 1e6, 3)) == (157.409, 159.508)  # as published
    assert all(len(counts) == 3 for counts in rows.values())


@pytest.mark.usefixtures("ray_cluster")
def test_every_check_passes_or_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the discard port: nobody answers
    (tmp_path / "file").write_text("")
    num_failed = doctor.main([str(tmp_path / "file" / "below")])
    lines = capsys.readouterr().out.splitlines()
    failed = [line for line in lines if line.startswith("FAIL")]
    assert num_failed == len(failed) >= 2
    assert len(lines) == 12
    assert any("MLflow: MLflow at http://127.0.0.1:9 does not answer" in line for line in failed)
    assert any("below" in line for line in failed)


def test_a_check_that_breaks_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)  # Python's own sign for "cannot be imported"
    assert doctor.main([]) >= 1
    lines = {line.split(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "ModuleNotFoundError: import of ray halted" in lines["FAIL  Ray"]
    assert {"OK    Python", "OK    tiny encoders", "OK    storage .", "OK    published weights"} <= lines.keys()
    assert len(lines) == 11


def test_the_list_of_weights_fits_the_terminal_and_sums_up_its_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DMMA_CACHE", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    (tmp_path / "depth_anything_v2_small").mkdir()
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        (tmp_path / "depth_anything_v2_small" / name).touch()
    assert weights.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines[:-1])) <= 100
    rows = {words[1]: (words[0], *words[2:4]) for words in map(str.split, lines) if words and words[0] in ("here", "-")}
    assert rows.keys() >= {"all", "bundle_mmaudio_44k", *REGISTRY}
    assert rows["mmaudio_small_44k"] == ("-", "630", "MB")
    assert rows["depth_anything_v2_small_folder"] == ("here", "99", "MB")
    assert rows["bundle_mmaudio_44k"] == ("-", "7.1", "GB")
    assert lines.index("CC-BY-NC-4.0, not for commercial use:") < lines.index("MIT:")


def test_absent_weights_are_sentences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DMMA_CACHE", str(tmp_path))
    assert weights.main(["list"]) == 0
    assert "mmaudio_small_44k" in capsys.readouterr().out
    for command, sentence in (
        (["where", "mmaudio_small_44k"], "dmma weights fetch mmaudio_small_44k"),
        (["fetch", "mmaudio_small_44k", "--offline"], "--offline forbids"),
        (["fetch", "nonsense"], "no published weights 'nonsense'"),
    ):
        assert weights.main(command) != 0
        assert sentence in capsys.readouterr().err
    assert weights.main(["verify", "all"]) == 0
    assert "no weights in" in capsys.readouterr().out
