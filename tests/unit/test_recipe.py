import json

import pytest

from dmma_core.config_loading import config_from_dict, config_to_dict, known_keys
from dmma_core.errors import ConfigError
from dmma_core.recipe import (
    BOOKKEEPING,
    FlowConfig,
    LoopConfig,
    OptimConfig,
    Recipe,
    changes_between,
    changes_text,
    refused_changes,
)


def test_a_recipe_survives_json_without_a_change() -> None:
    recipe = Recipe(seed=3, optim=OptimConfig(learning_rate=3e-4), flow=FlowConfig(0.5, 2.0, 1e-4))
    stored = json.loads(json.dumps(config_to_dict(recipe)))
    assert config_from_dict(Recipe, stored, "here") == recipe
    assert not changes_between(stored, config_to_dict(recipe))


def test_changes_are_named_with_both_values() -> None:
    before = config_to_dict(Recipe())
    now = config_to_dict(Recipe(seed=1, optim=OptimConfig(learning_rate=5e-5)))
    changes = changes_between(before, now)
    assert changes == {"recipe.optim.learning_rate": (1e-4, 5e-5), "recipe.seed": (0, 1)}
    assert changes_text(changes) == "recipe.optim.learning_rate 0.0001 (now 5e-05), recipe.seed 0 (now 1)"


def test_a_setting_that_one_recipe_lacks_is_a_change() -> None:
    before = config_to_dict(Recipe())
    older = {name: part for name, part in before.items() if name != "flow"}
    names = {f"recipe.flow.{name}" for name in ("time_mean", "time_scale", "min_sigma")}
    assert set(changes_between(older, before)) == names <= set(known_keys(Recipe, "recipe."))


def test_only_bookkeeping_and_what_is_allowed_may_change() -> None:
    now = Recipe(loop=LoopConfig(num_steps=9, batch_size=8), optim=OptimConfig(learning_rate=1.0))
    changes = changes_between(config_to_dict(Recipe()), config_to_dict(now))
    assert set(refused_changes(changes, [])) == {"recipe.loop.batch_size", "recipe.optim.learning_rate"}
    assert set(refused_changes(changes, ["recipe.optim.learning_rate"])) == {"recipe.loop.batch_size"}
    assert set(known_keys(Recipe, "recipe.")) >= BOOKKEEPING


@pytest.mark.parametrize(("settings", "name"), [({"time_scale": 0.0}, "time_scale"), ({"min_sigma": 1.0}, "min_sigma")])
def test_a_distribution_of_times_that_makes_no_sense_is_refused(settings: dict[str, float], name: str) -> None:
    with pytest.raises(ConfigError, match=f"recipe.flow.{name} is"):
        FlowConfig(**settings)
    with pytest.raises(ConfigError, match=r"recipe.seed is -1"):
        Recipe(seed=-1)
