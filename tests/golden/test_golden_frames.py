"""Frame preprocessing against the reference: resized bytes are equal, and the chosen frames at most one apart."""

import math
from pathlib import Path

import numpy as np

from dmma_core.storage.media import FrameRequest, decode_clip
from dmma_core.storage.media.frames import fit_frame
from helpers.golden import golden_file, golden_json, lack


def test_resize_equals_the_reference_to_the_byte() -> None:
    golden = golden_file("frame_preprocess")
    size = golden.meta["clip"]["size"][0], golden.meta["sync"]["center_crop"]
    for index, frame_CHW in enumerate(golden.array("in.frames_u8")):
        frame_HWC = np.ascontiguousarray(frame_CHW.transpose(1, 2, 0))
        for key, side, fit in (("clip", size[0], "squash"), ("sync", size[1], "crop")):
            reference_HWC = golden.array(f"{key}.resized_u8")[index].transpose(1, 2, 0)
            assert np.array_equal(fit_frame(frame_HWC, side, side, fit), reference_HWC), key


def test_chosen_frame_is_at_most_one_before_the_references(clips_dir: Path) -> None:
    """The reference uses the first frame not before t, DMMA the last one not after t (see `decode_clip`)."""
    golden = golden_json("read_frames")
    checked = 0
    for name, record in golden["videos"].items():
        file = next(iter(sorted(clips_dir.glob(f"*{name}"))), None)
        if file is None:
            continue
        checked += 1
        times = np.array(record["frame_times"])
        requests = [FrameRequest(f"{fps}", fps, 32, 32, "squash") for fps in (8, 25)]
        every = FrameRequest("every", rate_of(record["fps"]), 32, 32, "squash")
        clip = decode_clip(str(file), 0.0, record["end_sec"], [*requests, every], None)
        for request in requests:
            targets = np.arange(math.floor(request.fps * record["end_sec"])) / request.fps
            ours = np.searchsorted(times, targets + 1e-6, side="right") - 1
            reference = np.array(record[f"index_{request.name}fps"])[: len(ours)]
            assert set(reference - ours) <= {0, 1}
            assert np.array_equal(clip.frames[request.name], clip.frames["every"][ours])
    if not checked:
        lack(f"none of {', '.join(golden['videos'])} is in {clips_dir}", clips_dir)


def rate_of(text: str) -> float:
    numerator, _, denominator = text.partition("/")
    return float(numerator) / float(denominator or 1)
