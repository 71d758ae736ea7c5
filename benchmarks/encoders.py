"""Speed of the encoders on this machine; batched depth is compared with one frame at a time.

    python -m benchmarks.encoders                  # one JSON line per figure: name, value, unit, bar, ok
    python -m benchmarks.encoders --only clip      # CLIP at full size: a billion weights, 4 GB; only on request

Full-size networks have random weights, which does not change the work, in the classes that extraction uses.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.measure import (
    Clock,
    add_timing_options,
    median_ratio,
    print_figure,
    require_equal,
    set_threads_and_clock,
    time_alternating,
)
from dmma_core.encoders import clip as clip_module
from dmma_core.encoders import depth as depth_module
from dmma_core.encoders.clip import DFN5B_VIT_H_14_384, ClipEncoder, tiny_clip
from dmma_core.encoders.depth import DepthConfig, DepthEncoder, tiny_depth
from dmma_core.encoders.dpt import DPT_HYBRID_384, Dpt
from dmma_core.encoders.loading import fill_with_random_weights
from dmma_core.encoders.synchformer import (
    SEGMENT_FRAMES,
    SEGMENT_STEP,
    SYNCHFORMER,
    SynchformerEncoder,
    tiny_random_synchformer,
)

TINY_FRAMES = 32
DPT_TOLERANCE = 1e-3  # as for the published DPT


def random_frames(num_frames: int, side: int) -> Tensor:
    """uint8 [T, H, W, 3]."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (num_frames, side, side, 3), dtype=torch.uint8, generator=generator)


def random_full_depth() -> DepthEncoder:
    network = fill_with_random_weights(Dpt(DPT_HYBRID_384), "benchmark")
    config = DepthConfig(DPT_HYBRID_384.name, network.image_size, network.size_multiple)
    return DepthEncoder(config, network).eval()


def random_full_synchformer() -> SynchformerEncoder:
    return fill_with_random_weights(SynchformerEncoder(SYNCHFORMER), "benchmark").eval()


def random_full_clip() -> ClipEncoder:
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in ClipEncoder(DFN5B_VIT_H_14_384).model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return ClipEncoder.from_state(DFN5B_VIT_H_14_384, state, "the benchmark")


def print_rate(name: str, run: Callable[[], object], count: int, unit: str, rounds: int, clock: Clock) -> None:
    """Print the median rate of `run`, which processes `count` items of the unit."""
    seconds = time_alternating({name: run}, rounds, clock)[name]
    print_figure(name, count / statistics.median(seconds), unit)


def benchmark_depth(num_frames: int, rounds: int, clock: Clock) -> None:
    """DPT-Hybrid on all frames at once, and with one forward pass per frame as in the published extraction."""
    encoder = random_full_depth()
    frames_THWC = random_frames(num_frames, encoder.config.size)

    def frame_by_frame() -> Tensor:
        return torch.cat([encoder.inverse_depth(frame_1HWC) for frame_1HWC in frames_THWC.split(1)])

    runs = {"frame by frame": frame_by_frame, "batched": partial(encoder.inverse_depth, frames_THWC)}
    require_equal(runs["batched"](), frame_by_frame(), "depth", DPT_TOLERANCE)
    seconds = time_alternating(runs, rounds, clock)
    for name, values in seconds.items():
        print_figure(
            f"DPT-Hybrid {name}", num_frames / statistics.median(values), f"frames/s ({num_frames} of 384x384)"
        )
    print_figure(
        "DPT-Hybrid speed-up by batching", median_ratio(seconds["frame by frame"], seconds["batched"]), "times"
    )


def benchmark_synchformer(num_segments: int, rounds: int, clock: Clock) -> None:
    encoder = random_full_synchformer()
    frames_1THWC = random_frames(SEGMENT_FRAMES + (num_segments - 1) * SEGMENT_STEP, SYNCHFORMER.image_size)[None]
    unit = f"segments/s ({num_segments} of 16 frames, 224x224)"
    print_rate("Synchformer", partial(encoder.encode_frames, frames_1THWC), num_segments, unit, rounds, clock)


def benchmark_clip(num_frames: int, rounds: int, clock: Clock) -> None:
    frames_THWC = random_frames(num_frames, DFN5B_VIT_H_14_384.input_size)
    unit = f"images/s ({num_frames} of 384x384)"
    print_rate(
        "CLIP ViT-H-14-384", partial(random_full_clip().encode_images, frames_THWC), num_frames, unit, rounds, clock
    )


def benchmark_tiny(rounds: int, clock: Clock) -> None:
    clip = tiny_clip(str(clip_module.TINY_WEIGHTS))
    depth = tiny_depth(str(depth_module.TINY_WEIGHTS))
    synchformer = tiny_random_synchformer()
    frames_THWC = random_frames(TINY_FRAMES, clip.config.input_size)
    num_segments = (TINY_FRAMES - SEGMENT_FRAMES) // SEGMENT_STEP + 1
    sync_1THWC = random_frames(TINY_FRAMES, synchformer.config.image_size)[None]
    print_rate("tiny CLIP", partial(clip.encode_images, frames_THWC), TINY_FRAMES, "images/s", rounds, clock)
    print_rate("tiny depth", partial(depth.inverse_depth, frames_THWC), TINY_FRAMES, "frames/s", rounds, clock)
    print_rate(
        "tiny Synchformer", partial(synchformer.encode_frames, sync_1THWC), num_segments, "segments/s", rounds, clock
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("tiny", "depth", "synchformer", "clip"))
    parser.add_argument("--frames", type=int, default=4, help="batch size in frames (or segments)")
    add_timing_options(parser, rounds=2)
    arguments = parser.parse_args()
    clock = set_threads_and_clock(arguments)
    if arguments.only in (None, "tiny"):
        benchmark_tiny(arguments.rounds, clock)
    if arguments.only in (None, "depth"):
        benchmark_depth(arguments.frames, arguments.rounds, clock)
    if arguments.only in (None, "synchformer"):
        benchmark_synchformer(arguments.frames, arguments.rounds, clock)
    if arguments.only == "clip":
        benchmark_clip(arguments.frames, arguments.rounds, clock)


if __name__ == "__main__":
    main()
