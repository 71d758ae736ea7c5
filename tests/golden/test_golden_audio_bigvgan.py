"""Both vocoders compute the published function, from weights in each spelling of weight norm."""

import pytest
import torch
from torch import Tensor

from benchmarks.plain_bigvgan import PlainBigVgan
from dmma_core.models.audio_codec.anti_aliased import AntiAliasedSnake, kaiser_sinc_filter
from dmma_core.models.audio_codec.bigvgan import BIGVGAN_16K, BIGVGAN_V2_44K, BigVgan, BigVganConfig, fold_weight_norm
from helpers.golden import (
    GoldenFile,
    assert_close,
    fill_digest,
    fill_state_dict,
    golden_file,
    golden_names,
    golden_shapes,
    thinned,
)

FULL_SIZE = {"bigvgan_16k": BIGVGAN_16K, "bigvgan_v2_44k": BIGVGAN_V2_44K}
SMALL = golden_names("bigvgan_*_tiny", default="bigvgan_v2_tiny")


def config_of(file: GoldenFile) -> BigVganConfig:
    """The config in a file's meta; without a number of mel bins there, it is that of the input."""
    sizes = file.meta["config"]
    (dilations,) = {tuple(dilations) for dilations in sizes["resblock_dilation_sizes"]}
    return BigVganConfig(
        num_mels=sizes.get("num_mels", file["in.mel"].shape[1]),
        initial_channels=sizes["upsample_initial_channel"],
        upsample_rates=tuple(sizes["upsample_rates"]),
        upsample_taps=tuple(sizes["upsample_kernel_sizes"]),
        block_taps=tuple(sizes["resblock_kernel_sizes"]),
        block_dilations=dilations,
        final="tanh" if sizes.get("use_tanh_at_final", True) else "clamp",
    )


def filled_state(config: BigVganConfig, file: GoldenFile) -> dict[str, Tensor]:
    """The file's weights, with weight norm spelled `weight_g` and `weight_v`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for key, shape in BigVgan(config).official_shapes().items():
        if key.endswith(".weight"):
            shapes[f"{key}_g"] = (shape[0], *[1] * (len(shape) - 1))
            shapes[f"{key}_v"] = shape
        else:
            shapes[key] = shape
    state = fill_state_dict(shapes, file.meta["salt"])
    assert fill_digest(state) == file.meta["fill"]["sha256"]
    return state


def _assert_parity(vocoder: BigVgan, file: GoldenFile) -> None:
    log_mel_BFM = file["in.mel"].transpose(1, 2)
    assert_close(vocoder.before_final(log_mel_BFM), file["pre_final"].squeeze(1))
    assert_close(vocoder(log_mel_BFM), file["wave"].squeeze(1))


@pytest.mark.parametrize("name", FULL_SIZE)
def test_official_keys_and_shapes(name: str) -> None:
    own = BigVgan(FULL_SIZE[name]).official_shapes()
    assert own == golden_shapes(f"{name}_plain")
    for spelling in ("weight_g_v", "parametrized"):
        names = {key: torch.empty(shape, device="meta") for key, shape in golden_shapes(f"{name}_{spelling}").items()}
        assert {key: tuple(value.shape) for key, value in fold_weight_norm(names).items()} == own


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_full_size(name: str) -> None:
    file = golden_file(name)
    assert config_of(file) == FULL_SIZE[name]
    state = filled_state(FULL_SIZE[name], file)
    folded = fold_weight_norm(state)
    for key in file.names():
        if key.startswith("weight."):
            layer, _, _ = key.removeprefix("weight.").partition("[")
            assert_close(thinned(folded[f"{layer}.weight"], key), file[key])
        if key.startswith("filter."):
            assert_close(kaiser_sinc_filter().reshape(1, 1, -1), file[key])
    _assert_parity(BigVgan.from_official(FULL_SIZE[name], state), file)


@pytest.mark.parametrize("name", SMALL)
def test_small(name: str) -> None:
    file = golden_file(name)
    config = config_of(file)
    _assert_parity(BigVgan.from_official(config, filled_state(config, file)), file)


@pytest.mark.parametrize("name", SMALL)
def test_the_plain_vocoder_of_the_benchmark(name: str) -> None:
    file = golden_file(name)
    config = config_of(file)
    plain = PlainBigVgan(config)
    plain.load_state_dict(fold_weight_norm(filled_state(config, file)), strict=False)
    with torch.no_grad():
        assert_close(plain.before_final(file["in.mel"]), file["pre_final"])
        assert_close(plain(file["in.mel"]), file["wave"])


def test_activation() -> None:
    file = golden_file("bigvgan_activation1d")
    x_BTC = file["in.x"].transpose(1, 2)
    snake = AntiAliasedSnake(x_BTC.shape[2])
    for kind in ("snake", "snakebeta"):
        for is_log in (True, False):
            prefix = f"{kind}.log{is_log}"
            alpha = file[f"{prefix}.alpha"]
            beta = file[f"{prefix}.beta"] if f"{prefix}.beta" in file else alpha  # noqa: SIM401
            if not is_log and not (beta > 0).all():
                continue  # linear parameters may be negative; those of the vocoders are logarithms
            logs = (
                {"act.alpha": alpha, "act.beta": beta} if is_log else {"act.alpha": alpha.log(), "act.beta": beta.log()}
            )
            snake.load_official(logs)
            assert_close(snake(x_BTC).transpose(1, 2), file[f"{prefix}.y"])
