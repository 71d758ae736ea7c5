"""Speed of the audio codecs on this machine; the vocoder is compared with a plain eager one.

    python -m benchmarks.audio_codec                # one JSON line per figure: name, value, unit, bar, ok
    python -m benchmarks.audio_codec --seconds 2    # faster; not comparable: short sounds fit the plain one's caches

The runs of plain and own vocoder alternate; the speed-up is the median ratio over the rounds. Figures measured on less
than 8 s of sound are scaled to 8 s, as their units state. Weights are random, which does not change the work.
"""

import argparse
import statistics
from collections.abc import Mapping

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
from benchmarks.plain_bigvgan import PlainBigVgan
from dmma_core.models.audio_codec.bigvgan import BigVgan, BigVganConfig
from dmma_core.models.audio_codec.mmaudio_codec import MODES
from dmma_core.models.audio_codec.spectral import SpectralCodec
from dmma_core.models.audio_codec.vae import Vae, VaeConfig

CLIP_S = 8.0
VOCODER_BAR = 2.0
TINY_CLIP_S, TINY_BAR_S = 4.0, 0.3


def random_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Kernels ~ N(0, 1/fan_in), all other values ~ N(0, 0.01)."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        state[key] = noise / noise[0].numel() ** 0.5 if key.endswith("weight") else 0.1 * noise
    return state


def vocoders(config: BigVganConfig) -> tuple[PlainBigVgan, BigVgan]:
    """Plain and own vocoder with the same random weights."""
    shapes = BigVgan(config).official_shapes()
    state = random_state({key: shape for key, shape in shapes.items() if not key.endswith(".filter")})
    plain = PlainBigVgan(config).eval()
    missing, unexpected = plain.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(key.endswith(".filter") for key in missing)
    return plain, BigVgan.from_official(config, state)


def random_vae(config: VaeConfig) -> Vae:
    statistics_of_bins = {
        "data_mean": torch.zeros(1, config.num_mels, 1),
        "data_std": torch.ones(1, config.num_mels, 1),
    }
    return Vae.from_official(config, random_state(Vae(config).official_shapes()) | statistics_of_bins)


@torch.inference_mode()
def benchmark_vocoder(mode: str, measured_s: float, rounds: int, clock: Clock) -> None:
    config = MODES[mode]
    frames = round(measured_s * config.mel.sample_rate_hz / config.mel.hop_samples)
    scale = CLIP_S * config.mel.sample_rate_hz / config.mel.hop_samples / frames
    plain, own = vocoders(config.vocoder)
    mel_BMF = torch.randn(1, config.vocoder.num_mels, frames, generator=torch.Generator().manual_seed(1))
    log_mel_BFM = mel_BMF.transpose(1, 2).contiguous()
    runs = {
        "plain": lambda: plain(mel_BMF),
        "own": lambda: own(log_mel_BFM),
    }
    require_equal(own.before_final(log_mel_BFM), plain.before_final(mel_BMF)[:, 0], f"vocoder {mode}")
    seconds = time_alternating(runs, rounds, clock)
    for name, values in seconds.items():
        unit = f"s for {CLIP_S:g} s of sound (measured on {measured_s:g} s)"
        print_figure(f"vocoder {mode} {name}", scale * statistics.median(values), unit)
    print_figure(f"vocoder {mode} speed-up", median_ratio(seconds["plain"], seconds["own"]), "times", VOCODER_BAR)


@torch.inference_mode()
def benchmark_vae(mode: str, rounds: int, clock: Clock) -> None:
    config = MODES[mode]
    vae = random_vae(config.vae)
    latent_length = -(-round(CLIP_S * config.mel.sample_rate_hz) // (2 * config.mel.hop_samples))
    latent_BLC = torch.randn(1, latent_length, config.vae.latent_channels)
    log_mel_BFM = torch.randn(1, 2 * latent_length, config.vae.num_mels)
    runs = {"encode": lambda: vae.encode(log_mel_BFM), "decode": lambda: vae.decode(latent_BLC)}
    for name, values in time_alternating(runs, rounds, clock).items():
        print_figure(f"VAE {mode} {name}", statistics.median(values), f"s for {CLIP_S:g} s of sound")


def benchmark_tiny(rounds: int, clock: Clock) -> None:
    codec = SpectralCodec()
    wave_BA = 0.1 * torch.randn(1, codec.num_samples(TINY_CLIP_S), generator=torch.Generator().manual_seed(2))
    latent_BLC = codec.encode(wave_BA).mean_BLC
    runs = {"encode": lambda: codec.encode(wave_BA), "decode": lambda: codec.decode(latent_BLC)}
    for name, values in time_alternating(runs, rounds, clock).items():
        unit = f"s for {TINY_CLIP_S:g} s of sound"
        print_figure(f"tiny codec {name}", statistics.median(values), unit, TINY_BAR_S, at_most=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("tiny", "vae", "vocoder"))
    parser.add_argument("--mode", choices=tuple(MODES), default="44k")
    parser.add_argument("--seconds", type=float, default=CLIP_S, help="seconds of sound for the vocoders")
    add_timing_options(parser, rounds=2)
    arguments = parser.parse_args()
    clock = set_threads_and_clock(arguments)
    if arguments.only in (None, "tiny"):
        benchmark_tiny(arguments.rounds, clock)
    if arguments.only in (None, "vae"):
        benchmark_vae(arguments.mode, arguments.rounds, clock)
    if arguments.only in (None, "vocoder"):
        benchmark_vocoder(arguments.mode, arguments.seconds, arguments.rounds, clock)


if __name__ == "__main__":
    main()
