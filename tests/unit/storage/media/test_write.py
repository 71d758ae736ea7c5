"""Writing: round trips, atomic writes; muxing copies the video packets unchanged."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from dmma_core.data.cleaning import CleaningConfig, check_file
from dmma_core.errors import MediaError
from dmma_core.storage.media import FrameRequest, decode_audio, decode_clip, mux_audio, write_audio, write_video
from helpers.media import counting_frames, cut_without_encoding, indices_of, make_video, moving_frames, tone


def frames_of(file: str) -> list[tuple[float, np.ndarray]]:
    with av.open(file) as container:
        return [(float(f.pts * f.time_base), f.to_ndarray(format="rgb24")) for f in container.decode(video=0)]


def packet_bytes(file: str) -> list[bytes]:
    with av.open(file) as container:
        return [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]


@pytest.mark.parametrize("fps", [10.0, 24000 / 1001, 25.0])
def test_written_video_reads_back(tmp_path: Path, fps: float) -> None:
    file = str(tmp_path / "a.mp4")
    audio_A = tone(1.5, 16_000)
    write_video(file, counting_frames(int(1.5 * fps)), fps, audio_A, 16_000)
    clip = decode_clip(file, 0.0, 1.4, [FrameRequest("x", fps, 48, 64, "squash")], 16_000)
    assert indices_of(clip.frames["x"]) == list(range(int(1.4 * fps)))
    assert clip.audio_A is not None
    assert np.abs(clip.audio_A - audio_A[: len(clip.audio_A)])[2000:-1000].max() < 0.02
    assert frames_of(file)[0][0] == 0.0


def test_the_same_video_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_video(str(tmp_path / f"{name}.mp4"), moving_frames(20), 25, tone(0.8, 16_000), 16_000)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_odd_sizes_grow_by_a_row_and_a_column(tmp_path: Path) -> None:
    frames = moving_frames(5, 33, 47)
    write_video(str(tmp_path / "a.mp4"), frames, 25)
    shown = frames_of(str(tmp_path / "a.mp4"))[0][1]
    assert shown.shape == (34, 48, 3)
    assert np.abs(shown[:33, :47].astype(int) - frames[0]).mean() < 4


def test_sound_files_are_16_bit_and_clipped(tmp_path: Path) -> None:
    audio_A = np.array([0.0, 0.5, 1.5, -1.5], dtype=np.float32)
    for suffix in ("wav", "flac"):
        file = tmp_path / f"a.{suffix}"
        write_audio(str(file), audio_A, 44_100)
        values, rate = soundfile.read(file, dtype="int16")
        assert (rate, soundfile.info(file).subtype) == (44_100, "PCM_16")
        assert values.tolist() == [0, 16384, 32767, -32768]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    nan_A = np.array([0.0, np.nan], dtype=np.float32)
    with pytest.raises(MediaError, match="not finite"):
        write_audio(str(tmp_path / "a.wav"), nan_A, 16_000)
    with pytest.raises(MediaError, match=r"suffix \.mp3"):
        write_audio(str(tmp_path / "a.mp3"), tone(1, 16_000), 16_000)
    with pytest.raises(MediaError, match="mono"):
        write_audio(str(tmp_path / "a.wav"), np.zeros((2, 5), dtype=np.float32), 16_000)
    with pytest.raises(MediaError, match="12345 Hz"):
        write_video(str(tmp_path / "a.mp4"), moving_frames(3), 25, tone(1, 12_345), 12_345)
    with pytest.raises(MediaError, match="float32"):
        write_video(str(tmp_path / "a.mp4"), moving_frames(3).astype(np.float32), 25)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("sources")
    sound = tone(2, 44_100, 200.0)[:, None]
    full = make_video(folder / "full.mp4", counting_frames(50), options={"g": "25", "keyint_min": "25"})
    return {
        "with sound": make_video(folder / "s.mp4", counting_frames(50), sound_AC=sound),
        "matroska": make_video(folder / "s.mkv", counting_frames(50), sound_AC=sound),
        "edit list": cut_without_encoding(full, folder / "cut.mp4", 0.6),
        "rotated": make_video(folder / "r.mp4", counting_frames(50), rotation=90),
        "variable rate": make_video(folder / "v.mp4", counting_frames(30), times_s=[i * i / 500 for i in range(30)]),
    }


@pytest.mark.parametrize("kind", ["with sound", "matroska", "edit list", "rotated", "variable rate"])
def test_mux_copies_the_video_and_replaces_the_sound(sources: dict[str, str], kind: str, tmp_path: Path) -> None:
    audio_A = tone(1.4, 16_000, 700.0)
    out = str(tmp_path / "out.mp4")
    mux_audio(sources[kind], audio_A, 16_000, out)
    before, after = frames_of(sources[kind]), frames_of(out)
    assert len(before) == len(after)
    for (time_s, rgb), (new_time_s, new_rgb) in zip(before, after, strict=True):
        assert abs(time_s - new_time_s) < 1e-3
        assert np.array_equal(rgb, new_rgb)
    if kind != "matroska":  # Matroska and MP4 frame the parameter sets differently
        assert packet_bytes(sources[kind]) == packet_bytes(out)
    request = FrameRequest("x", 10, 40, 30, "squash")
    shown = [decode_clip(file, 0.0, 1.0, [request], None).frames["x"] for file in (sources[kind], out)]
    assert np.array_equal(*shown), "rotation included"
    with av.open(out) as container:
        assert len(container.streams.audio) == 1
    assert np.abs(decode_audio(out, 16_000, 0.0, 1.4) - audio_A)[2000:-1000].max() < 0.02


def test_mux_cuts_both_at_the_duration(sources: dict[str, str], tmp_path: Path) -> None:
    out = str(tmp_path / "out.mp4")
    mux_audio(sources["with sound"], tone(2.0, 16_000), 16_000, out, duration_s=1.0)
    times = [time_s for time_s, _ in frames_of(out)]
    assert sum(time_s < 1.0 for time_s in times) == 25
    assert len(times) <= 28
    assert 16_000 <= len(decode_audio(out, 16_000)) <= 16_000 + 1_024, "AAC frames have 1,024 samples"


@pytest.mark.parametrize("start_s", [0.6, 1.0, 1.22, 1.99])
def test_mux_starts_at_the_start_of_the_clip(sources: dict[str, str], tmp_path: Path, start_s: float) -> None:
    source, out = make_video(tmp_path / "s.mp4", counting_frames(75), options={"g": "25"}), str(tmp_path / "out.mp4")
    mux_audio(source, tone(1.0, 16_000), 16_000, out, start_s, 1.0)
    request = FrameRequest("x", 25, 40, 30, "squash")
    target, shown = (
        decode_clip(uri, begin_s, 1.0, [request], None).frames["x"] for uri, begin_s in ((source, start_s), (out, 0.0))
    )
    assert np.array_equal(target, shown)


# What cleaning accepts and MP4 players do not support: suffix, codec, pixel format, codec and rate of the sound.
OTHER_CODECS = [
    ("mov", "prores_ks", "yuv422p10le", "pcm_s16le", 44_100),
    ("webm", "libvpx", "yuv420p", "libopus", 48_000),
    ("wmv", "wmv2", "yuv420p", "aac", 44_100),
    ("wmv", "msmpeg4", "yuv420p", "aac", 44_100),
    ("flv", "flv", "yuv420p", "aac", 44_100),
    ("mkv", "ffv1", "yuv420p", "aac", 44_100),
]


@pytest.mark.parametrize(("suffix", "codec", "pix_fmt", "sound_codec", "rate"), OTHER_CODECS)
def test_video_that_mp4_does_not_accept_is_encoded_again(
    tmp_path: Path, suffix: str, codec: str, pix_fmt: str, sound_codec: str, rate: int, caplog: pytest.LogCaptureFixture
) -> None:
    sound = tone(2.1, rate, 200.0)[:, None]
    frames = counting_frames(53, 49 if codec == "ffv1" else 48)[7 * np.arange(53) % 53]
    source = make_video(
        tmp_path / f"s.{suffix}",
        frames,
        codec=codec,
        options={"g": "10"},
        pix_fmt=pix_fmt,
        sound_codec=sound_codec,
        sound_AC=sound,
        sample_rate_hz=rate,
    )
    assert check_file(source, CleaningConfig(duration_s=2.0, still_range=0)).reason == ""
    request = FrameRequest("x", 25, 48, 64, "squash")
    out = str(tmp_path / "out.mp4")
    with caplog.at_level("INFO"):
        for start_s, duration_s in ((0.0, 2.0), (0.62, 1.0)):
            audio_A = tone(duration_s, 16_000, 700.0)
            mux_audio(source, audio_A, 16_000, out, start_s, duration_s)
            target = decode_clip(source, start_s, duration_s, [request], None).frames["x"]
            shown = decode_clip(out, 0.0, duration_s, [request], 16_000)
            difference_T = np.abs(target.astype(int) - shown.frames["x"]).mean(axis=(1, 2, 3))
            assert difference_T.max() < 4, "neighbours differ by 28 or more"
            assert shown.audio_A is not None
            assert np.abs(shown.audio_A - audio_A)[2000:-1000].max() < 0.02
            assert 0 <= len(frames_of(out)) - round(25 * duration_s) <= 1
            with av.open(out) as container:
                assert container.streams.video[0].codec_context.name == "h264"
    assert f"the video stream of {source} is encoded again, as H.264" in caplog.text
    mux_audio(source, tone(1.0, 16_000), 16_000, out)
    assert len(frames_of(out)) == 53


def test_encoding_again_rotates_the_frames_upright(tmp_path: Path) -> None:
    frames = np.zeros((10, 32, 64, 3), dtype=np.uint8)
    frames[:, :, :32] = 250
    source = make_video(tmp_path / "r.mov", frames, codec="prores_ks", pix_fmt="yuv422p10le", rotation=90)
    mux_audio(source, tone(0.4, 16_000), 16_000, str(tmp_path / "out.mp4"), 0.0, 0.4)
    request = FrameRequest("x", 10, 64, 32, "squash")
    target, shown = (
        decode_clip(str(tmp_path / name), 0.0, 0.4, [request], None).frames["x"] for name in ("r.mov", "out.mp4")
    )
    assert np.abs(target.astype(int) - shown).mean() < 2


def test_mux_needs_a_video_stream(tmp_path: Path) -> None:
    write_audio(str(tmp_path / "a.wav"), tone(1, 16_000), 16_000)
    with pytest.raises(MediaError) as error:
        mux_audio(str(tmp_path / "a.wav"), tone(1, 16_000), 16_000, str(tmp_path / "out.mp4"))
    assert error.value.reason == "no_video"
    assert not (tmp_path / "out.mp4").exists()


def test_writing_to_a_bucket(bucket: str, sources: dict[str, str]) -> None:
    write_video(f"{bucket}/v/a.mp4", moving_frames(10), 25, tone(0.4, 16_000), 16_000)
    mux_audio(f"{bucket}/v/a.mp4", tone(0.4, 16_000, 900.0), 16_000, f"{bucket}/v/b.mp4")
    write_audio(f"{bucket}/v/a.flac", tone(0.4, 16_000), 16_000)
    assert len(decode_audio(f"{bucket}/v/a.flac", 16_000)) == 6_400
    assert len(decode_audio(f"{bucket}/v/b.mp4", 16_000, 0.0, 0.4)) == 6_400
