"""Manifest to features on a real Ray: every clip once, whatever happens in between."""

import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dmma_core.data.feature_store import FeatureStore
from dmma_core.data.manifest import Clip, Rejected, read_rows
from dmma_core.errors import IncompleteError, LeaseHeldError, SchemaError, StorageError
from dmma_core.job_configs import ExtractConfig
from dmma_core.storage import paths
from dmma_core.storage.lease import held
from dmma_core.storage.media import decode_clip
from helpers.clips import CAPTIONS, clip_of, manifest_of, write_clips, write_sound
from helpers.random_bundle import load_fatal_bundle, load_random_bundle
from helpers.storage_emulator import StorageEmulator
from ray_jobs.extract import JOB, extract, plan, run

NUM_CLIPS = 7
DURATION_S = 2.0
LOAD = partial(load_random_bundle, DURATION_S)
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    return write_clips(tmp_path_factory.mktemp("videos"), NUM_CLIPS, DURATION_S)


def configure(base: Path | str, **settings: object) -> ExtractConfig:
    defaults = {
        "manifest_uri": f"{base}/manifest",
        "out_uri": f"{base}/features",
        "bundle": "tiny_random_weights",
        "clips_per_shard": 3,
        "clips_per_batch": 2,
        "num_encoders": 1,
    }
    return ExtractConfig(**{**defaults, **settings})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def extracted(ray_cluster: None, clips: list[Clip], tmp_path_factory: pytest.TempPathFactory) -> ExtractConfig:
    """One finished feature set that several tests look at."""
    base = tmp_path_factory.mktemp("extracted")
    manifest_of(f"{base}/manifest", clips)
    config = configure(base)
    extract(config, LOAD)
    return config


def test_every_clip_has_its_own_features(extracted: ExtractConfig, clips: list[Clip]) -> None:
    store = FeatureStore(extracted.out_uri)
    store.verify()
    assert store.clips == clips
    bundle = LOAD()
    assert store.schema == bundle.schema
    for row in (0, NUM_CLIPS - 1):
        decoded = decode_clip(
            clips[row].source_uri,
            0.0,
            DURATION_S,
            bundle.frame_requests,
            bundle.schema.sample_rate_hz,
            bundle.schema.num_samples,
        )
        (expected,) = bundle.encode_clips([decoded])
        stored = store.read(row)
        for name, value in expected.items():
            np.testing.assert_allclose(stored[name], value.astype(np.float16), rtol=2e-3, atol=2e-3, err_msg=name)
    texts = bundle.encode_text(list(CAPTIONS))
    assert len({clip.caption_id for clip in clips}) == len(CAPTIONS)
    for row, clip in enumerate(clips):
        expected_text = texts[CAPTIONS.index(clip.caption)]
        np.testing.assert_allclose(store.read(row)["text"], expected_text, rtol=2e-3, atol=2e-3)


def test_a_finished_set_is_left_alone(extracted: ExtractConfig, caplog: pytest.LogCaptureFixture) -> None:
    before = {uri: Path(uri).stat().st_mtime_ns for uri in paths.list_files(extracted.out_uri)}
    with caplog.at_level("INFO"):
        extract(extracted, LOAD)
    assert "nothing to do" in caplog.text
    assert {uri: Path(uri).stat().st_mtime_ns for uri in paths.list_files(extracted.out_uri)} == before


def test_other_inputs_are_never_mixed_in(extracted: ExtractConfig, clips: list[Clip], tmp_path: Path) -> None:
    manifest_of(f"{tmp_path}/manifest", clips[1:])
    with pytest.raises(SchemaError, match=r"features of other inputs: manifest_fingerprint differ"):
        extract(replace(extracted, manifest_uri=f"{tmp_path}/manifest"), LOAD)
    with pytest.raises(SchemaError, match=r"other inputs: encoders differ.* Use another out_uri"):
        extract(extracted, partial(load_random_bundle, DURATION_S, "other seed"))
    with pytest.raises(SchemaError, match="other inputs: clips_per_shard differ"):
        extract(replace(extracted, clips_per_shard=4), LOAD)
    with pytest.raises(SchemaError, match="other inputs: bundle differ"):
        run(replace(extracted, bundle="tiny"))


def test_an_interrupted_set_is_completed_to_the_same_bytes(extracted: ExtractConfig, tmp_path: Path) -> None:
    """Lost markers, half-written parts and temporary files, as a kill leaves them."""
    out = tmp_path / "features"
    shutil.copytree(extracted.out_uri, out)
    (out / "FEATURES.json").unlink()
    (out / "captions.parquet").unlink()
    (out / "part-00001.json").unlink()
    (out / "part-00001.parquet").write_bytes(b"half a file")
    (out / "part-00002.parquet.tmp-1-ab").write_bytes(b"left behind")
    kept = (out / "part-00000.parquet").stat().st_mtime_ns
    with pytest.raises(IncompleteError, match=r"Run `dmma extract` \(again\)"):
        FeatureStore(str(out))
    extract(replace(extracted, out_uri=str(out)), LOAD)
    assert (out / "part-00000.parquet").stat().st_mtime_ns == kept
    again = FeatureStore(str(out))
    again.verify()
    assert again.fingerprint == FeatureStore(extracted.out_uri).fingerprint


