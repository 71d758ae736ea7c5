"""Small real video files and manifests of them."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dmma_core.data.manifest import Clip, Manifest, caption_id_of, write_manifest
from dmma_core.storage.media import write_audio, write_video

CAPTIONS = ("a low tone", "a high tone", "a square")
_FPS = 10
_SAMPLE_RATE_HZ = 16_000


def write_clip(path: Path, seed: int, duration_s: float = 2.0, side: int = 64) -> Path:
    """A bright square that moves over noise, with a tone that fades in and out; different for every seed."""
    rng = np.random.default_rng(seed)
    num_frames = round(duration_s * _FPS)
    background_HWC = rng.integers(0, 120, (side, side, 3), dtype=np.uint8)
    frames_THWC = np.repeat(background_HWC[None], num_frames, axis=0)
    for index, x in enumerate(np.linspace(0, side * 3 // 4, num_frames).astype(int)):
        frames_THWC[index, side // 4 : side // 2, x : x + side // 4] = rng.integers(180, 255, 3)
    write_video(str(path), frames_THWC, _FPS, _tone(seed, duration_s), _SAMPLE_RATE_HZ)
    return path


def write_sound(path: Path, seed: int, duration_s: float = 2.0) -> Path:
    write_audio(str(path), _tone(seed, duration_s), _SAMPLE_RATE_HZ)
    return path


def clip_of(path: Path, split: str = "train", caption: str = CAPTIONS[0], duration_s: float = 2.0) -> Clip:
    """A manifest row for a full file."""
    return Clip(
        clip_id=path.stem,
        dataset="test",
        split=split,
        caption=caption,
        caption_id=caption_id_of(caption),
        source_uri=str(path),
        source_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        start_s=0.0,
        duration_s=duration_s,
        has_video=path.suffix == ".mp4",
        has_text=bool(caption),
    )


def write_clips(folder: Path, num_clips: int, duration_s: float = 2.0) -> list[Clip]:
    """`num_clips` videos and their rows; the last is in the test split, captions alternate."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        clip_of(
            write_clip(folder / f"clip-{index:03d}.mp4", index, duration_s),
            "test" if index == num_clips - 1 else "train",
            CAPTIONS[index % len(CAPTIONS)],
            duration_s,
        )
        for index in range(num_clips)
    ]


def manifest_of(uri: str, clips: Sequence[Clip]) -> Manifest:
    return write_manifest(uri, "test", clips, [])


def _tone(seed: int, duration_s: float) -> np.ndarray:
    time_A = np.arange(round(duration_s * _SAMPLE_RATE_HZ)) / _SAMPLE_RATE_HZ
    envelope_A = np.sin(np.pi * time_A / duration_s) ** 2
    return (0.5 * envelope_A * np.sin(2 * np.pi * (200 + 50 * seed) * time_A)).astype(np.float32)
