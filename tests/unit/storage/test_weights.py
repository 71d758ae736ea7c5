"""The registry of published weights, against a real web server on loopback that misbehaves on request."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dmma_core.errors import StorageError, WeightsError
from dmma_core.storage import download as download_module
from dmma_core.storage import paths, weights
from dmma_core.storage.weights_registry import FILES, GROUPS, NON_COMMERCIAL
from helpers.weights_server import DATA, NAME, SHA256, Server, use_empty_cache, weights_server


@pytest.fixture
def server() -> Iterator[Server]:
    with weights_server() as started:
        yield started


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server) -> Path:
    return use_empty_cache(tmp_path / "cache", server, monkeypatch)


def leave_part(cache: Path, data: bytes, source: str, version: str = '"1"') -> None:
    """Files of an interrupted fetch."""
    cache.mkdir()
    (cache / "mmaudio_small_16k.pth.part").write_bytes(data)
    paths.write_json(f"{cache}/mmaudio_small_16k.pth.part.source.json", {"source": source, "version": version})


def test_a_file_is_fetched_once(cache: Path, server: Server) -> None:
    path = weights.fetch(NAME)
    assert Path(path).read_bytes() == DATA and path == weights.path_of(NAME)
    weights.fetch(NAME)
    assert len(server.ranges) == 1
    assert [file.name for file in cache.iterdir()] == ["mmaudio_small_16k.pth"]
    assert weights.inventory()[0] == [NAME]


def test_a_broken_connection_is_resumed(server: Server) -> None:
    server.breaks, server.break_after = 2, 1_000_000
    weights.fetch(NAME)
    assert server.ranges == [None, "bytes=1000000-", "bytes=2000000-"]


def test_a_later_run_resumes_a_failed_one(cache: Path, server: Server) -> None:
    server.breaks, server.break_after = 1, 1_500_000
    leave_part(cache, DATA[:700_000], f"{server.url}/x.pth")
    weights.fetch(NAME)
    assert server.ranges == ["bytes=700000-", "bytes=2200000-"]
    assert [file.name for file in cache.iterdir()] == ["mmaudio_small_16k.pth"]


def test_a_server_that_never_delivers_is_reported(cache: Path, server: Server) -> None:
    server.breaks, server.break_after = 100, 0
    with pytest.raises(StorageError, match=r"stopped after 0\.0 MiB .* Run the same command again"):
        weights.fetch(NAME)
    assert not (cache / "mmaudio_small_16k.pth").exists()


def test_a_server_without_ranges_restarts(cache: Path, server: Server) -> None:
    server.knows_ranges = False
    leave_part(cache, b"x" * 5000, f"{server.url}/x.pth")
    assert Path(weights.fetch(NAME)).read_bytes() == DATA


@pytest.mark.parametrize("left", [DATA, DATA + b"more"])
def test_a_complete_or_overlong_part_is_handled(cache: Path, server: Server, left: bytes) -> None:
    leave_part(cache, left, f"{server.url}/x.pth")
    assert Path(weights.fetch(NAME)).read_bytes() == DATA


@pytest.mark.parametrize(
    ("source", "version", "server_version", "heeds"),
    [
        ("/x.pth", '"0"', ("ETag", '"1"'), True),  # the file was replaced at its source
        ("/x.pth", '"0"', ("ETag", '"1"'), False),
        ("/x.pth", "Fri, 01 Mar 2024 00:00:00 GMT", ("Last-Modified", "Sat, 02 Mar 2024 00:00:00 GMT"), True),
        ("/x.pth", "Fri, 01 Mar 2024 00:00:00 GMT", ("Last-Modified", "Sat, 02 Mar 2024 00:00:00 GMT"), False),
        ("/mirror/x.pth", '"1"', ("ETag", '"1"'), True),  # started from another source
        ("/x.pth", '"1"', None, True),  # the source no longer has a version
    ],
)
def test_two_files_are_never_joined(
    cache: Path,
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    source: str,
    version: str,
    server_version: tuple[str, str] | None,
    heeds: bool,
) -> None:
    """The sha256 is unknown, so it cannot detect it."""
    monkeypatch.setattr(weights, "REGISTRY", {NAME: replace(weights.REGISTRY[NAME], sha256=None)})
    server.version, server.heeds_if_range = server_version, heeds
    leave_part(cache, b"x" * 5000, f"{server.url}{source}", version)
    assert Path(weights.fetch(NAME)).read_bytes() == DATA


def test_a_part_of_unknown_source_is_fetched_again(cache: Path, server: Server) -> None:
    cache.mkdir()
    (cache / "mmaudio_small_16k.pth.part").write_bytes(b"x" * 5000)
    assert Path(weights.fetch(NAME)).read_bytes() == DATA


def test_a_source_without_versions_is_fetched_from_the_start_each_time(cache: Path, server: Server) -> None:
    server.version, server.breaks, server.break_after = ("ETag", 'W/"1"'), 2, 1_000_000
    assert Path(weights.fetch(NAME)).read_bytes() == DATA
    assert server.ranges == [None, None, None]
    Path(weights.path_of(NAME)).unlink()
    server.breaks = 100
    with pytest.raises(StorageError, match="stopped after"):
        weights.fetch(NAME)


def test_a_page_in_place_of_the_file_is_not_resumed(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "REGISTRY", {NAME: replace(weights.REGISTRY[NAME], sha256=None)})
    server.data = b"<html>" + b" " * 994
    with pytest.raises(WeightsError, match=r"from \S+ has 1,000 bytes, published are 3,145,745\. It was removed"):
        weights.fetch(NAME)
    assert list(cache.iterdir()) == []
    server.data = DATA
    assert Path(weights.fetch(NAME)).read_bytes() == DATA


def test_another_sha256_is_never_kept(cache: Path, server: Server) -> None:
    server.data = DATA[:-1] + b"!"
    with pytest.raises(WeightsError, match=f"published is {SHA256}.* It was removed"):
        weights.fetch(NAME)
    assert list(cache.iterdir()) == []


def test_a_truncated_or_changed_file_is_found(cache: Path) -> None:
    path = Path(weights.fetch(NAME))
    path.write_bytes(DATA[:-1] + b"!")
    with pytest.raises(WeightsError, match="has sha256 .* expected"):
        weights.verify(NAME)
    path.write_bytes(DATA[:1000])
    for check in (weights.path_of, weights.verify, weights.fetch):
        with pytest.raises(WeightsError, match=r"has 1,000 bytes, published are 3,145,745: it is truncated"):
            check(NAME)


def test_an_absent_file_names_the_command_that_fetches_it(cache: Path) -> None:
    with pytest.raises(WeightsError, match=f"are missing.* Get them with `dmma weights fetch {NAME}`"):
        weights.path_of(NAME)
    with pytest.raises(WeightsError, match=r"--offline forbids .* on a connected machine"):
        weights.fetch(NAME, offline=True)
    with pytest.raises(WeightsError, match=r"no published weights 'mmaudio_smal_16k'\. Known: mmaudio_small_16k"):
        weights.path_of("mmaudio_smal_16k")


def test_offline_uses_present_files(server: Server) -> None:
    weights.fetch(NAME)
    assert weights.fetch(NAME, offline=True) == weights.path_of(NAME)
    assert len(server.ranges) == 1


@pytest.mark.parametrize(("status", "message"), [(404, "refused .HTTP 404"), (403, "HTTP 403"), (503, "HTTP 503")])
def test_a_refusing_server_is_reported(server: Server, status: int, message: str) -> None:
    server.status = status
    with pytest.raises(StorageError, match=message):
        weights.fetch(NAME)


def test_an_absent_server_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(weights.REGISTRY[NAME], url="http://127.0.0.1:9/x.pth")
    monkeypatch.setattr(weights, "REGISTRY", {NAME: entry})
    with pytest.raises(StorageError, match="Connection refused"):
        weights.fetch(NAME)


def test_a_full_disk_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = download_module.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(download_module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageError, match=r"The disk is full.* DMMA_CACHE"):
        weights.fetch(NAME)


def test_mirrors(server: Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Local, gs:// and http: any copy of a cache folder."""
    weights.fetch(NAME)
    server.status = 500
    paths.write_bytes(f"{bucket}/weights/mmaudio_small_16k.pth", DATA)
    for index, mirror in enumerate((str(tmp_path / "cache"), f"{bucket}/weights")):
        monkeypatch.setenv("DMMA_CACHE", str(tmp_path / f"cache-{index}"))
        assert Path(weights.fetch(NAME, mirror=mirror)).read_bytes() == DATA
    server.status = 200
    monkeypatch.setenv("DMMA_CACHE", str(tmp_path / "cache-http"))
    assert Path(weights.fetch(NAME, mirror=f"{server.url}/copy/")).read_bytes() == DATA


