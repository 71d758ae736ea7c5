"""Decoding: which frame and which sample belongs to which time, for every unusual kind of file."""

import math
import random
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dmma_core.errors import AbsentError, ConfigError, MediaError, StorageError
from dmma_core.storage.media import FrameRequest, decode_audio, decode_clip, missing_bytes, stream_kinds, write_audio
from helpers.media import (
    counting_frames,
    cut_without_encoding,
    indices_of,
    make_sound_at,
    make_video,
    moving_frames,
    tone,
)

SMALL = FrameRequest("small", fps=25, height=24, width=32, fit="squash")


def at(fps: float, name: str = "x") -> FrameRequest:
    return FrameRequest(name, fps=fps, height=24, width=32, fit="squash")


def expected(times_s: list[float], fps: float, duration_s: float, start_s: float = 0.0) -> list[int]:
    """The rule: the last frame not after t."""
    targets = [start_s + i / fps for i in range(math.floor(fps * duration_s))]
    return [max((k for k, time in enumerate(times_s) if time <= t + 6e-4), default=0) for t in targets]


@pytest.mark.parametrize("fps", [10, 12, 25, 30, 60])
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frame_is_the_last_one_not_after_its_time(tmp_path: Path, fps: int, suffix: str) -> None:
    file = make_video(tmp_path / f"a.{suffix}", counting_frames(min(50, 2 * fps)), fps=fps)
    duration_s = min(50, 2 * fps) / fps
    clip = decode_clip(file, 0.0, duration_s, [at(8, "slow"), at(25, "fast")], None)
    times = [i / fps for i in range(50)]
    assert indices_of(clip.frames["slow"]) == expected(times, 8, duration_s)
    assert indices_of(clip.frames["fast"]) == expected(times, 25, duration_s)
    assert clip.audio_A is None


def test_variable_frame_rate_and_a_start_in_the_middle(tmp_path: Path) -> None:
    generator = random.Random(3)
    times = [0.0]
    while times[-1] < 2.4:
        times.append(round(times[-1] + generator.choice([0.016, 0.04, 0.1, 0.25]), 3))
    file = make_video(tmp_path / "vfr.mp4", counting_frames(len(times)), times_s=times)
    clip = decode_clip(file, 0.5, 1.5, [at(25)], None)
    assert indices_of(clip.frames["x"]) == expected(times, 25, 1.5, start_s=0.5)


def test_avi_with_b_frames_gives_every_frame_in_order(tmp_path: Path) -> None:
    options = {"bf": "2", "qmin": "1", "qmax": "1"}
    file = make_video(tmp_path / "a.avi", counting_frames(40), codec="mpeg4", options=options)
    shown = indices_of(decode_clip(file, 0.0, 1.5, [at(25)], None).frames["x"])
    # AVI stores no presentation times; B-frames delay the frames by one.
    assert shown == [0, *range(36)]


def test_av1_decodes(tmp_path: Path) -> None:
    file = make_video(tmp_path / "a.mp4", counting_frames(10, 64, 64), codec="libsvtav1", options={"preset": "12"})
    clip = decode_clip(file, 0.0, 0.4, [at(25)], None)
    assert indices_of(clip.frames["x"]) == list(range(10))


