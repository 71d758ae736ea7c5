"""Random condition features in a network's sizes, for tests."""

import torch

from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.initialisation import initialise
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import MMDiTConfig
from dmma_core.models.presets import mmdit_config


def random_features(config: MMDiTConfig, batch_size: int = 2, seed: int = 0) -> ConditionFeatures:
    """Normal noise; all conditions present."""
    generator = torch.Generator().manual_seed(seed)

    def sample(length: int, width: int) -> torch.Tensor:
        return torch.randn(batch_size, length, width, generator=generator)

    present_B = torch.ones(batch_size, dtype=torch.bool)
    return ConditionFeatures(
        rgb_BTD=sample(config.rgb_length, config.rgb_width),
        depth_BTD=sample(config.rgb_length, config.rgb_width),
        depth_scalars_BTK=sample(config.rgb_length, config.num_depth_scalars).abs() * 10,
        sync_BSD=sample(config.sync_length, config.sync_width),
        text_BND=sample(config.text_length, config.text_width),
        present_video_B=present_B,
        present_depth_B=present_B,
        present_text_B=present_B,
    )


def short_config(depth: str = "off", fusion: str = "concat") -> MMDiTConfig:
    """The tiny network at 1 s."""
    num_scalars = 4 if depth in ("scalars", "both") else 0
    lengths = {"latent_length": 31, "rgb_length": 8, "sync_length": 16}
    return mmdit_config("tiny", depth=depth, fusion=fusion, num_depth_scalars=num_scalars, **lengths)


def shaken(model: MMDiT, seed: int = 1) -> MMDiT:
    """Initialised, with noise added to every parameter, so that none is zero, as after some training."""
    initialise(model, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model
