"""How latents are drawn; apart from the sampler so that reading a configuration loads no network code."""

from dataclasses import dataclass

from dmma_core.errors import ConfigError


@dataclass(frozen=True)
class SamplingConfig:
    """How latents are drawn. Defaults are MMAudio's: 25 Euler steps, guidance 4.5 (MMAudio, section 4.1).

    `guidance_depth` is a scale of its own for what depth adds (absent: the same as `guidance`). A clip's noise depends
    on `seed` and its clip_id only, so a clip sounds the same whichever other clips are generated with it, and both arms
    start from the same noise.
    """

    solver: str = "euler"
    num_steps: int = 25
    guidance: float = 4.5
    guidance_depth: float | None = None
    negative_prompt: str = ""
    seed: int = 14159265

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError(f"num_steps is {self.num_steps}.", remedy="Use at least 1; 25 is usual.")
