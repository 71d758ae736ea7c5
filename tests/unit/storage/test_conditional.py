"""Conditional writes, on a disk and on a bucket: of several concurrent changes of a file one succeeds."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dmma_core.errors import StorageError
from dmma_core.storage import conditional, paths


@pytest.fixture(params=["disk", "bucket"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "new") if request.param == "disk" else request.getfixturevalue("bucket")


def test_a_file_is_created_once_and_changed_only_from_its_newest_version(folder: str) -> None:
    uri = f"{folder}/sub folder/a.json"
    assert conditional.read(uri) is None
    first = conditional.create(uri, b"first")
    assert first and conditional.create(uri, b"other") is None
    assert conditional.read(uri) == first
    second = conditional.replace(uri, b"second", first)
    assert second and conditional.replace(uri, b"late", first) is None
    assert not conditional.remove(uri, first)
    assert paths.read_bytes(uri) == b"second"
    assert conditional.remove(uri, second)
    assert not conditional.remove(uri, second)
    assert conditional.replace(uri, b"late", second) is None
    assert paths.list_files(folder) == [] if paths.exists(folder) else True


def test_of_many_at_once_one_succeeds(folder: str) -> None:
    uri, barrier = f"{folder}/a.json", threading.Barrier(8)

    def create(number: int) -> bool:
        barrier.wait()
        return conditional.create(uri, b"%d" % number) is not None

    def replace(number: int) -> bool:
        barrier.wait()
        return conditional.replace(uri, b"new %d" % number, old) is not None

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(create, range(8))) == 1
        old = conditional.read(uri)
        assert old
        assert sum(pool.map(replace, range(8))) == 1


def test_no_change_of_many_is_lost(folder: str) -> None:
    uri = f"{folder}/arms.json"

    def add(number: int) -> None:
        conditional.update_json(uri, lambda value: {**(value or {}), str(number): number})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert paths.read_json(uri) == {str(number): number for number in range(8)}


def test_errors_are_reported(folder: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below_a_file = "gs://no-such-bucket/a.json" if paths.is_remote(folder) else f"{tmp_path}/file/a.json"
    with pytest.raises(StorageError, match="There is no gs://no-such-bucket|lies below a file"):
        conditional.create(below_a_file, b"x")