def test_bad_clips_are_listed_with_their_reason(
    ray_cluster: None, clips: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(clips[0].source_uri).read_bytes()[:2000])
    short = replace(clips[1], clip_id="short", start_s=1.0)
    gone = replace(clips[1], clip_id="gone", source_uri=str(tmp_path / "gone.mp4"))  # its folder is there
    sound = clip_of(write_sound(tmp_path / "sound.flac", seed=3), caption="")
    manifest_of(f"{tmp_path}/manifest", [clips[0], clip_of(broken), short, gone, sound])
    extract(configure(tmp_path), LOAD)
    store = FeatureStore(f"{tmp_path}/features")
    assert [clip.clip_id for clip in store.clips] == ["clip-000", "sound"]
    rejected = {row.clip_id: row for row in read_rows(f"{tmp_path}/features/rejected.parquet", Rejected)}
    reasons = {clip_id: row.reason for clip_id, row in rejected.items()}
    assert reasons == {"broken": "cannot_open", "gone": "absent", "short": "too_short"}
    assert "gone.mp4" in rejected["gone"].detail
    printed = capsys.readouterr().out
    assert "3 clips rejected: 1 absent, 1 cannot_open, 1 too_short." in printed
    assert "  absent: gone: There is no " in printed
    assert f"The full list: {tmp_path}/features/rejected.parquet" in printed
    values = store.read(1)
    assert not any(values[name].any() for name in ("rgb", "depth", "depth_scalars", "sync"))
    np.testing.assert_array_equal(values["text"], store.empty_text)
    assert values["latent_mean"].any()


def test_a_folder_into_which_another_job_extracts_is_refused(
    ray_cluster: None, clips: list[Clip], tmp_path: Path
) -> None:
    manifest_of(f"{tmp_path}/manifest", clips)
    config = configure(tmp_path)
    with held(config.out_uri, "extract", 0.25):
        sentence = rf"Another job writes into {config.out_uri}: extract \(process {os.getpid()} on .* another folder"
        with pytest.raises(LeaseHeldError, match=sentence):
            extract(config, LOAD)
        with pytest.raises(LeaseHeldError, match=sentence):
            plan(replace(config, bundle="tiny"))
    assert paths.list_files(config.out_uri) == []


def test_a_set_of_which_nothing_is_left_is_an_error(ray_cluster: None, clips: list[Clip], tmp_path: Path) -> None:
    gone = [replace(clip, source_uri=str(tmp_path / f"{clip.clip_id}.mp4")) for clip in clips]
    manifest_of(f"{tmp_path}/manifest", gone)
    with pytest.raises(SchemaError, match=r"7 of the 7 clips .* absent: There is no"):
        extract(configure(tmp_path, clips_per_shard=20), LOAD)
    assert not paths.exists(f"{tmp_path}/features/FEATURES.json")


def test_a_lost_mount_stops_the_extraction(ray_cluster: None, clips: list[Clip], tmp_path: Path) -> None:
    """One clip of a shard of seven would be tolerated as a bad one."""
    (tmp_path / "mount").mkdir()
    lost = replace(clips[3], source_uri=str(tmp_path / "mount" / "clip.mp4"))
    manifest_of(f"{tmp_path}/manifest", [*clips[:3], lost, *clips[4:]])
    with pytest.raises(StorageError, match=r"folder .*/mount is gone or empty\. Is its disk mounted\?.* run the same"):
        extract(configure(tmp_path, clips_per_shard=20), LOAD)
    assert not paths.exists(f"{tmp_path}/features/rejected.parquet")
    shutil.copy(clips[3].source_uri, lost.source_uri)
    extract(configure(tmp_path, clips_per_shard=20), LOAD)
    assert [clip.clip_id for clip in FeatureStore(f"{tmp_path}/features").clips] == [clip.clip_id for clip in clips]


