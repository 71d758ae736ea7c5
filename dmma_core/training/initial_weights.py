"""Initial weights other than a seed's: published networks imported as runs, and the network of any checkpoint.

Also the export of a trained network in the published layout.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import Any

from torch import Tensor

from dmma_core.config_loading import config_from_dict, config_to_dict
from dmma_core.data.feature_schema import FeatureSchema
from dmma_core.errors import CheckpointError, ConfigError, StorageError, WeightsError
from dmma_core.models.audio_codec.mmaudio_codec import MODES
from dmma_core.models.initialisation import depth_from_baseline
from dmma_core.models.mmaudio_interop import from_official, identify_variant, state_to_official
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import MMDiTConfig
from dmma_core.models.presets import require_depth_from_baseline
from dmma_core.storage.run_folder import EMA, Checkpoint, RunFolder
from dmma_core.training.checkpoint import SOURCE, write_checkpoint


def bundle_of_published(state: Mapping[str, Tensor]) -> str:
    """Name of the encoder bundle that a published network was trained with. Raises WeightsError for an unknown network."""
    _, config = identify_variant(state)
    return next(codec.name for codec in MODES.values() if codec.vae.latent_channels == config.latent_width)


def import_published(
    state: Mapping[str, Tensor], schema: FeatureSchema, folder: RunFolder, source: Mapping[str, str]
) -> Checkpoint:
    """Write a published network as checkpoint 0 of the run `folder`, for the features and the duration of `schema`.

    Only the averaged network is written, as only that is published. `source` is stored in the record.
    Raises WeightsError for weights that are not a published network or lack latent statistics, ConfigError if `schema`
    does not match it, and StorageError if the folder holds a training run.
    """
    if any(SOURCE not in folder.checkpoint(step).record for step in folder.complete_steps()):
        raise StorageError(f"{folder.uri} holds a training run.", remedy="Give another --run.")
    name, config = identify_variant(state)
    widths = {field: getattr(config, f"{field}_width") for field in ("latent", "rgb", "sync", "text")}
    lengths: dict[str, Any] = {}
    for field, column in (("latent", "latent_mean"), ("rgb", "rgb"), ("sync", "sync"), ("text", "text")):
        lengths[f"{field}_length"], width = schema.spec(column).shape
        if width != widths[field]:
            raise ConfigError(
                f"{name} takes {field} features of width {widths[field]}, the bundle {schema.bundle} gives {width}.",
                remedy=f"Use the bundle {bundle_of_published(state)}.",
            )
    model = from_official(state, replace(config, **lengths))
    if not (model.latent_mean.isfinite().all() and model.latent_std.isfinite().all()):
        raise WeightsError(
            f"This file of the network {name} contains no latent statistics (latent_mean, latent_std): its sound would be NaN.",
            remedy="Export the network with the statistics that it was trained with.",
        )
    record = {
        "step": 0,
        "samples": 0,
        "arm": name,
        "model": config_to_dict(model.config),
        "features": schema.to_dict(),
        SOURCE: dict(source),
    }
    return write_checkpoint(folder, {EMA: model.state_dict()}, record)


def published_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The averaged network of a checkpoint as a published state dict, float32, which the published code loads.

    Raises ConfigError for a form of depth of this project, which has no published layout.
    """
    config = config_from_dict(MMDiTConfig, checkpoint.record["model"], checkpoint.uri)
    return state_to_official(checkpoint.read(EMA), config)


def network_from(init: Checkpoint, config: MMDiTConfig, seed: int) -> MMDiT:
    """The averaged network of `init` with the configuration `config`: the same, at other lengths, or with depth added.

    Added depth has no effect until trained; `seed` decides its weights. Raises ConfigError if `config` differs otherwise,
    CheckpointError for a damaged file.
    """
    stored = _config_of_init(init, config)
    model = MMDiT(stored)
    init.load_into(model, EMA)
    if stored.depth == config.depth:
        model.config = config
        return model
    return depth_from_baseline(model, config, seed)


def require_init(init: Checkpoint, config: MMDiTConfig, schema: FeatureSchema) -> None:
    """Raise ConfigError or CheckpointError unless training of `config` on features of `schema` can start from `init`.

    The encoders must be the same, except the depth encoder for a network without depth.
    """
    _config_of_init(init, config)
    stored: Mapping[str, Any] = init.record["features"]["encoders"]
    roles = [role for role in schema.encoders if role != "depth" or init.record["model"]["depth"] != "off"]
    if differing := [role for role in roles if stored.get(role) != schema.encoders[role]]:
        raise CheckpointError(
            f"{init.uri} was trained on features of other encoders: {', '.join(differing)} differ.",
            remedy="Extract the features with the encoders of that checkpoint, or start from another one.",
        )


def find_init(run: RunFolder, step: int | None, init_sha256: AbstractSet[str]) -> Checkpoint:
    """The checkpoint of `run` to start from: that of `step`; else the one that other arms started from; else the newest.

    `init_sha256` are the sha256 of the initial weights of other arms of the comparison. Raises CheckpointError if they
    differ, and IncompleteError if there is no such checkpoint.
    """
    found = run.checkpoint(step)
    candidates = [found] if step is not None else [found, *map(run.checkpoint, run.complete_steps())]
    for candidate in candidates:
        if init_sha256 <= {candidate.record["files"].get(EMA)}:
            return candidate
    raise CheckpointError(
        f"Another arm started from other weights than {found.uri} holds, so the arms could not be compared.",
        remedy="Give the init_uri and init_step that it started from, or another comparison_uri.",
    )


def _config_of_init(init: Checkpoint, config: MMDiTConfig) -> MMDiTConfig:
    """The configuration of the network in `init`, at the lengths of `config`."""
    if EMA not in init.record["files"]:
        raise CheckpointError(f"{init.uri} has no {EMA}.", remedy="Start from a checkpoint of a training run.")
    stored = config_from_dict(MMDiTConfig, init.record["model"], init.uri)
    stored = replace(
        stored,
        latent_length=config.latent_length,
        rgb_length=config.rgb_length,
        sync_length=config.sync_length,
    )
    if stored.depth == "off":  # then these two have no effect
        stored = replace(stored, fusion=config.fusion, num_depth_scalars=config.num_depth_scalars)
    target = replace(config, depth="off") if stored.depth == "off" else config
    found, expected = config_to_dict(stored), config_to_dict(target)
    if differing := [
        f"{key} {found[key]} (expected: {expected[key]})" for key in expected if found[key] != expected[key]
    ]:
        raise ConfigError(
            f"The network in {init.uri} is another one: {', '.join(differing)}.",
            remedy="Set preset, depth and fusion as in that run; depth can only be added to a network without depth.",
        )
    if stored.depth != config.depth:
        require_depth_from_baseline(stored, config)
    return stored
