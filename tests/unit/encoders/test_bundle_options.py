"""Full names of bundles: their meaning, and that parsing and formatting are inverse."""

import pytest

from dmma_core.encoders.bundle_options import BUNDLES, parse_bundle_name
from dmma_core.errors import ConfigError


@pytest.mark.parametrize(
    "name",
    [
        *BUNDLES,
        "tiny+raw_scaled",
        "tiny+per_frame+half",
        "mmaudio_44k+dpt_large_384+per_clip",
        "mmaudio_16k+depth_anything_v2_small+raw_scaled=12.5+half",
        "mmaudio_44k+transformers=Depth-Anything-V2-Base-hf+per_clip+half",
    ],
)
def test_parsing_and_formatting_keep_a_full_name(name: str) -> None:
    assert parse_bundle_name(name).name == name


def test_default_settings_are_left_out_and_the_order_is_fixed() -> None:
    assert parse_bundle_name("mmaudio_44k+per_frame").name == "mmaudio_44k"
    assert parse_bundle_name("tiny+transformers=depth_anything_v2_small").name == "tiny+depth_anything_v2_small"
    assert (
        parse_bundle_name("mmaudio_44k+half+per_clip+dpt_large_384").name == "mmaudio_44k+dpt_large_384+per_clip+half"
    )


@pytest.mark.parametrize("folder", ["", ".", "..", "../other", "a/b", "/root", "~", ".hidden", "a b", "a\n", "gs://x"])
def test_a_depth_network_of_transformers_is_a_plain_folder_of_the_cache(folder: str) -> None:
    with pytest.raises(ConfigError, match="not a folder name in the weights cache"):
        parse_bundle_name(f"tiny+transformers={folder}")


@pytest.mark.parametrize(
    "name",
    [
        "small",
        "tiny+per_video",
        "tiny+raw_scaled=0",
        "tiny+raw_scaled=x",
        "tiny+per_clip=2",
        "tiny+transformers",
        "tiny+",
    ],
)
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        parse_bundle_name(name)
