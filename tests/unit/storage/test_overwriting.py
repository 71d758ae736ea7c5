"""Files that a job did not write are never overwritten, by whatever name or link they are reached."""

import os
from pathlib import Path

import pytest

from dmma_core.errors import StorageError
from dmma_core.storage import paths
from dmma_core.storage.overwriting import is_own_json, refuse_overwriting


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`videos/clip.mp4`, with `linked` for its folder; `out` is empty. The working folder is `videos`."""
    (tmp_path / "videos").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "videos" / "clip.mp4").write_bytes(b"video")
    (tmp_path / "linked").symlink_to("videos")
    monkeypatch.chdir(tmp_path / "videos")
    return tmp_path


@pytest.mark.parametrize("out", [".", "", "../videos", "{}/videos/", "{}/linked", "file://{}/out/../videos"])
@pytest.mark.parametrize(
    "source", ["clip.mp4", "{}/videos/clip.mp4", "file://{}/linked/clip.mp4", "../linked/clip.mp4"]
)
def test_an_input_is_never_overwritten(folder: Path, out: str, source: str) -> None:
    with pytest.raises(StorageError, match=r"clip\.mp4 would be overwritten, but it is the input .*clip\.mp4"):
        refuse_overwriting(
            out.format(folder), ["clip.mp4", "x.json"], is_own=True, inputs=["absent", source.format(folder)]
        )


def test_an_input_that_the_output_links_to_is_never_overwritten(folder: Path) -> None:
    (folder / "out" / "soft.mp4").symlink_to("../videos/clip.mp4")
    os.link(folder / "videos" / "clip.mp4", folder / "out" / "hard.mp4")
    for name in ("soft.mp4", "hard.mp4"):
        with pytest.raises(StorageError, match="it is the input clip.mp4"):
            refuse_overwriting(f"{folder}/out", [name], is_own=True, inputs=["clip.mp4"])


def test_a_folder_of_another_job_keeps_its_files(folder: Path) -> None:
    refuse_overwriting(f"{folder}/out", ["clip.mp4"], is_own=False, inputs=["clip.mp4"])
    refuse_overwriting(f"{folder}/absent", ["clip.mp4"], is_own=False)
    refuse_overwriting(str(folder), ["other"], is_own=False)
    refuse_overwriting(str(folder / "videos"), ["clip.mp4"], is_own=True, inputs=[f"{folder}/absent.mp4"])
    with pytest.raises(
        StorageError, match=r"was not written by this job and holds files that would be overwritten: clip\.mp4\."
    ):
        refuse_overwriting(str(folder / "videos"), ["clip.mp4", "other"], is_own=False)
    with pytest.raises(StorageError, match="overwritten: linked, out, videos"):
        refuse_overwriting(str(folder), ["videos", "out", "linked"], is_own=False)
    (folder / "dangling").symlink_to("nowhere")
    with pytest.raises(StorageError, match="overwritten: dangling"):
        refuse_overwriting(str(folder), ["dangling"], is_own=False)


def test_a_bucket_is_protected_too(bucket: str) -> None:
    paths.write_bytes(f"{bucket}/videos/clip.mp4", b"video")
    with pytest.raises(StorageError, match="it is the input"):
        refuse_overwriting(f"{bucket}/videos/", ["clip.mp4"], is_own=True, inputs=[f"{bucket}/videos/clip.mp4"])
    with pytest.raises(StorageError, match="was not written by this job"):
        refuse_overwriting(f"{bucket}/videos", ["clip.mp4"], is_own=False)
    with pytest.raises(StorageError, match="was not written by this job"):
        refuse_overwriting(bucket, ["videos"], is_own=False)
    refuse_overwriting(f"{bucket}/other", ["clip.mp4"], is_own=False, inputs=[f"{bucket}/videos/clip.mp4"])


def test_own_json_is_known_by_its_keys(tmp_path: Path) -> None:
    uri = str(tmp_path / "x.json")
    assert not is_own_json(uri, "a")
    for text, own in (('{"a": 1, "b": 2}', True), ('{"b": 2}', False), ("[]", False), ("no JSON", False)):
        Path(uri).write_text(text)
        assert is_own_json(uri, "a") == own
