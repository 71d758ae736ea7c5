"""Configuration of the tiny encoders' pre-training."""

from dataclasses import dataclass

from dmma_core.errors import ConfigError


@dataclass(frozen=True)
class PretrainingConfig:
    """Sizes of the pre-training. Training clips are rendered from `seed`, evaluation clips from `unseen_seed`."""

    seed: int = 100
    unseen_seed: int = 90_210
    num_clips: int = 1000
    num_unseen_clips: int = 240
    num_tagger_clips: int = 800
    num_depth_steps: int = 700
    num_text_steps: int = 300
    num_clip_steps: int = 3000
    num_tagger_steps: int = 300
    depth_batch_size: int = 16
    clip_batch_size: int = 32
    depth_rate: float = 1.5e-3
    clip_rate: float = 2.0e-3

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ConfigError(f"{name} is {value}.", remedy="Use a positive number.")
        if self.unseen_seed == self.seed:
            raise ConfigError(
                f"unseen_seed is {self.unseen_seed}, the same as seed.",
                remedy="Use another, so that the clips are new.",
            )
        if self.num_tagger_clips > self.num_clips:
            raise ConfigError(
                f"num_tagger_clips is {self.num_tagger_clips}, above num_clips {self.num_clips}.",
                remedy="Use at most num_clips.",
            )
