"""Clips shown side by side: ground truth, baseline, depth; video with sound, spectrogram, level over time, depth map."""

import base64
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from dmma_core.data.manifest import Clip
from dmma_core.evaluation.evaluate import known_scenes
from dmma_core.evaluation.measure import RATE_HZ, KnownScene, clip_levels_dbfs
from dmma_core.evaluation.metrics.distance import heard_distances_m
from dmma_core.evaluation.metrics.log_mel import log_mel_levels_db
from dmma_core.evaluation.report.charts import RANGE_DB, level_chart, spectrogram_chart
from dmma_core.evaluation.report_file import Report
from dmma_core.storage import media, paths
from dmma_core.storage.media.source import open_media

Image = NDArray[np.uint8]
DepthOf = Callable[[Image], NDArray[np.floating]]
"""Inverse depth [T, h, w] of frames [T, H, W, 3], from the encoder that the depth features come from."""

_FPS, _MAX_HEIGHT = 25.0, 144
_NUM_STRIP_FRAMES = 6


@dataclass(frozen=True)
class Panel:
    """One of the three sounds of a clip. `video` is a data URI of an MP4 with this sound."""

    label: str
    kind: str
    video: str
    spectrogram: str
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True)
class Example:
    """A clip as the report shows it. `depth_strip` is a data URI of a PNG: frames above, their inverse depth below."""

    clip_id: str
    caption: str
    facts: str
    has_distance: bool
    panels: tuple[Panel, ...]
    levels: str
    depth_strip: str
    depth_text: str


def choose_examples(report: Report, count: int) -> list[int]:
    """Rows to show, spread evenly over the clips (with changing distance, if enough). Never selected by quality."""
    rows = np.arange(len(report.clip_ids))
    moving = rows[np.isfinite(report.values("distance_spearman"))]
    rows = moving if len(moving) >= count else rows
    return [int(rows[place]) for place in np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int))]


def make_examples(first: Report, second: Report, rows: Sequence[int], depth_of: DepthOf) -> list[Example]:
    """Read videos and sounds of the chosen rows of both reports. Raises MediaError or StorageError if they are missing."""
    chosen = [(first.record["rows"][row], second.record["rows"][row]) for row in rows]
    scenes = known_scenes([_clip(a) for a, _ in chosen])
    window_s = first.record["evaluator"]["settings"]["level_window_s"]
    return [_example(a, b, (first.arm, second.arm), scenes.get(a["clip_id"]), depth_of, window_s) for a, b in chosen]


def write_example_sounds(first: Report, second: Report, rows: Sequence[int], folder_uri: str) -> list[str]:
    """Write the chosen clips' three sounds and their spectrograms, on one scale, as files.

    Files: `<clip_id>.<ground_truth or arm>.wav` and the same with `.png` (log-mel, 0 to 8 kHz upwards, brightest is
    loudest). Returns their names.
    """
    written = []
    for row in rows:
        a, b = first.record["rows"][row], second.record["rows"][row]
        sources = {
            "ground_truth": (a["source_uri"], a["start_s"]),
            first.arm: (a["sound_uri"], 0.0),
            second.arm: (b["sound_uri"], 0.0),
        }
        sounds = {
            side: media.decode_audio(uri, RATE_HZ, start_s, a["duration_s"]) for side, (uri, start_s) in sources.items()
        }
        spectrograms = {side: log_mel_levels_db(audio_A) for side, audio_A in sounds.items()}
        top_db = max(float(levels_MF.max()) for levels_MF in spectrograms.values())
        for side, audio_A in sounds.items():
            name = f"{a['clip_id']}.{side}"
            media.write_audio(paths.join(folder_uri, f"{name}.wav"), audio_A, RATE_HZ)
            paths.write_bytes(paths.join(folder_uri, f"{name}.png"), _spectrogram_png(spectrograms[side], top_db))
            written += [f"{name}.wav", f"{name}.png"]
    return written


def _spectrogram_png(level_db_MF: NDArray[np.floating], top_db: float) -> bytes:
    enlarged = level_db_MF[::-1].repeat(3, axis=0).repeat(3, axis=1)  # 3x3 pixels per cell
    buffer = io.BytesIO()
    imsave(buffer, enlarged, cmap="magma", vmin=top_db - RANGE_DB, vmax=top_db, format="png")
    return buffer.getvalue()


