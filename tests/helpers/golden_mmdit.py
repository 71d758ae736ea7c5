"""Networks and inputs of the reference files as DMMA's classes."""

from typing import Any

import torch

from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.mmaudio_interop import from_official, official_shapes
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import MMDiTConfig
from dmma_core.models.presets import mmdit_config
from helpers.golden import GoldenFile, fill_digest, fill_state_dict

TOLERANCE = {1: 2e-5, 2: 1e-3}
"""Relative to the largest magnitude, by network version: version 2 computes sines of up to 10,000 radians."""


def golden_config(file: GoldenFile) -> MMDiTConfig:
    """Configuration of a `mm_*` or `deep_*` file, from its meta data."""
    values: dict[str, Any] = file.meta["config"]
    deep = {"depth": "rgb_like", "fusion": "deepmmaudio"} if file.name.startswith("deep_") else {}
    lengths = {
        "latent_length": values["latent_seq_len"],
        "rgb_length": values["clip_seq_len"],
        "sync_length": values["sync_seq_len"],
    }
    if "variant" in file.meta:
        return mmdit_config(file.meta["variant"], **deep, **lengths)
    return MMDiTConfig(
        **lengths,
        **deep,
        latent_width=values["latent_dim"],
        rgb_width=values["clip_dim"],
        sync_width=values["sync_dim"],
        text_width=values["text_dim"],
        text_length=values["text_seq_len"],
        hidden_width=values["hidden_dim"],
        num_heads=values["num_heads"],
        num_joint_blocks=values["depth"] - values["fused_depth"],
        num_fused_blocks=values["fused_depth"],
        version=2 if values["v2"] else 1,
    )


def golden_network(file: GoldenFile) -> MMDiT:
    """The network of the file, with weights of the fill rule, loaded by the published names."""
    config = golden_config(file)
    state = fill_state_dict(official_shapes(config), file.meta["salt"])
    assert fill_digest(state) == file.meta["fill"]["sha256"]
    return from_official(state, config)


def golden_features(file: GoldenFile, prefix: str = "in.") -> ConditionFeatures:
    """The file's condition features, all present."""
    rgb_BTD = file[f"{prefix}clip_f"].float()
    batch_size, num_frames = rgb_BTD.shape[:2]
    present_B = torch.ones(batch_size, dtype=torch.bool)
    return ConditionFeatures(
        rgb_BTD=rgb_BTD,
        depth_BTD=file[f"{prefix}depth_f"].float() if f"{prefix}depth_f" in file else torch.zeros_like(rgb_BTD),
        depth_scalars_BTK=torch.zeros(batch_size, num_frames, 0),
        sync_BSD=file[f"{prefix}sync_f"].float(),
        text_BND=file[f"{prefix}text_f"].float(),
        present_video_B=present_B,
        present_depth_B=present_B,
        present_text_B=present_B,
    )
