"""Settings of the sampler. Separate from it, so that reading a configuration loads no network code."""

from dataclasses import dataclass

from dmma_core.errors import ConfigError
from dmma_core.flow.guidance import guidance_weights
from dmma_core.flow.methods import METHODS


@dataclass(frozen=True)
class SamplingConfig:
    """How latents are sampled. Defaults are MMAudio's: 25 Euler steps, guidance 4.5 (MMAudio, section 4.1).

    `solver` is "euler", "midpoint", "heun" or "adaptive", which ignores `num_steps` and chooses steps with an error of
    at most `tolerance` each (relative, and absolute in normalised latents). A `guidance` of at most 1 means none.
    `guidance_depth` is a separate scale for depth (absent: the same as `guidance`). A clip's noise depends on `seed` and
    its clip_id only, so a clip sounds the same in any batch, and both arms start from the same noise.
    """

    solver: str = "euler"
    num_steps: int = 25
    tolerance: float = 1e-4
    guidance: float = 4.5
    guidance_depth: float | None = None
    negative_prompt: str = ""
    seed: int = 14159265

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ConfigError(f"num_steps is {self.num_steps}.", remedy="Use at least 1; 25 is usual.")
        if not 0 < self.tolerance < 1:
            raise ConfigError(f"tolerance is {self.tolerance}.", remedy="Use a number between 0 and 1; 1e-4 is usual.")
        if self.solver not in METHODS:
            raise ConfigError(f"There is no solver {self.solver!r}.", remedy=f"Choose one of {', '.join(METHODS)}.")
        guidance_weights(self.guidance, self.guidance_depth)  # refuses invalid scales
