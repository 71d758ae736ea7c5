"""Learning rate and optimiser settings against the reference's own schedulers."""

import pytest

from dmma_core.recipe import OptimConfig, ScheduleConfig
from dmma_core.training.schedule import learning_rate
from helpers.golden import golden_json


@pytest.mark.parametrize("name", ["official_step", "constant", "small_step"])
def test_learning_rate_equals_the_reference(name: str) -> None:
    golden = golden_json("lr_schedule")
    base_rate = OptimConfig().learning_rate
    config = ScheduleConfig(kind="constant" if name == "constant" else "step")
    if name == "small_step":
        small = golden["small_step"]
        base_rate = small["lr"]
        config = ScheduleConfig("step", small["warm"], tuple(small["steps"]), small["gamma"])
    for step, expected in golden["values"][name].items():
        assert learning_rate(config, base_rate, int(step)) == pytest.approx(expected, rel=1e-9), f"step {step}"


def test_optimiser_defaults_equal_the_published_ones() -> None:
    published = golden_json("param_groups")["optimizer"]
    config = OptimConfig()
    assert [config.beta1, config.beta2] == published["betas"]
    assert (config.eps, config.weight_decay) == (published["eps_amp"], published["weight_decay"])
    assert (config.learning_rate, config.max_grad_norm) == (published["lr"], published["clip_grad_norm"])
