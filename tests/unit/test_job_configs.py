"""Invalid settings are refused when the configuration is read."""

import pytest

from dmma_core.config_loading import load_config
from dmma_core.errors import ConfigError
from dmma_core.job_configs import ExtractConfig, GenerateConfig, PretrainTinyConfig, TrainConfig


@pytest.mark.parametrize(
    ("config", "setting", "message"),
    [
        (TrainConfig, "arms={}", "no arm to train"),
        (TrainConfig, "arms.x.depth=all", r"Arm x: The network's depth is 'all'. Choose one of .*rgb_like"),
        (TrainConfig, "arms.depth.fusion=mean", r"Arm depth: The network's fusion is 'mean'"),
        (TrainConfig, "arms.depth.fusion=deepmmaudio", r"Arm depth: .* Use depth=rgb_like"),
        (TrainConfig, "preset=huge", "no network preset 'huge'"),
        (TrainConfig, "only=[x]", "unknown arms x"),
        (TrainConfig, "recipe.optim.learning_rate=nan", "'recipe.optim.learning_rate' is nan"),
        (ExtractConfig, "gpus_per_encoder=1.5", "gpus_per_encoder is 1.5"),
        (GenerateConfig, "prompt=rain", "without a video"),
        (PretrainTinyConfig, "num_threads=0", "num_threads is 0"),
    ],
)
def test_invalid_settings_are_refused(config: type, setting: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(config, None, [setting])


def test_arms_of_a_command_line() -> None:
    arms = load_config(TrainConfig, None, ["arms.depth.fusion=gated", "arms.numbers.depth=scalars"]).arms
    assert {name: (arm.depth, arm.fusion) for name, arm in arms.items()} == {
        "baseline": ("off", "concat"),
        "depth": ("both", "gated"),
        "numbers": ("scalars", "concat"),
    }