def _example(
    a: dict[str, Any],
    b: dict[str, Any],
    arms: tuple[str, str],
    scene: KnownScene | None,
    depth_of: DepthOf,
    window_s: float,
) -> Example:
    start_s, duration_s = a["start_s"], a["duration_s"]
    height, width = _preview_size(a["source_uri"])
    request = media.FrameRequest("preview", _FPS, height, width, "crop")
    clip = media.decode_clip(a["source_uri"], start_s, duration_s, [request], RATE_HZ)
    assert clip.audio_A is not None
    frames_THWC = clip.frames["preview"]
    sounds = (clip.audio_A, *(media.decode_audio(row["sound_uri"], RATE_HZ, 0.0, duration_s) for row in (a, b)))
    spectrograms = [log_mel_levels_db(audio_A) for audio_A in sounds]
    top_db = max(float(np.quantile(levels_MF, 0.999)) for levels_MF in spectrograms)
    labels = ("ground truth", *arms)
    panels = []
    for label, kind, audio_A, levels_MF, values in zip(
        labels,
        ("truth", "first", "second"),
        sounds,
        spectrograms,
        (a["ground_truth"], a["generated"], b["generated"]),
        strict=True,
    ):
        description = f"Spectrogram of {a['caption']}, {label}"
        panels.append(
            Panel(
                label,
                kind,
                _video_uri(frames_THWC, audio_A),
                spectrogram_chart(levels_MF, top_db, len(audio_A) / RATE_HZ, description),
                _shown_values(values),
            )
        )
    strip, text = _depth_strip(frames_THWC, depth_of)
    return Example(
        clip_id=a["clip_id"],
        caption=a["caption"],
        facts=_facts(scene),
        has_distance=scene is not None,
        panels=tuple(panels),
        levels=_levels(labels, sounds, scene, a["caption"], window_s),
        depth_strip=strip,
        depth_text=text,
    )


def _levels(
    labels: Sequence[str],
    sounds: Sequence[NDArray[np.float32]],
    scene: KnownScene | None,
    caption: str,
    window_s: float,
) -> str:
    fps = scene.fps if scene else _FPS
    num_frames = len(scene.distance_m_T) if scene else int(min(map(len, sounds)) / RATE_HZ * fps)
    heard_m_T = heard_distances_m(scene.distance_m_T, fps)[1] if scene else None
    levels = [clip_levels_dbfs(audio_A, num_frames, fps, window_s) for audio_A in sounds]
    description = f"Level over time of {caption}: {', '.join(labels)}" + (
        "" if heard_m_T is None else ", and 1/distance"
    )
    return level_chart(np.arange(num_frames) / fps, list(zip(labels, levels, strict=True)), heard_m_T, description)


def _facts(scene: KnownScene | None) -> str:
    if scene is None:
        return "real clip, distance unknown"
    first_m, last_m = float(scene.distance_m_T[0]), float(scene.distance_m_T[-1])
    return f"{first_m:.1f} m at the start, {last_m:.1f} m at the end"


def _shown_values(values: dict[str, float]) -> tuple[tuple[str, float], ...]:
    shown = (
        ("log-mel distance, dB", "log_mel_distance_db"),
        ("onset F1", "onset_f1"),
        ("onset F1 (detected)", "onset_f1_vs_detected"),
        ("level follows 1/distance", "distance_spearman"),
    )
    return tuple((label, values[name]) for label, name in shown if name in values)


def _clip(row: dict[str, Any]) -> Clip:
    return Clip(
        row["clip_id"], "", "", row["caption"], "", row["source_uri"], "", row["start_s"], row["duration_s"], True, True
    )


def _preview_size(uri: str) -> tuple[int, int]:
    """Even height and width of the preview: the aspect ratio of the video, at most _MAX_HEIGHT high."""
    with open_media(uri) as source:
        height, width = source.video.codec_context.height, source.video.codec_context.width
    scale = min(1.0, _MAX_HEIGHT / height)
    return 2 * round(height * scale / 2), 2 * round(width * scale / 2)


def _video_uri(frames_THWC: Image, audio_A: NDArray[np.float32]) -> str:
    with tempfile.TemporaryDirectory(prefix="dmma-report-") as folder:
        file = Path(folder) / "preview.mp4"
        media.write_video(str(file), frames_THWC, _FPS, audio_A, RATE_HZ)
        return data_uri("video/mp4", file.read_bytes())


def _depth_strip(frames_THWC: Image, depth_of: DepthOf) -> tuple[str, str]:
    picked = np.linspace(0, len(frames_THWC) - 1, _NUM_STRIP_FRAMES).astype(int)
    frames = frames_THWC[picked]
    inverse_THW = np.asarray(depth_of(frames), np.float32)
    scaled = (inverse_THW - inverse_THW.min()) / max(float(np.ptp(inverse_THW)), 1e-9)
    coloured = matplotlib.colormaps["cividis"](scaled, bytes=True)
    height, width = frames.shape[1:3]
    rows = np.arange(height) * coloured.shape[1] // height
    columns = np.arange(width) * coloured.shape[2] // width
    depth = coloured[:, rows][:, :, columns]
    opaque = np.concatenate([frames, np.full((*frames.shape[:3], 1), 255, np.uint8)], axis=3)
    buffer = io.BytesIO()
    imsave(buffer, np.concatenate([_in_a_row(opaque), _in_a_row(depth)]), format="png")
    text = f"{_NUM_STRIP_FRAMES} frames of the clip, and below them their inverse depth by the depth encoder; bright is near"
    return data_uri("image/png", buffer.getvalue()), text


def _in_a_row(images_THWC: Image) -> Image:
    """RGBA images side by side, each with a transparent margin at its right and bottom."""
    padded = np.pad(images_THWC, ((0, 0), (0, 4), (0, 4), (0, 0)))
    return np.concatenate(list(padded), axis=1)


def data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