@pytest.fixture(scope="module")
def cut_file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Key frames 1 s apart, cut at 0.6 s: 15 of the stored frames are hidden."""
    folder = tmp_path_factory.mktemp("cut")
    full = make_video(folder / "full.mp4", counting_frames(50), options={"g": "25", "keyint_min": "25"})
    return cut_without_encoding(full, folder / "cut.mp4", 0.6)


def test_edit_list_hides_frames(cut_file: str) -> None:
    clip = decode_clip(cut_file, 0.0, 1.0, [SMALL], None)
    assert indices_of(clip.frames["small"]) == list(range(15, 40))


def test_decord_that_is_not_installed_is_reported(cut_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(ConfigError, match=r"not installed here.*pip install 'dmma\[decord\]'"):
        decode_clip(cut_file, 0.0, 1.0, [SMALL], None, decoder="decord")


def test_decord_refuses_an_edit_list_and_agrees_elsewhere(cut_file: str, tmp_path: Path) -> None:
    pytest.importorskip("decord", reason="the extra decord has no wheel for this machine")
    with pytest.raises(MediaError, match="edit list") as error:
        decode_clip(cut_file, 0.0, 1.0, [SMALL], None, decoder="decord")
    assert error.value.reason == "edit_list"
    sound = np.stack([tone(2, 44_100)] * 2, axis=1)
    file = make_video(tmp_path / "a.mp4", moving_frames(50), sound_AC=sound)
    requests = [FrameRequest("a", 8, 32, 32, "crop"), FrameRequest("b", 25, 40, 40, "squash")]
    ours = decode_clip(file, 0.2, 1.6, requests, 16_000)
    theirs = decode_clip(file, 0.2, 1.6, requests, 16_000, decoder="decord")
    for name in ("a", "b"):
        assert np.abs(ours.frames[name].astype(int) - theirs.frames[name]).max() <= 3
    assert np.array_equal(ours.audio_A, theirs.audio_A)


def test_rotation_is_applied(tmp_path: Path) -> None:
    frames = np.zeros((10, 32, 64, 3), dtype=np.uint8)
    frames[:, :, :32] = 250  # left half bright; rotated by 90 degrees counter-clockwise: the lower half
    file = make_video(tmp_path / "turned.mp4", frames, rotation=90)
    shown = decode_clip(file, 0.0, 0.2, [FrameRequest("x", 10, 64, 32, "squash")], None).frames["x"][0]
    assert shown[36:].mean() > 240
    assert shown[:28].mean() < 10


def test_odd_sizes_and_crop(tmp_path: Path) -> None:
    file = make_video(tmp_path / "odd.mkv", moving_frames(10, 57, 101), codec="ffv1")
    requests = [FrameRequest("crop", 10, 31, 31, "crop"), FrameRequest("wide", 10, 20, 60, "crop"), at(10)]
    clip = decode_clip(file, 0.0, 0.4, requests, None)
    assert {name: frames.shape[1:3] for name, frames in clip.frames.items()} == {
        "crop": (31, 31),
        "wide": (20, 60),
        "x": (24, 32),
    }


def test_sound_is_the_mean_of_the_channels_at_the_requested_rate(tmp_path: Path) -> None:
    left, right = tone(2.0, 44_100, 300.0, 0.6), tone(2.0, 44_100, 1000.0, 0.2)
    soundfile.write(tmp_path / "a.flac", np.stack([left, right], axis=1), 44_100)
    audio_A = decode_audio(str(tmp_path / "a.flac"), 16_000)
    target = tone(2.0, 16_000, 300.0, 0.3) + tone(2.0, 16_000, 1000.0, 0.1)
    assert len(audio_A) == 32_000
    assert audio_A.dtype == np.float32
    assert np.abs(audio_A - target)[500:-500].max() < 2e-3
    part = decode_audio(str(tmp_path / "a.flac"), 16_000, start_s=1.25, duration_s=0.5)
    assert np.abs(part - target[20_000:28_000]).max() < 2e-3


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 48_000])
def test_16_bit_files_come_back_exactly_at_their_own_rate(tmp_path: Path, rate: int) -> None:
    audio_A = np.random.default_rng(1).uniform(-0.9, 0.9, rate // 2).astype(np.float32)
    for suffix in ("wav", "flac"):
        write_audio(str(tmp_path / f"a.{suffix}"), audio_A, rate)
        assert np.abs(decode_audio(str(tmp_path / f"a.{suffix}"), rate) - audio_A).max() <= 1 / 32768


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_late_start_of_the_sound_is_silence(tmp_path: Path, suffix: str) -> None:
    rate = 16_000
    noise_A = 0.1 * np.random.default_rng(0).standard_normal(rate).astype(np.float32)
    file = make_video(
        tmp_path / f"late.{suffix}",
        counting_frames(50),
        sound_AC=noise_A[:, None],
        sample_rate_hz=rate,
        sound_start_s=0.4,
    )
    clip = decode_clip(file, 0.0, 1.2, [SMALL], rate)
    assert clip.audio_A is not None
    late_A = np.concatenate([np.zeros(6_400, dtype=np.float32), noise_A])
    similarity = {lag: float(clip.audio_A[8_000:] @ late_A[8_000 - lag :][:11_200]) for lag in range(-100, 100)}
    best = max(similarity, key=lambda lag: similarity[lag])
    assert abs(best) <= 16, "within 1 ms, to which both containers round"
    assert np.abs(clip.audio_A[:5_000]).max() < 1e-3


def packets_at(times_s: list[float], rate: int, length: int = 1024) -> list[tuple[float, np.ndarray]]:
    """Noise in packets with the given start times."""
    generator = np.random.default_rng(0)
    return [(time_s, generator.uniform(-0.5, 0.5, length).astype(np.float32)) for time_s in times_s]


def check_parts(file: str, rates: tuple[int, ...]) -> None:
    """Sound of several parts of the first 4 s equals that of the full file at the same times."""
    for rate in rates:
        whole_A = decode_audio(file, rate, 0.0, 4.0)
        for start_s, duration_s in ((1.0, 2.0), (0.5, 1.0), (2.5, 1.5)):
            part_A = decode_audio(file, rate, start_s, duration_s)
            first = round(start_s * rate)
            assert np.abs(part_A - whole_A[first : first + len(part_A)]).max() < 1e-5, (rate, start_s)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "mov"])
def test_parts_of_a_late_compressed_sound_agree(tmp_path: Path, suffix: str) -> None:
    sound = np.random.default_rng(0).uniform(-0.3, 0.3, (200_000, 1))
    file = make_video(tmp_path / f"a.{suffix}", counting_frames(50), sound_AC=sound, sound_start_s=0.038)
    check_parts(file, (44_100, 16_000))


@pytest.mark.parametrize("name", ["vgg_MnEZwnRuQR8_000030.mp4", "vgg_0DCit2EBtjs_000030.mp4"])
def test_parts_of_real_sound_with_uneven_timestamps_agree(clips_dir: Path, name: str) -> None:
    if not (clips_dir / name).exists():
        pytest.skip(f"{name} is absent")
    check_parts(str(clips_dir / name), (44_100,))


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
@pytest.mark.parametrize("kind", ["late", "late, then early", "hole", "drift"])
def test_a_sample_has_the_same_time_whichever_part_is_decoded(tmp_path: Path, rate: int, kind: str) -> None:
    """Real clips have all of these: 0.038 s late, timestamps that step back by 20.6 ms after two packets, small gaps."""
    first = {"late": 0.038, "late, then early": 0.0412, "hole": 0.01, "drift": 0.001}[kind]
    times = [first + index * 1024 / rate for index in range(int(4.3 * rate / 1024))]
    shift_s = {"late": 0.0, "late, then early": -0.0206, "hole": 0.0206, "drift": 0.0}[kind]
    times = [
        time_s + shift_s * (index > 1) + 1e-3 * index / 64 * (kind == "drift") for index, time_s in enumerate(times)
    ]
    packets = packets_at(times, rate)
    file = make_sound_at(tmp_path / "a.mkv", packets, rate)
    check_parts(file, (rate, 22_050))
    native_A = decode_audio(file, rate, 0.0, 4.0)
    for time_s, packet_A in packets[40:45]:
        middle_A = packet_A[200:-200]
        place = round(time_s * rate) + 200
        reach = round(0.003 * rate)
        errors = [np.abs(native_A[place + lag :][: len(middle_A)] - middle_A).max() for lag in range(-reach, reach + 1)]
        assert min(errors) < 1e-4, "within 2 ms of its timestamp, which Matroska rounds to 1 ms"


def test_a_jump_of_the_timestamps_takes_no_memory(tmp_path: Path) -> None:
    rate = 16_000
    packets = packets_at([*(index * 0.064 for index in range(16)), 20_000.0, 20_000.064], rate)
    file = make_sound_at(tmp_path / "jump.mkv", packets, rate)
    tracemalloc.start()
    try:
        audio_A = decode_audio(file, rate, 0.0, 2.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20, "20,000 s of silence are 1,280 MB"
    assert np.abs(audio_A[:16_000]).max() > 0.4
    assert not audio_A[16 * 1024 :].any()
    with pytest.raises(MediaError, match=r"have gaps of 19999 s") as error:
        decode_audio(file, rate)
    assert error.value.reason == "damaged"


def test_the_length_is_exact_and_a_short_gap_is_filled(tmp_path: Path) -> None:
    write_audio(str(tmp_path / "a.wav"), tone(2.0, 44_100), 44_100)
    file = str(tmp_path / "a.wav")
    assert decode_clip(file, 0.0, 2.0, [], 44_100, num_samples=88_553).audio_A.shape == (88_553,)  # type: ignore[union-attr]
    assert decode_audio(file, 44_100, 0.0, 2.05).shape == (90_405,)
    with pytest.raises(MediaError, match=r"ends at 2\.00 s, needed are 2\.50 s") as error:
        decode_audio(file, 44_100, 0.0, 2.5)
    assert error.value.reason == "too_short"


def test_the_last_frame_is_repeated_for_a_short_time_only(tmp_path: Path) -> None:
    file = make_video(tmp_path / "a.mp4", counting_frames(25))
    held = decode_clip(file, 0.0, 1.08, [SMALL], None).frames["small"]
    assert indices_of(held) == [*range(25), 24, 24]
    with pytest.raises(MediaError, match=r"ends at 1\.00 s") as error:
        decode_clip(file, 0.0, 1.5, [SMALL], None)
    assert error.value.reason == "too_short"


def test_missing_streams_and_bad_files_have_reasons(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", counting_frames(10))
    write_audio(str(tmp_path / "a.wav"), tone(1.0, 16_000), 16_000)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all " * 50)
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile v.mp4\n")
    cases = {"list.mp4": "cannot_open", "a.wav": "no_video", "empty.mp4": "cannot_open", "text.mp4": "cannot_open"}
    for name, reason in cases.items():
        with pytest.raises(MediaError) as error:
            decode_clip(str(tmp_path / name), 0.0, 0.2, [SMALL], None)
        assert error.value.reason == reason, name
    with pytest.raises(MediaError) as error:
        decode_audio(video, 16_000)
    assert error.value.reason == "no_audio"
    with pytest.raises(AbsentError, match="There is no"):
        decode_audio(str(tmp_path / "absent.mp4"), 16_000)
    with pytest.raises(ConfigError, match="decoder"):
        decode_clip(video, 0.0, 0.2, [SMALL], None, decoder="opencv")
    assert stream_kinds(video) == (True, False)
    assert stream_kinds(str(tmp_path / "a.wav")) == (False, True)


def test_a_disk_that_fails_is_not_a_damaged_file(tmp_path: Path) -> None:
    """Reading the first page of a process's memory fails with the same error as a broken disk."""
    (tmp_path / "broken-disk.mp4").symlink_to("/proc/self/mem")
    with pytest.raises(StorageError, match="broken-disk.mp4 could not be read"):
        decode_clip(str(tmp_path / "broken-disk.mp4"), 0.0, 0.2, [SMALL], None)
    (tmp_path / "unmounted").mkdir()
    for folder in ("unmounted", "gone"):
        with pytest.raises(StorageError, match=rf"folder .*{folder} is gone or empty. Is its disk mounted") as lost:
            decode_clip(str(tmp_path / folder / "v.mp4"), 0.0, 0.2, [SMALL], None)
        assert not isinstance(lost.value, AbsentError)