def test_extraction_on_a_bucket(ray_cluster: None, extracted: ExtractConfig, clips: list[Clip], bucket: str) -> None:
    """Videos, manifest and features on gs://; the features equal those of the local run."""
    uploaded = []
    for clip in clips:
        uri = f"{bucket}/videos/{clip.clip_id}.mp4"
        paths.write_bytes(uri, Path(clip.source_uri).read_bytes())
        uploaded.append(replace(clip, source_uri=uri))
    manifest_of(f"{bucket}/manifest", uploaded)
    extract(configure(bucket), LOAD)
    remote, local = FeatureStore(f"{bucket}/features"), FeatureStore(extracted.out_uri)
    remote.verify()
    assert [clip.clip_id for clip in remote.clips] == [clip.clip_id for clip in local.clips]
    for row in range(NUM_CLIPS):
        for name, value in local.read(row).items():
            np.testing.assert_array_equal(remote.read(row)[name], value)


def test_a_bucket_that_is_lost_on_the_way_costs_no_clip(
    ray_cluster: None, clips: list[Clip], bucket: str, gs_server: StorageEmulator, tmp_path: Path
) -> None:
    """The videos cannot be read any more once the first shard is written; the features lie elsewhere."""
    uploaded = []
    for number in range(20):
        uri = f"{bucket}/videos/clip-{number:03d}.mp4"
        paths.write_bytes(uri, Path(clips[number % NUM_CLIPS].source_uri).read_bytes())
        uploaded.append(replace(clips[number % NUM_CLIPS], clip_id=f"clip-{number:03d}", source_uri=uri))
    manifest_of(f"{tmp_path}/manifest", uploaded)
    config = configure(tmp_path, clips_per_shard=2, clips_per_batch=1)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(extract, config, LOAD)
        while not (done := sorted((tmp_path / "features").glob("part-*.json"))):
            assert not running.done()
            time.sleep(0.02)
        with (
            gs_server.refusing("videos/"),
            pytest.raises(StorageError, match=r"Forbidden.* run the same command again"),
        ):
            running.result()
    assert not paths.exists(f"{tmp_path}/features/FEATURES.json")
    before = {path: path.stat().st_mtime_ns for path in done}
    extract(config, LOAD)
    assert [clip.clip_id for clip in FeatureStore(config.out_uri).clips] == [clip.clip_id for clip in uploaded]
    assert before == {path: path.stat().st_mtime_ns for path in done}


def test_a_clip_that_kills_its_worker_is_rejected_alone(ray_cluster: None, clips: list[Clip], tmp_path: Path) -> None:
    fatal = clip_of(write_sound(tmp_path / "clip-002b.flac", seed=3))
    manifest_of(f"{tmp_path}/manifest", [*clips[:5], fatal])
    extract(configure(tmp_path), partial(load_fatal_bundle, DURATION_S))
    store = FeatureStore(f"{tmp_path}/features")
    assert store.clips == clips[:5]
    (rejected,) = read_rows(f"{tmp_path}/features/rejected.parquet", Rejected)
    assert (rejected.clip_id, rejected.reason) == ("clip-002b", "worker_died")


def test_a_killed_run_resumes_with_every_clip_once(ray_cluster: None, clips: list[Clip], tmp_path: Path) -> None:
    manifest_of(f"{tmp_path}/manifest", clips)
    features = tmp_path / "features"
    process = subprocess.Popen(
        (sys.executable, "-m", "helpers.extract_alone", str(tmp_path), str(DURATION_S)),
        cwd=ROOT / "tests",
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "tests"), str(ROOT)))},
    )
    try:
        deadline_s = time.monotonic() + 300
        while not (done := sorted(features.glob("part-*.json"))):
            assert process.poll() is None and time.monotonic() < deadline_s
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(done) < NUM_CLIPS and not (features / "FEATURES.json").exists()
    before = {path.with_suffix(".parquet"): path.stat().st_mtime_ns for path in done}
    extract(configure(tmp_path, clips_per_shard=1, clips_per_batch=1), LOAD)
    store = FeatureStore(str(features))
    store.verify()
    assert store.clips == clips
    assert all(path.with_suffix(".json").stat().st_mtime_ns == stamp for path, stamp in before.items())


def test_an_absent_decoder_is_refused_before_anything_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    places = [f"manifest_uri={tmp_path}/absent", f"out_uri={tmp_path}/features"]
    assert JOB.main(["--dry-run", *places, "decoder=decord"]) == 2
    assert "pip install 'dmma[decord]'" in capsys.readouterr().err


def test_features_are_not_written_over_other_files(
    clips: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither over the manifest nor into a folder that holds other parts; no Ray is started for it."""
    manifest_of(f"{tmp_path}/manifest", clips)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "captions.parquet").write_bytes(b"of others")
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    for out, sentence in (("manifest", "it is the input"), ("other", "overwritten: captions.parquet")):
        for more in ([], ["--dry-run"]):
            settings = ["bundle=tiny", f"manifest_uri={tmp_path}/manifest", f"out_uri={tmp_path}/{out}", *more]
            assert JOB.main(settings) == 1
            assert sentence in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == kept
