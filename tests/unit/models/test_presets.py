import pytest

from dmma_core.errors import ConfigError
from dmma_core.models.presets import config_for_features, mmdit_config
from helpers.features import synthetic_schema


def test_features_determine_the_sizes() -> None:
    schema = synthetic_schema(duration_s=2.0)
    config = config_for_features("tiny", schema, "both", "gated")
    assert (config.latent_length, config.latent_width) == schema.spec("latent_mean").shape
    assert (config.sync_length, config.sync_width) == schema.spec("sync").shape
    assert config.num_depth_scalars == len(schema.depth_scalar_names)
    with pytest.raises(ConfigError, match="width 1024"):
        config_for_features("small_44k", schema)


def test_unknown_preset_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="small_16k"):
        mmdit_config("huge")