def test_damaged_packets_are_an_error_when_they_are_many(tmp_path: Path) -> None:
    sound = tone(4.0, 44_100)[:, None]
    file = Path(make_video(tmp_path / "a.mp4", moving_frames(100, 96, 128), sound_AC=sound))
    data = bytearray(file.read_bytes())
    start = data.index(b"mdat") + 64
    generator = random.Random(0)
    for _ in range(600):
        data[generator.randrange(start, len(data) * 3 // 4)] ^= 0xFF
    (tmp_path / "broken.mp4").write_bytes(data)
    with pytest.raises(MediaError, match="packets") as error:
        decode_clip(str(tmp_path / "broken.mp4"), 0.0, 4.0, [SMALL], 16_000)
    assert error.value.reason == "damaged"


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "wav"])
def test_a_truncated_file_is_detected(tmp_path: Path, suffix: str) -> None:
    full = tmp_path / f"full.{suffix}"
    if suffix == "wav":
        write_audio(str(full), tone(1.0, 16_000), 16_000)
    else:
        make_video(full, moving_frames(50), codec="mpeg4" if suffix == "avi" else "libx264")
    assert missing_bytes(str(full)) == 0
    part = tmp_path / f"part.{suffix}"
    part.write_bytes(full.read_bytes()[: full.stat().st_size * 2 // 3])
    assert missing_bytes(str(part)) > 0


def test_invalid_requests_are_refused() -> None:
    with pytest.raises(ConfigError, match="fit"):
        FrameRequest("x", 8, 10, 10, "stretch")
    with pytest.raises(ConfigError, match="positive"):
        FrameRequest("x", 0, 10, 10, "crop")


def test_remote_files_decode_alike(bucket: str, tmp_path: Path) -> None:
    file = make_video(tmp_path / "a.mp4", counting_frames(25), sound_AC=tone(1.0, 44_100)[:, None])
    from dmma_core.storage import paths

    paths.write_bytes(f"{bucket}/videos/a.mp4", Path(file).read_bytes())
    local = decode_clip(file, 0.0, 0.9, [SMALL], 16_000)
    remote = decode_clip(f"{bucket}/videos/a.mp4", 0.0, 0.9, [SMALL], 16_000)
    assert np.array_equal(local.frames["small"], remote.frames["small"])
    assert np.array_equal(local.audio_A, remote.audio_A)
