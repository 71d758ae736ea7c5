"""Published state dicts: what is accepted, what is refused, and the error messages."""

from dataclasses import replace

import pytest
import torch

from dmma_core.errors import ConfigError, WeightsError
from dmma_core.models.mmaudio_interop import from_official, identify_variant, official_shapes, to_official
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import MMDiTConfig
from dmma_core.models.presets import mmdit_config
from helpers.conditions import random_features, shaken, short_config

CONFIG = short_config()
DEEP = replace(CONFIG, depth="rgb_like", fusion="deepmmaudio")


def official(config: MMDiTConfig = CONFIG) -> dict[str, torch.Tensor]:
    return to_official(shaken(MMDiT(config)))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("config", [CONFIG, DEEP], ids=["baseline", "deepmmaudio"])
def test_export_and_import_keep_all_values(config: MMDiTConfig, version: int) -> None:
    config = replace(config, version=version)
    model = shaken(MMDiT(config))
    again = from_official(to_official(model), config)
    state = again.state_dict()
    assert all(torch.equal(value, state[name]) or value.isnan().all() for name, value in model.state_dict().items())
    assert not again.empty_text.requires_grad
    assert again.empty_rgb.requires_grad


@pytest.mark.parametrize("wrapper", ["weights", "ema"])
def test_wrapped_half_precision_states_with_old_tables_are_accepted(wrapper: str) -> None:
    plain = official()
    old = {name: value.half() for name, value in plain.items()}
    old |= {"latent_rot": torch.zeros(3), "clip_rot": torch.zeros(3), "t_embed.freqs": torch.zeros(3)}
    model = from_official({wrapper: old, "it": 300_000}, CONFIG)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    expected = from_official({name: value.half().float() for name, value in plain.items()}, CONFIG)
    features = random_features(CONFIG)
    latent, time = torch.randn(2, 31, 40), torch.rand(2)
    with torch.inference_mode():
        assert torch.equal(model(latent, time, features), expected(latent, time, features))


def test_weights_that_are_not_finite_are_named() -> None:
    state = official()
    state["clip_cond_proj.bias"][3] = torch.nan
    with pytest.raises(WeightsError, match=r"1 not finite \(clip_cond_proj\.bias\)\. Fetch"):
        from_official(state, CONFIG)


def test_missing_unexpected_and_misshapen_are_listed() -> None:
    state = official()
    del state["sync_pos_emb"]
    state["surprise"] = torch.zeros(1)
    state["clip_cond_proj.bias"] = torch.zeros(3)
    with pytest.raises(WeightsError) as raised:
        from_official(state, CONFIG)
    text = str(raised.value)
    assert "1 missing (sync_pos_emb)" in text
    assert "1 unexpected (surprise)" in text
    assert "clip_cond_proj.bias (3,) instead of (64,)" in text


def test_another_variant_is_named() -> None:
    shapes = official_shapes(mmdit_config("small_16k"))
    state = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    assert identify_variant(state)[0] == "small_16k"
    with pytest.raises(WeightsError, match="It is a small_16k checkpoint"):
        from_official(state, mmdit_config("small_44k"))
    del state["latent_mean"]
    with pytest.raises(
        WeightsError, match=r"small_16k, the nearest of the published networks: 1 missing \(latent_mean\)"
    ):
        identify_variant(state)


def test_a_baseline_checkpoint_becomes_a_depth_network() -> None:
    baseline = shaken(MMDiT(CONFIG))
    config = replace(CONFIG, depth="rgb_like", fusion="sum")
    model = from_official(to_official(baseline), config)
    features, latent, time = random_features(config), torch.randn(2, 31, 40), torch.rand(2)
    with torch.inference_mode():
        assert torch.equal(model(latent, time, features), baseline(latent, time, features))


def test_own_depth_fusion_has_no_published_layout() -> None:
    with pytest.raises(ConfigError, match="no published layout"):
        to_official(MMDiT(replace(CONFIG, depth="rgb_like")))


def test_absent_statistics_are_accepted() -> None:
    model = from_official({**official(), "latent_mean": torch.full((1, 1, CONFIG.latent_width), torch.nan)}, CONFIG)
    assert model.latent_mean.isnan().all()
