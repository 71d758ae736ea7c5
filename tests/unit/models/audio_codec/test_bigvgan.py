"""The vocoder at a small size: against torch's own layers, folding of weight norm, chunks, and error messages."""

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d, pad

from dmma_core.errors import ConfigError, WeightsError
from dmma_core.models.audio_codec import anti_aliased
from dmma_core.models.audio_codec.anti_aliased import AntiAliasedSnake, kaiser_sinc_filter
from dmma_core.models.audio_codec.bigvgan import BigVgan, BigVganConfig, fold_weight_norm
from helpers.golden import fill_state_dict

CONFIG = BigVganConfig(num_mels=6, initial_channels=16, upsample_rates=(4, 2), upsample_taps=(8, 4), final="tanh")
LEVEL = 3.0  # of the inputs


@pytest.fixture
def state() -> dict[str, Tensor]:
    return fill_state_dict(BigVgan(CONFIG).official_shapes(), "unit")


def _noise(*shape: int) -> Tensor:
    return LEVEL * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def _snake(num_channels: int) -> AntiAliasedSnake:
    snake = AntiAliasedSnake(num_channels)
    snake.load_official({"act.alpha": 0.3 * _noise(num_channels), "act.beta": 0.2 * _noise(num_channels)})
    return snake


def _depthwise_snake(snake: AntiAliasedSnake, x_BCT: Tensor) -> Tensor:
    """The same activation, written as depthwise convolutions."""
    num_channels = x_BCT.shape[1]
    taps = kaiser_sinc_filter().expand(num_channels, 1, -1)
    up = 2.0 * conv_transpose1d(pad(x_BCT, (5, 5), mode="replicate"), taps, stride=2, groups=num_channels)[..., 15:-15]
    wave = torch.sin(up * snake.alpha[:, None]) * snake.amplitude[:, None]
    return conv1d(pad(up + wave.square(), (5, 6), mode="replicate"), taps, stride=2, groups=num_channels)


@pytest.fixture(params=["one chunk", "small chunks"])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if request.param == "small chunks":
        monkeypatch.setattr(anti_aliased, "_CHUNK_ELEMENTS", 1)
    yield


@pytest.mark.usefixtures("_chunks")
@pytest.mark.parametrize("num_steps", [1, 2, 7, 16, 31, 32, 33, 100])
@pytest.mark.parametrize("num_channels", [1, 5])
def test_activation_equals_depthwise_convolutions(num_steps: int, num_channels: int) -> None:
    snake = _snake(num_channels)
    x_BTC = _noise(2, num_steps, num_channels)
    expected = _depthwise_snake(snake, x_BTC.transpose(1, 2)).transpose(1, 2)
    assert torch.allclose(snake(x_BTC), expected, atol=1e-5)


def test_activation_does_not_change_its_input() -> None:
    x_BTC = _noise(1, 40, 5)
    before = x_BTC.clone()
    _snake(5)(x_BTC)
    assert torch.equal(x_BTC, before)


@pytest.mark.parametrize(("rate", "num_taps"), [(2, 4), (4, 8), (8, 16), (3, 7), (2, 2), (3, 11)])
def test_upsampling_equals_a_transposed_convolution(rate: int, num_taps: int) -> None:
    config = BigVganConfig(num_mels=4, initial_channels=8, upsample_rates=(rate,), upsample_taps=(num_taps,))
    up = BigVgan(config).ups[0]
    weight, bias = _noise(8, 4, num_taps), _noise(4)
    up.load_official({"0.weight": weight, "0.bias": bias})  # type: ignore[operator]
    x_BTC = _noise(2, 9, 8)
    expected = conv_transpose1d(x_BTC.transpose(1, 2), weight, bias, stride=rate, padding=(num_taps - rate) // 2)
    assert torch.allclose(up(x_BTC), expected.transpose(1, 2), atol=1e-3)


@pytest.mark.parametrize("final", ["tanh", "clamp"])
def test_shapes_and_range(final: str) -> None:
    config = BigVganConfig(6, 16, (4, 2), (8, 4), final=final)
    vocoder = BigVgan.from_official(config, fill_state_dict(BigVgan(config).official_shapes(), "unit"))
    wave_BA = vocoder(_noise(2, 10, 6))
    assert wave_BA.shape == (2, 80)
    assert wave_BA.abs().max() <= 1.0
    assert ("conv_post.bias" in vocoder.official_shapes()) == (final == "tanh")


def test_a_clip_does_not_depend_on_its_batch(state: dict[str, Tensor]) -> None:
    vocoder = BigVgan.from_official(CONFIG, state)
    mel_BFM = _noise(3, 10, 6)
    assert torch.allclose(vocoder(mel_BFM[1:2])[0], vocoder(mel_BFM)[1], atol=1e-4)


@pytest.mark.parametrize("apply", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm], ids=["old", "new"])
@pytest.mark.parametrize("layer", [nn.Conv1d(3, 5, 7), nn.ConvTranspose1d(3, 5, 4, 2)], ids=["conv", "transposed"])
def test_weight_norm_is_folded_as_torch_does_it(apply: Callable[[nn.Module], nn.Module], layer: nn.Module) -> None:
    normed = nn.Sequential(apply(copy.deepcopy(layer)))
    with torch.no_grad():
        for parameter in normed.parameters():
            parameter.add_(0.3)
    plain = fold_weight_norm(normed.state_dict())
    assert set(plain) == {"0.weight", "0.bias"}
    folded = nn.Sequential(copy.deepcopy(layer))
    folded.load_state_dict(plain)
    assert torch.allclose(folded(_noise(1, 3, 20)), normed(_noise(1, 3, 20)), atol=1e-5)


def test_a_state_dict_that_does_not_fit_is_described(state: dict[str, Tensor]) -> None:
    del state["conv_post.bias"]
    state["conv_pre.extra"] = torch.zeros(1)
    with pytest.raises(WeightsError) as caught:
        BigVgan.from_official(CONFIG, {"generator": state})
    assert "1 missing (conv_post.bias)" in str(caught.value)
    assert "1 unexpected (conv_pre.extra)" in str(caught.value)


def test_an_incomplete_weight_norm_is_refused(state: dict[str, Tensor]) -> None:
    state["conv_pre.weight_g"] = torch.ones(16, 1, 1)
    with pytest.raises(WeightsError, match="only one"):
        BigVgan.from_official(CONFIG, state)


def test_another_filter_is_refused(state: dict[str, Tensor]) -> None:
    state["activation_post.upsample.filter"] = torch.ones(1, 1, 12) / 12
    with pytest.raises(WeightsError, match="not BigVGAN.s low-pass"):
        BigVgan.from_official(CONFIG, state)


def test_settings_that_do_not_keep_the_length_are_refused() -> None:
    with pytest.raises(ConfigError, match="does not keep the length"):
        BigVganConfig(6, 16, (4,), (7,))
    with pytest.raises(ConfigError, match="is unknown"):
        BigVganConfig(6, 16, (4,), (8,), final="relu")
