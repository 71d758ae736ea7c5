"""Full names of bundles: what they mean, and that a name survives the way to settings and back."""

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
    ],
)
def test_a_full_name_is_its_own_canonical_form(name: str) -> None:
    assert parse_bundle_name(name).name == name


def test_the_bundles_own_settings_are_not_repeated_and_the_order_is_fixed() -> None:
    assert parse_bundle_name("mmaudio_44k+per_frame").name == "mmaudio_44k"
    assert (
        parse_bundle_name("mmaudio_44k+half+per_clip+dpt_large_384").name == "mmaudio_44k+dpt_large_384+per_clip+half"
    )


@pytest.mark.parametrize(
    "name", ["small", "tiny+per_video", "tiny+raw_scaled=0", "tiny+raw_scaled=x", "tiny+per_clip=2", "tiny+"]
)
def test_unknown_names_are_sentences(name: str) -> None:
    with pytest.raises(ConfigError):
        parse_bundle_name(name)
