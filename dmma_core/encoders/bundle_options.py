"""A bundle's full name: its encoders and their settings. Every feature set stores the name of its bundle.

    <bundle>[+<option>]…      tiny    mmaudio_44k    mmaudio_44k+per_clip+dpt_large_384    tiny+raw_scaled=0.5    …+half
                              …+transformers=<folder of the weights cache>

The same bundle can be built from the name alone.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from dmma_core.encoders.depth import MIDAS_VARIANTS, NORMALIZATIONS
from dmma_core.encoders.dpt import TINY_DPT
from dmma_core.errors import ConfigError

TRANSFORMERS_NETWORKS = ("depth_anything_v2_small",)
DEPTH_NETWORKS = (TINY_DPT.name, *MIDAS_VARIANTS, *TRANSFORMERS_NETWORKS)
TRANSFORMERS_PREFIX = "transformers="
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")  # cannot leave the cache folder


@dataclass(frozen=True)
class BundleOptions:
    """Encoders of a bundle and its depth settings.

    `depth_network` is one of DEPTH_NETWORKS, or TRANSFORMERS_PREFIX and a folder's name. `raw_scale` None is the depth
    network's own unit (ConfigError from `DepthConfig` if it has none).
    """

    bundle: str
    depth_network: str
    normalization: str
    raw_scale: float | None = None
    half_precision: bool = False

    @property
    def name(self) -> str:
        """The full name: the bundle and the options that differ from its defaults, in a fixed order."""
        default, scale = BUNDLES[self.bundle], "" if self.raw_scale is None else f"={self.raw_scale:g}"
        options = [
            self.depth_network if self.depth_network != default.depth_network else "",
            self.normalization + scale if (self.normalization, scale) != (default.normalization, "") else "",
            "half" if self.half_precision else "",
        ]
        return "+".join([self.bundle, *filter(None, options)])


BUNDLES: Mapping[str, BundleOptions] = {
    "tiny": BundleOptions("tiny", TINY_DPT.name, "per_clip"),
    "mmaudio_16k": BundleOptions("mmaudio_16k", "dpt_hybrid_384", "per_frame"),
    "mmaudio_44k": BundleOptions("mmaudio_44k", "dpt_hybrid_384", "per_frame"),
}


def parse_bundle_name(name: str) -> BundleOptions:
    """Parse a full name. Raises ConfigError for an unknown bundle or option."""
    bundle, *options = name.split("+")
    if bundle not in BUNDLES:
        raise ConfigError(f"There is no encoder bundle {bundle!r}.", remedy=f"Use one of {', '.join(BUNDLES)}.")
    parsed = BUNDLES[bundle]
    for option in options:
        word, has_value, value = option.partition("=")
        if option in DEPTH_NETWORKS:
            parsed = replace(parsed, depth_network=option)
        elif option.startswith(TRANSFORMERS_PREFIX):
            parsed = replace(parsed, depth_network=_transformers_network(value, name))
        elif option == "half":
            parsed = replace(parsed, half_precision=True)
        elif word in NORMALIZATIONS and (not has_value or word == "raw_scaled"):
            parsed = replace(parsed, normalization=word, raw_scale=_scale(value, name) if has_value else None)
        else:
            known = ", ".join(
                (*DEPTH_NETWORKS, *NORMALIZATIONS, "raw_scaled=NUMBER", f"{TRANSFORMERS_PREFIX}FOLDER", "half")
            )
            raise ConfigError(f"Bundle {name!r} has an unknown option {option!r}.", remedy=f"Known: {known}.")
    return parsed


def _transformers_network(folder: str, name: str) -> str:
    if not _FOLDER.fullmatch(folder):
        raise ConfigError(
            f"Bundle {name!r} names the depth network {folder!r}, which is not a folder name in the weights cache.",
            remedy="Use a plain name of letters, digits, '.', '-' and '_': transformers=Depth-Anything-V2-Base-hf.",
        )
    return folder if folder in TRANSFORMERS_NETWORKS else TRANSFORMERS_PREFIX + folder


def _scale(text: str, name: str) -> float:
    try:
        scale = float(text)
    except ValueError:
        scale = 0.0
    if not 0 < scale < float("inf"):
        raise ConfigError(
            f"Bundle {name!r} scales raw depth by {text!r}.", remedy="Use a positive number: raw_scaled=1000."
        )
    return scale
