"""The storage API behaves the same on a local folder and on gs://."""

import errno
import os
import pickle
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dmma_core.errors import AbsentError, StorageError
from dmma_core.storage import paths
from helpers.storage_emulator import StorageEmulator


@pytest.fixture(params=["local", "file_scheme", "gs"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty folder on each kind of storage."""
    if request.param == "gs":
        return f"{request.getfixturevalue('bucket')}/some folder"
    return f"file://{tmp_path}/place" if request.param == "file_scheme" else str(tmp_path / "place")


def test_written_bytes_come_back(base: str) -> None:
    uri = paths.join(base, "deep", "er", "-odd name ü.bin")
    paths.write_bytes(uri, b"abc" * 1000)
    assert paths.read_bytes(uri) == b"abc" * 1000
    assert paths.exists(uri) and not paths.exists(uri + "x")
    paths.write_bytes(uri, b"")
    assert paths.read_bytes(uri) == b""


def test_json_and_hash(base: str) -> None:
    uri = paths.join(base, "value.json")
    paths.write_json(uri, {"b": [1, 2.5, None], "a": "ü"})
    assert paths.read_json(uri) == {"a": "ü", "b": [1, 2.5, None]}
    paths.write_bytes(uri, b"abc")
    assert paths.sha256_of(uri) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_listings(base: str) -> None:
    for name in ("b.txt", "a.txt", "a.json", "sub/c.txt", "sub/deeper/d.txt", "other/e.txt"):
        paths.write_bytes(paths.join(base, name), b"1")
    found = paths.list_files(base, ".txt")
    assert [uri.removeprefix(base + "/") for uri in found] == [
        "a.txt",
        "b.txt",
        "other/e.txt",
        "sub/c.txt",
        "sub/deeper/d.txt",
    ]
    assert all(paths.read_bytes(uri) == b"1" for uri in found)
    assert paths.list_folders(base) == ["other", "sub"]
    assert paths.list_folders(paths.join(base, "absent")) == []


def test_remove(base: str) -> None:
    for name in ("keep.txt", "sub/c.txt", "sub/d/e.txt"):
        paths.write_bytes(paths.join(base, name), b"1")
    paths.remove(paths.join(base, "sub"))
    paths.remove(paths.join(base, "never was"))
    assert [uri.removeprefix(base + "/") for uri in paths.list_files(base)] == ["keep.txt"]


def test_a_failed_write_leaves_the_old_file(base: str) -> None:
    uri = paths.join(base, "value.bin")
    paths.write_bytes(uri, b"old")
    with pytest.raises(RuntimeError, match="in between"), paths.open_write(uri) as file:
        file.write(b"half of the new")
        raise RuntimeError("in between")
    assert paths.read_bytes(uri) == b"old"
    assert paths.list_files(base) == [uri]


def test_a_listing_is_never_stale(base: str) -> None:
    paths.write_bytes(paths.join(base, "first"), b"1")
    assert len(paths.list_files(base)) == 1
    paths.write_bytes(paths.join(base, "second"), b"1")
    assert len(paths.list_files(base)) == 2
    assert paths.exists(paths.join(base, "second"))


def test_absent_file_is_reported(base: str) -> None:
    uri = paths.join(base, "absent.json")
    for read in (paths.read_bytes, paths.read_json, paths.sha256_of):
        with pytest.raises(AbsentError, match=r"There is no .*absent\.json\. Check the path"):
            read(uri)


def test_damaged_text_is_reported(base: str) -> None:
    uri = paths.join(base, "value.json")
    paths.write_bytes(uri, b"{")
    with pytest.raises(StorageError, match="not valid JSON"):
        paths.read_json(uri)
    paths.write_bytes(uri, b"\xff\xfe")
    with pytest.raises(StorageError, match="not UTF-8"):
        paths.read_json(uri)


def test_parquet_through_the_storage_api(base: str) -> None:
    uri = paths.join(base, "table.parquet")
    table = pa.table({"x": [1, 2, 3]})
    with paths.open_write(uri) as file:
        pq.write_table(table, file)
    filesystem, path = paths.arrow_filesystem_of(uri)
    assert pq.read_table(path, filesystem=filesystem).equals(table)


def test_a_writability_test_leaves_no_file(base: str) -> None:
    paths.write_bytes(paths.join(base, "keep"), b"1")
    paths.check_writable(base)
    assert paths.list_files(base) == [paths.join(base, "keep")]


def test_testing_an_absent_folder_does_not_create_it(tmp_path: Path) -> None:
    paths.check_writable(str(tmp_path / "new" / "deeper"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="lies below a file"):
        paths.check_writable(str(tmp_path / "file" / "new"))


def test_an_error_of_a_bucket_is_reported(bucket: str) -> None:
    from gcsfs.retry import HttpError  # not above: gcsfs reads the emulator's settings when it is imported

    with (
        pytest.raises(StorageError, match=f"refused {bucket}/x .*Anonymous caller"),
        paths.storage_errors(f"{bucket}/x"),
    ):
        raise HttpError({"code": 401, "message": "Anonymous caller"})


def test_a_refused_request_does_not_look_like_an_empty_bucket(bucket: str, gs_server: StorageEmulator) -> None:
    paths.write_bytes(f"{bucket}/x", b"1")
    with gs_server.refusing():
        for request in (paths.read_bytes, paths.exists, paths.list_folders, paths.list_files):
            with pytest.raises(StorageError, match=r"Forbidden.* Check the storage") as refused:
                request(f"{bucket}/x")
            assert not isinstance(refused.value, AbsentError)
    assert paths.read_bytes(f"{bucket}/x") == b"1"


def test_exclusive_creation_and_rename_on_the_emulator(bucket: str) -> None:
    """Extensions of gcp-storage-emulator that the tests on gs:// rely on."""
    filesystem, path = paths.filesystem_of(f"{bucket}/a/marker")
    filesystem.pipe_file(path, b"1", mode="create")
    with pytest.raises(FileExistsError):
        filesystem.pipe_file(path, b"2", mode="create")
    filesystem.mv(path, path + "-moved")
    assert filesystem.cat_file(path + "-moved") == b"1"
    assert not filesystem.exists(path)


def test_large_files_on_gs_cross_the_chunk_size(bucket: str) -> None:
    data = os.urandom(1 << 20) * 7 + b"tail"
    paths.write_bytes(f"{bucket}/large.bin", data)
    assert paths.read_bytes(f"{bucket}/large.bin") == data


def test_missing_bucket_is_reported(bucket: str) -> None:
    with pytest.raises(StorageError, match="gs://no-such-bucket/x"):
        paths.read_bytes("gs://no-such-bucket/x")
    with pytest.raises(StorageError, match="gs://no-such-bucket/x"):
        paths.write_bytes("gs://no-such-bucket/x", b"1")


@pytest.mark.parametrize("part", ["../x", "/etc/passwd", "a/../../x", "..", "a\\b", "a\0b"])
def test_join_never_leaves_its_base(part: str) -> None:
    with pytest.raises(StorageError, match="leads out of"):
        paths.join("gs://bucket/base", part)


def test_join_normalises() -> None:
    assert paths.join("gs://b/x/", "a", "b/../c", ".") == "gs://b/x/a/c"
    assert paths.join("/data") == "/data"
    assert paths.join("", "a", "b") == "a/b", "an empty base is the working directory"
    assert paths.join("/", "a") == "/a"


def test_unknown_scheme_is_reported() -> None:
    with pytest.raises(StorageError, match="unknown scheme s3://"):
        paths.exists("s3://bucket/x")


def test_absent_folder_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="There is no folder"):
        paths.list_files(str(tmp_path / "absent"))


def test_temporary_files_are_invisible(tmp_path: Path) -> None:
    (tmp_path / "part-00000.parquet.tmp-12-ab").write_bytes(b"left by a killed process")
    assert paths.list_files(str(tmp_path)) == []


def test_a_file_in_place_of_a_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="lies below a file"):
        paths.write_bytes(str(tmp_path / "file" / "x"), b"1")
    with pytest.raises(StorageError, match="is a folder"):
        paths.read_bytes(str(tmp_path))


def test_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(StorageError, match="The disk is full") as caught:
        paths.write_bytes(str(tmp_path / "x"), b"1")
    assert list(tmp_path.iterdir()) == []
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_local_and_remote_are_distinguished() -> None:
    assert paths.is_remote("gs://b/x")
    assert not paths.is_remote("file:///x") and not paths.is_remote("/x") and not paths.is_remote("relative/x")
    assert isinstance(paths.filesystem_of("file:///x")[0], fsspec.get_filesystem_class("file"))
