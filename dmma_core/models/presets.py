"""Network presets: MMAudio's five variants and a tiny one. Free of torch, as every configuration."""

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from dmma_core.errors import ConfigError
from dmma_core.models.mmdit_config import MMDiTConfig

if TYPE_CHECKING:  # it loads pyarrow
    from dmma_core.data.feature_schema import FeatureSchema

_SMALL_44K = MMDiTConfig(
    latent_width=40,
    latent_length=345,
    rgb_width=1024,
    rgb_length=64,
    sync_width=768,
    sync_length=192,
    text_width=1024,
    text_length=77,
    hidden_width=448,
    num_heads=7,
    num_joint_blocks=4,
    num_fused_blocks=8,
)
_MEDIUM_44K = replace(_SMALL_44K, hidden_width=896, num_heads=14)
_LARGE_44K = replace(_MEDIUM_44K, num_joint_blocks=7, num_fused_blocks=14)
_TINY = MMDiTConfig(
    latent_width=40,
    latent_length=125,
    rgb_width=64,
    rgb_length=32,
    sync_width=64,
    sync_length=88,
    text_width=64,
    text_length=77,
    hidden_width=64,
    num_heads=2,
    num_joint_blocks=2,
    num_fused_blocks=2,
    version=2,
)

PRESETS: Mapping[str, MMDiTConfig] = {
    "small_16k": replace(_SMALL_44K, latent_width=20, latent_length=250),
    "small_44k": _SMALL_44K,
    "medium_44k": _MEDIUM_44K,
    "large_44k": _LARGE_44K,
    "large_44k_v2": replace(_LARGE_44K, version=2),
    "tiny": _TINY,
}
"""At 8 s (tiny: 4 s). Published variants: MMAudio, supplement, table A1."""


def mmdit_config(
    preset: str,
    *,
    depth: str = "off",
    fusion: str = "concat",
    num_depth_scalars: int = 0,
    latent_length: int | None = None,
    rgb_length: int | None = None,
    sync_length: int | None = None,
) -> MMDiTConfig:
    """Configuration of `preset`; lengths that are not given are those of 8 s (tiny: 4 s).

    Raises ConfigError for an unknown preset or an impossible choice.
    """
    if preset not in PRESETS:
        raise ConfigError(f"There is no network preset {preset!r}.", remedy=f"Presets: {', '.join(PRESETS)}.")
    base = PRESETS[preset]
    return replace(
        base,
        depth=depth,
        fusion=fusion,
        num_depth_scalars=num_depth_scalars,
        latent_length=latent_length or base.latent_length,
        rgb_length=rgb_length or base.rgb_length,
        sync_length=sync_length or base.sync_length,
    )


def config_for_features(
    preset: str, schema: "FeatureSchema", depth: str = "off", fusion: str = "concat"
) -> MMDiTConfig:
    """The preset with the lengths and widths of a feature set. Raises ConfigError where the preset's widths differ."""
    if preset not in PRESETS:
        raise ConfigError(f"There is no network preset {preset!r}.", remedy=f"Presets: {', '.join(PRESETS)}.")
    (latent_length, latent_width), (rgb_length, rgb_width), (sync_length, sync_width), (text_length, text_width) = (
        schema.spec(name).shape for name in ("latent_mean", "rgb", "sync", "text")
    )
    sizes = {"latent": latent_width, "rgb": rgb_width, "sync": sync_width, "text": text_width}
    for name, width in sizes.items():
        expected = getattr(PRESETS[preset], f"{name}_width")
        if width != expected and preset != "tiny":
            raise ConfigError(
                f"Network {preset} expects {name} features of width {expected}, but the bundle {schema.bundle} has {width}.",
                remedy="Choose the preset that belongs to the bundle (mmaudio_16k: small_16k, mmaudio_44k: small_44k …).",
            )
    return replace(
        PRESETS[preset],
        depth=depth,
        fusion=fusion,
        num_depth_scalars=len(schema.depth_scalar_names),
        latent_length=latent_length,
        rgb_length=rgb_length,
        sync_length=sync_length,
        text_length=text_length,
        latent_width=latent_width,
        rgb_width=rgb_width,
        sync_width=sync_width,
        text_width=text_width,
    )


def require_depth_from_baseline(baseline: MMDiTConfig, config: MMDiTConfig) -> None:
    """Raise ConfigError unless depth can be added to a network of `baseline` so that one of `config` results.

    They may differ in depth and fusion alone. DeepMMAudio's fusion cannot be added to version 2 of the network, where
    an activation follows its linear map.
    """
    expected = replace(config, depth="off", fusion=baseline.fusion, num_depth_scalars=0)
    if expected != replace(baseline, num_depth_scalars=0) or config.depth == "off":
        raise ConfigError(
            "The depth network's configuration differs from the baseline's in more than depth and fusion.",
            remedy="Derive it with dataclasses.replace(baseline.config, depth=…, fusion=…).",
        )
    if config.is_deepmmaudio and config.version == 2:
        raise ConfigError(
            "DeepMMAudio's depth fusion cannot pass the rgb features of a version 2 network unchanged.",
            remedy="Use fusion=concat, sum or gated.",
        )
