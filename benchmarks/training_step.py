"""Full training steps as on a GPU: bfloat16 autocast, gradient clipping, AdamW; without and with torch.compile.

    python -m benchmarks.training_step                                        # one JSON line per figure
    python -m benchmarks.training_step --batch-sizes 64 256 --presets small_44k large_44k
    python -m benchmarks.training_step --device cpu --presets tiny --batch-sizes 4    # to test the script

Figures: samples/s, peak memory, and model FLOP/s utilisation: the FLOP/s of the step's matmuls, without recomputation,
relative to the GPU's published dense bfloat16 rate. The runs of depth arm and baseline alternate.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.flow_network import DEPTH_BAR
from benchmarks.measure import print_figure
from dmma_core.data.batching import ClipBatch
from dmma_core.encoders.depth import SCALAR_NAMES
from dmma_core.models.initialisation import initialise
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import MMDiTConfig
from dmma_core.models.presets import mmdit_config
from dmma_core.recipe import Recipe
from dmma_core.training.optim import build_optimizer
from dmma_core.training.step import StepNoise, TrainingStep, training_noise

_DENSE_BF16_FLOPS = {"A100": 312e12, "H100": 989e12, "H200": 989e12, "L4": 121e12, "A10G": 70e12}  # data sheets
Step = Callable[[], object]


def random_batch(config: MMDiTConfig, batch_size: int) -> ClipBatch:
    """Clips of random features, in float16, as stored by extraction."""

    def sample(length: int, width: int) -> torch.Tensor:
        return torch.randn(batch_size, length, width).half()

    all_B = torch.ones(batch_size, dtype=torch.bool)
    return ClipBatch(
        clip_ids=tuple(map(str, range(batch_size))),
        sample_B=torch.arange(batch_size),
        has_video_B=all_B,
        has_text_B=all_B,
        latent_mean_BLC=sample(config.latent_length, config.latent_width),
        latent_std_BLC=sample(config.latent_length, config.latent_width).abs(),
        rgb_BTD=sample(config.rgb_length, config.rgb_width),
        depth_BTD=sample(config.rgb_length, config.rgb_width),
        depth_scalars_BTK=sample(config.rgb_length, config.num_depth_scalars),
        sync_BSD=sample(config.sync_length, config.sync_width),
        text_BND=sample(config.text_length, config.text_width),
    )


def build_training_step(config: MMDiTConfig, compiled: bool, device: torch.device) -> TrainingStep:
    model = MMDiT(config)
    initialise(model, seed=0)
    model.set_latent_statistics(torch.zeros(config.latent_width), torch.ones(config.latent_width))
    model.to(device)
    velocity = torch.compile(model) if compiled else model
    optimizer = build_optimizer(model, Recipe().optim)
    return TrainingStep(model, velocity, optimizer, Recipe())


def seconds_per_step(step: Step, device: torch.device, num_steps: int) -> float:
    _wait(device)
    start = time.perf_counter()
    for _ in range(num_steps):
        step()
    _wait(device)
    return (time.perf_counter() - start) / num_steps


def benchmark(preset: str, batch_size: int, compiled: bool, device: torch.device, rounds: int) -> None:
    baseline = replace(mmdit_config(preset), num_depth_scalars=len(SCALAR_NAMES))
    seconds: dict[str, list[float]] = {}
    runs: dict[str, tuple[Step, float, float]] = {}
    label = f"{preset}, batch {batch_size}, {'compiled' if compiled else 'eager'}"
    for arm, config in (("baseline", baseline), ("depth", replace(baseline, depth="both"))):
        batch = random_batch(config, batch_size)
        noise, batch = training_noise(batch, seed=0).to(device), batch.to(device)
        step = build_training_step(config, compiled, device)
        run = _bound(step, batch, noise)
        flops = _flops(build_training_step(config, False, device), batch, noise)
        run()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        run()
        peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else float("nan")
        runs[arm], seconds[arm] = (run, flops, peak), []
    for _ in range(rounds):
        for arm, (run, _, _) in runs.items():
            seconds[arm].append(seconds_per_step(run, device, num_steps=5))
    rate = _published_rate(device)
    for arm, (_, flops, peak) in runs.items():
        step_s = statistics.median(seconds[arm])
        print_figure(f"training step {arm}", batch_size / step_s, f"samples/s ({label})")
        if device.type == "cuda":
            print_figure(f"training step {arm} peak memory of both arms", peak, f"GiB ({label})")
        if rate:
            print_figure(f"training step {arm} utilisation", flops / step_s / rate, f"of dense bfloat16 ({label})")
    cost = statistics.median(a / b for a, b in zip(seconds["depth"], seconds["baseline"], strict=True))
    print_figure("training step depth arm over baseline", cost, f"times ({label})", DEPTH_BAR, at_most=True)


def _bound(step: TrainingStep, batch: ClipBatch, noise: StepNoise) -> Step:
    return lambda: step(batch, noise, 5_000)


def _flops(step: TrainingStep, batch: ClipBatch, noise: StepNoise) -> float:
    with FlopCounterMode(display=False) as counter:
        step(batch, noise, 0)
    return float(counter.get_total_flops())


def _published_rate(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((rate for part, rate in _DENSE_BF16_FLOPS.items() if part in name.replace("-", " ").split()), None)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--presets", nargs="+", default=["small_44k"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[64, 128])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.exit(1, "No GPU was found; use --device cpu to test the script.\n")
    for preset in arguments.presets:
        for batch_size in arguments.batch_sizes:
            for compiled in (False, True):
                benchmark(preset, batch_size, compiled, torch.device(arguments.device), arguments.rounds)


if __name__ == "__main__":
    main()
