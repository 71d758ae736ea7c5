"""Configuration of the flow network; free of torch, so that reading configurations does not load it."""

from dataclasses import dataclass

from dmma_core.errors import ConfigError

DEEPMMAUDIO = "deepmmaudio"
DEPTHS = ("off", "rgb_like", "scalars", "both")
FUSIONS = ("concat", "sum", "gated", DEEPMMAUDIO)
SYNC_GROUP = 8  # Synchformer has eight features per segment; each has a learned position


@dataclass(frozen=True)
class MMDiTConfig:
    """Architecture and sequence lengths. Presets: `dmma_core.models.presets`.

    `version` 1 or 2 are MMAudio's (activations and time embedding). `depth` and `fusion`: see
    `embeddings.DepthFusion`; the fusion "deepmmaudio" is DeepMMAudio's own (`embeddings.LinearDepthFusion`).
    Lengths are those of one duration; `MMDiT.set_lengths` changes them.
    """

    latent_width: int
    latent_length: int
    rgb_width: int
    rgb_length: int
    sync_width: int
    sync_length: int
    text_width: int
    text_length: int
    hidden_width: int
    num_heads: int
    num_joint_blocks: int
    num_fused_blocks: int
    version: int = 1
    depth: str = "off"
    fusion: str = "concat"
    num_depth_scalars: int = 0
    feed_forward_multiple: int = 256

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("depth", self.depth, DEPTHS),
            ("fusion", self.fusion, FUSIONS),
            ("version", self.version, (1, 2)),
        ):
            if value not in allowed:
                raise ConfigError(f"The network's {name} is {value!r}.", remedy=f"Choose one of {allowed}.")
        if self.hidden_width % (2 * self.num_heads):
            raise ConfigError(f"Hidden width {self.hidden_width} cannot be split into {self.num_heads} even heads.")
        if self.sync_length % SYNC_GROUP or self.sync_length <= 0:
            raise ConfigError(
                f"The network's sync length is {self.sync_length}, which is not a positive multiple of {SYNC_GROUP}.",
                remedy="Derive the lengths from the feature schema or from the duration.",
            )
        if min(self.latent_length, self.rgb_length, self.text_length) <= 0:
            raise ConfigError("A sequence length of the network is not positive.")
        if self.depth in ("scalars", "both") and self.num_depth_scalars <= 0:
            raise ConfigError(f"depth={self.depth} needs num_depth_scalars.", remedy="Take it from the feature schema.")
        if self.fusion == DEEPMMAUDIO and self.depth not in ("off", "rgb_like"):
            raise ConfigError(
                f"DeepMMAudio's depth fusion does not support depth={self.depth}.", remedy="Use depth=rgb_like."
            )

    @property
    def is_deepmmaudio(self) -> bool:
        """Whether depth is fused as in DeepMMAudio, so that the network has a published layout."""
        return self.depth != "off" and self.fusion == DEEPMMAUDIO