@pytest.mark.parametrize("kind", ["local", "gs"])
def test_a_fetch_from_a_folder_resumes_unless_the_file_was_replaced(
    kind: str,
    cache: Path,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(weights, "REGISTRY", {NAME: replace(weights.REGISTRY[NAME], sha256=None)})
    mirror = str(tmp_path / "mirror") if kind == "local" else f"{bucket}/weights"
    source = f"{mirror}/mmaudio_small_16k.pth"
    paths.write_bytes(source, DATA)
    version, mark = paths.size_and_version(source)[1], b"already there"  # shows that these bytes were not read again
    leave_part(cache, mark + DATA[len(mark) : 1_000_000], source, version)
    with caplog.at_level("INFO", logger="dmma_core.progress"):
        path = Path(weights.fetch(NAME, mirror=mirror))
    assert path.read_bytes() == mark + DATA[len(mark) :]
    assert f"{NAME}: 4/4 MiB" in caplog.text
    path.unlink()
    paths.write_bytes(source, DATA[::-1])
    path.with_name(path.name + ".verified.json").unlink()
    path.parent.rmdir()
    leave_part(cache, DATA[:1_000_000], source, version)
    assert Path(weights.fetch(NAME, mirror=mirror)).read_bytes() == DATA[::-1]


def test_a_first_fetch_records_an_unpublished_sha256(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = replace(weights.REGISTRY[NAME], sha256=None)
    monkeypatch.setattr(weights, "REGISTRY", {NAME: entry})
    path = Path(weights.fetch(NAME))
    assert weights.verify(NAME) == SHA256
    path.write_bytes(DATA[::-1])
    with pytest.raises(WeightsError, match="expected " + SHA256):
        weights.verify(NAME)


def test_two_fetches_of_one_file_do_not_mix(cache: Path) -> None:
    cache.mkdir()
    with (
        download_module._locked(cache / "mmaudio_small_16k.pth.part"),
        pytest.raises(StorageError, match="being fetched by another process"),
    ):
        weights.fetch(NAME)


def test_the_registry_is_in_order() -> None:
    assert len({file.name for file in FILES}) == len({file.filename for file in FILES}) == len(FILES)
    assert {name for names in GROUPS.values() for name in names} <= {file.name for file in FILES}
    for file in FILES:
        assert file.url.startswith("https://") and file.size_bytes > 0
        assert file.sha256 is None or len(file.sha256) == 64
        assert file.license == NON_COMMERCIAL or "MMAudio/" not in file.url
    unknown = {file.filename for file in FILES if file.sha256 is None}
    assert all(file.sha256 is None for file in FILES if file.size_is_rounded)
    assert all(
        "MiDaS" in file.url for file in FILES if file.filename in unknown and not file.filename.endswith(".json")
    )
    assert weights.expand(["bundle_mmaudio_44k", "synchformer"]) == list(GROUPS["bundle_mmaudio_44k"])
    assert weights.expand(["all"]) == [file.name for file in FILES]


def test_a_folder_in_place_of_a_file_is_reported(cache: Path) -> None:
    (cache / "mmaudio_small_16k.pth").mkdir(parents=True)
    for call in (weights.path_of, weights.verify, weights.fetch):
        with pytest.raises(WeightsError, match="is a folder"):
            call(NAME)
    (cache / "mmaudio_small_16k.pth").rmdir()
    (cache / "mmaudio_small_16k.pth.part").mkdir()
    with pytest.raises(StorageError, match=r"\.part could not be written \(Is a directory\)"):
        weights.fetch(NAME)


def test_half_a_file_is_found_without_a_published_exact_size_and_sha256(
    cache: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(weights.REGISTRY[NAME], sha256=None, size_bytes=3_000_000, size_is_rounded=True)
    monkeypatch.setattr(weights, "REGISTRY", {NAME: entry})
    path = Path(weights.fetch(NAME))
    path.write_bytes(DATA[: len(DATA) // 2])
    for call in (weights.path_of, weights.verify, weights.fetch):
        with pytest.raises(WeightsError, match="it is truncated or another file"):
            call(NAME)
    path.unlink()
    server.data = DATA[:1_000_000]
    with pytest.raises(WeightsError, match=r"has 1,000,000 bytes, published are 3,000,000"):
        weights.fetch(NAME)
    assert list(path.parent.glob("mmaudio_small_16k.pth*")) == [Path(f"{path}.verified.json")]


@pytest.mark.parametrize(
    ("mirror", "message"),
    [
        ("http://[bad", "not a valid URL"),
        ("http://me:secret@[bad", "not a valid URL"),
        ("http://me:secret@127.0.0.1:9", "^http://127.0.0.1:9/.* is given with a user or a password"),
        ("ftp://me:secret@x", "'ftp://x/.*unknown scheme ftp"),
        ("/nowhere", "There is no /nowhere/mmaudio_s"),
    ],
)
def test_an_invalid_mirror_is_reported(mirror: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        weights.fetch(NAME, mirror=mirror)
