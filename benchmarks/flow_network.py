"""Speed of the flow network compared with plain eager PyTorch, on this machine.

    python -m benchmarks.flow_network                 # one JSON line per figure: name, value, unit, bar, ok
    python -m benchmarks.flow_network --only training --rounds 5

The runs of the plain and of the own network alternate, so that other load on the machine affects both; each figure is
the median ratio over the rounds. Every result is checked against the plain network's before it is timed.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import replace

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
from benchmarks.plain_mmdit import PlainMMDiT
from dmma_core.encoders.depth import SCALAR_NAMES
from dmma_core.generation.sampler import sample_latents
from dmma_core.generation.sampling_config import SamplingConfig
from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.initialisation import initialise
from dmma_core.models.mmaudio_interop import from_official, to_official
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import MMDiTConfig
from dmma_core.models.presets import mmdit_config

SAMPLING = SamplingConfig(num_steps=25, guidance=4.5)
TRAINING_BAR, SAMPLING_BAR, DEPTH_BAR = 1.2, 1.5, 1.03


def random_features(config: MMDiTConfig, batch_size: int) -> ConditionFeatures:
    generator = torch.Generator().manual_seed(0)

    def sample(length: int, width: int) -> Tensor:
        return torch.nn.functional.normalize(torch.randn(batch_size, length, width, generator=generator), dim=-1)

    present_B = torch.ones(batch_size, dtype=torch.bool)
    return ConditionFeatures(
        sample(config.rgb_length, config.rgb_width),
        sample(config.rgb_length, config.rgb_width),
        torch.zeros(batch_size, config.rgb_length, config.num_depth_scalars),
        sample(config.sync_length, config.sync_width),
        sample(config.text_length, config.text_width),
        present_B,
        present_B,
        present_B,
    )


def networks(preset: str, deepmmaudio: bool) -> tuple[PlainMMDiT, MMDiT]:
    """Plain and own network with the same weights, none of them zero."""
    config = mmdit_config(preset, num_depth_scalars=len(SCALAR_NAMES))
    if deepmmaudio:
        config = replace(config, depth="rgb_like", fusion="deepmmaudio")
    model = MMDiT(config)
    initialise(model, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    model.set_latent_statistics(torch.zeros(config.latent_width), torch.ones(config.latent_width))
    state = to_official(model)
    plain = PlainMMDiT(config)
    plain.load_state_dict(state)
    return plain, from_official(state, config)


def forward_backward(model: torch.nn.Module, latent: Tensor, time_B: Tensor, features: ConditionFeatures) -> Tensor:
    model.zero_grad(set_to_none=True)
    velocity: Tensor = model(latent, time_B, features)
    velocity.square().mean().backward()
    return velocity.detach()


def depth_arm(baseline: MMDiT) -> MMDiT:
    """A depth arm with our default depth fusion, with the statistics of `baseline`."""
    model = MMDiT(replace(baseline.config, depth="both", fusion="concat"))
    initialise(model, seed=0)
    model.set_latent_statistics(baseline.latent_mean, baseline.latent_std)
    return model


def benchmark(kind: str, preset: str, batch_size: int, rounds: int, clock: Clock) -> None:
    """Training step or guided sampling of `preset`: own against plain, with and without depth; cost of depth."""
    training = kind == "training"
    size = batch_size if training else 1
    runs: dict[str, Callable[[], object]] = {}
    for label, deepmmaudio in (("baseline", False), ("deepmmaudio", True)):
        plain, own = networks(preset, deepmmaudio)
        features = random_features(own.config, size)
        latent, time_B = torch.randn(size, own.config.latent_length, own.config.latent_width), torch.rand(size)
        runs |= _pair(label, plain, own, features, latent, time_B, training)
        if not deepmmaudio:
            runs["own depth"] = _run(depth_arm(own), features, latent, time_B, training)
    unit = f"s ({'forward+backward, batch ' + str(size) if training else '25 steps with guidance, batch 1'}, {preset})"
    seconds = time_alternating(runs, rounds, clock)
    for name, values in seconds.items():
        print_figure(f"{kind} {name}", statistics.median(values), unit)
    bar = TRAINING_BAR if training else SAMPLING_BAR
    for label in ("baseline", "deepmmaudio"):
        speedup = median_ratio(seconds[f"plain {label}"], seconds[f"own {label}"])
        print_figure(f"{kind} speed-up {label}", speedup, "times", bar)
    cost = median_ratio(seconds["own depth"], seconds["own baseline"])
    print_figure(f"{kind} depth arm over baseline", cost, "times", DEPTH_BAR, at_most=True)


def _run(
    model: MMDiT, features: ConditionFeatures, latent: Tensor, time_B: Tensor, training: bool
) -> Callable[[], object]:
    if training:
        return lambda: forward_backward(model, latent, time_B, features)
    return torch.inference_mode()(lambda: sample_latents(model, features, latent, SAMPLING))


def _pair(
    label: str,
    plain: PlainMMDiT,
    own: MMDiT,
    features: ConditionFeatures,
    latent: Tensor,
    time_B: Tensor,
    training: bool,
) -> dict[str, Callable[[], object]]:
    with torch.inference_mode():
        require_equal(own(latent, time_B, features), plain(latent, time_B, features), label)
    if training:
        plain_run: Callable[[], object] = lambda: forward_backward(plain, latent, time_B, features)  # noqa: E731
    else:
        plain_run = torch.inference_mode()(
            lambda: plain.sample(latent, features, SAMPLING.num_steps, SAMPLING.guidance)
        )
    return {f"plain {label}": plain_run, f"own {label}": _run(own, features, latent, time_B, training)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("training", "sampling"))
    parser.add_argument("--preset", default="small_44k")
    parser.add_argument("--batch-size", type=int, default=2)
    add_timing_options(parser, rounds=3)
    arguments = parser.parse_args()
    clock = set_threads_and_clock(arguments)
    for kind in ("training", "sampling"):
        if arguments.only in (None, kind):
            benchmark(kind, arguments.preset, arguments.batch_size, arguments.rounds, clock)


if __name__ == "__main__":
    main()
