"""Conversion of state dicts between MMAudio's and DeepMMAudio's published layout and ours, with strict checks.

The published layout differs in three ways besides the names: queries, keys and values are interleaved per channel
(ours: three contiguous blocks), rotated channel pairs are neighbours (ours: half-split, see `rope`), and convolution
weights are [out, in, taps] (ours: ready for one matmul, see `layers.TokenMap`). All three only permute values, so the
same conversions apply to gradients and averaged weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dmma_core.errors import ConfigError, WeightsError
from dmma_core.models.blocks import FinalBlock, FusedBlock, JointBlock, StreamBlock
from dmma_core.models.embeddings import LinearDepthFusion
from dmma_core.models.initialisation import depth_from_baseline
from dmma_core.models.layers import GatedFeedForward, TokenMap
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import DEEPMMAUDIO, MMDiTConfig
from dmma_core.models.presets import PRESETS
from dmma_core.storage.state_dicts import checked_state_dict, unwrap

_LEFTOVERS = ("latent_rot", "clip_rot", "t_embed.freqs")  # tables in old files; DMMA computes them
_STATISTICS = ("latent_mean", "latent_std")


def from_official(state: Mapping[str, Any], config: MMDiTConfig) -> MMDiT:
    """A network of `config` with the published weights, float32 on the CPU.

    `state` may be half precision, wrapped (see `state_dicts.unwrap`), and contain the tables of old files. If `config`
    has one of our own depth fusions, `state` is a checkpoint without depth and `depth_from_baseline` adds the fusion.
    Raises WeightsError that lists missing, unexpected, misshapen and non-finite tensors.
    """
    if config.depth != "off" and not config.is_deepmmaudio:
        baseline = replace(config, depth="off", num_depth_scalars=0)
        return depth_from_baseline(from_official(state, baseline), config)
    tensors = checked_state_dict(
        state,
        official_shapes(config),
        "the configured network",
        unused=_LEFTOVERS,
        may_be_nan=_STATISTICS,  # NaN where absent; training sets them
        identify=_name_of,
    )
    model = _meta_model(config)
    model.load_state_dict(state_from_official(tensors, config), assign=True)
    return model


def to_official(model: MMDiT) -> dict[str, Tensor]:
    """State dict for the published code, of a network without depth or with DeepMMAudio's fusion; else ConfigError."""
    return state_to_official(model.state_dict(), model.config)


def state_from_official(state: Mapping[str, Tensor], config: MMDiTConfig) -> dict[str, Tensor]:
    """Published names and layout to ours, float32.

    Values may be any tensors of the parameters' shapes, such as gradients.
    """
    ours = {}
    for entry in _entries(_meta_model(config)):
        value = entry.to_ours([state[name].float() for name in entry.official])
        ours[entry.ours] = value.contiguous()
    return ours


def state_to_official(state: Mapping[str, Tensor], config: MMDiTConfig) -> dict[str, Tensor]:
    """Our names and layout to the published ones. Raises ConfigError for a depth fusion without a published layout."""
    official: dict[str, Tensor] = {}
    for entry in _entries(_meta_model(config)):
        official.update(zip(entry.official, entry.to_official(state[entry.ours]), strict=True))
    return {name: value.contiguous() for name, value in official.items()}


def official_shapes(config: MMDiTConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published state dict of `config`."""
    model = _meta_model(config)
    return {name: tuple(value.shape) for name, value in state_to_official(model.state_dict(), config).items()}


def identify_variant(state: Mapping[str, Any]) -> tuple[str, MMDiTConfig]:
    """(name, configuration) of the published variant of `state`; lengths are those of 8 s.

    Names are those of the presets, or "deepmmaudio_<preset>" with DeepMMAudio's depth fusion. Raises WeightsError with
    the differences from the nearest variant.
    """
    tensors = unwrap(state)
    shapes = {name: tuple(value.shape) for name, value in tensors.items() if not name.startswith(_LEFTOVERS)}
    variants = {name: config for name, config in PRESETS.items() if name != "tiny"}
    variants |= {
        f"deepmmaudio_{name}": replace(config, depth="rgb_like", fusion=DEEPMMAUDIO)
        for name, config in variants.items()
    }
    expected = {name: official_shapes(config) for name, config in variants.items()}
    nearest = min(expected, key=lambda name: len(shapes.items() ^ expected[name].items()))
    if shapes != expected[nearest]:  # then this raises
        network = f"{nearest}, the nearest of the published networks"
        checked_state_dict(tensors, expected[nearest], network, unused=_LEFTOVERS)
    return nearest, variants[nearest]


def _name_of(state: Mapping[str, Tensor]) -> str | None:
    try:
        return identify_variant(state)[0]
    except WeightsError:
        return None


@dataclass(frozen=True)
class Entry:
    """One of our parameters, the published parameters it consists of, and the conversions between their values."""

    ours: str
    official: tuple[str, ...]
    to_ours: Callable[[list[Tensor]], Tensor]
    to_official: Callable[[Tensor], list[Tensor]]


def _meta_model(config: MMDiTConfig) -> MMDiT:
    with torch.device("meta"):
        return MMDiT(config)


def _entries(model: MMDiT) -> list[Entry]:
    """Every parameter and buffer of `model`."""
    config = model.config
    if config.depth != "off" and not config.is_deepmmaudio:
        raise ConfigError(
            f"A network with depth={config.depth} and fusion={config.fusion} has no published layout.",
            remedy="Only networks without depth, or with DeepMMAudio's, can be exported.",
        )
    entries = [
        _reshaped("sync_position", "sync_pos_emb", (1, 1, 8, config.sync_width), (8, config.sync_width)),
        *(_reshaped(name, name, (1, 1, config.latent_width), (config.latent_width,)) for name in _STATISTICS),
        _same("empty_text", "empty_string_feat"),
        _same("empty_rgb", "empty_clip_feat"),
        *([_same("depth_fusion.empty", "empty_depth_feat")] if config.is_deepmmaudio else []),
        _same("empty_sync", "empty_sync_feat"),
    ]
    # Positions in the published nn.Sequential: an activation, if any, has its own index.
    rgb_text_step = 1 if config.version == 1 else 2
    fusion_steps = rgb_text_step if config.is_deepmmaudio else 0
    if config.is_deepmmaudio:
        assert isinstance(model.depth_fusion, LinearDepthFusion)
        entries += layer_entries(model.depth_fusion.map, "depth_fusion.map", "clip_input_proj.0")
    for projection, ours, official, start, step in (
        (model.latent_in, "latent_in", "audio_input_proj", 0, 2),
        (model.rgb_in, "rgb_in", "clip_input_proj", fusion_steps, rgb_text_step),
        (model.sync_in, "sync_in", "sync_input_proj", 0, 2),
        (model.text_in, "text_in", "text_input_proj", 0, rgb_text_step),
    ):
        entries += layer_entries(projection.first, f"{ours}.first", f"{official}.{start}")
        entries += feed_forward_entries(projection.feed_forward, f"{ours}.feed_forward", f"{official}.{start + step}")
    entries += layer_entries(model.rgb_pool, "rgb_pool", "clip_cond_proj")
    entries += layer_entries(model.text_pool, "text_pool", "text_cond_proj")
    entries += feed_forward_entries(model.global_mlp, "global_mlp", "global_cond_mlp")
    entries += final_entries(model.final, "final", "final_layer")
    entries += layer_entries(model.time_in.first, "time_in.first", "t_embed.mlp.0")
    entries += layer_entries(model.time_in.second, "time_in.second", "t_embed.mlp.2")
    for index, joint in enumerate(model.joint_blocks):
        assert isinstance(joint, JointBlock)
        entries += joint_entries(joint, f"joint_blocks.{index}", f"joint_blocks.{index}")
    for index, fused in enumerate(model.fused_blocks):
        assert isinstance(fused, FusedBlock)
        entries += stream_entries(fused, f"fused_blocks.{index}", f"fused_blocks.{index}")
    assert {entry.ours for entry in entries} == set(model.state_dict())
    return entries


def _same(ours: str, official: str) -> Entry:
    return Entry(ours, (official,), lambda values: values[0], lambda value: [value])


def _reshaped(ours: str, official: str, official_shape: tuple[int, ...], shape: tuple[int, ...]) -> Entry:
    return Entry(
        ours, (official,), lambda values: values[0].reshape(shape), lambda value: [value.reshape(official_shape)]
    )


def _reordered(ours: str, official: str, rows: Tensor) -> Entry:
    back = rows.argsort()
    return Entry(
        ours,
        (official,),
        lambda values: values[0][rows.to(values[0].device)],
        lambda value: [value[back.to(value.device)]],
    )


def layer_entries(module: TokenMap, ours: str, official: str) -> list[Entry]:
    """A linear or convolution layer named `ours` here and `official` in the published code ("" for a module alone)."""
    weight = Entry(
        _join(ours, "weight"),
        (_join(official, "weight"),),
        lambda values: _taps_to_ours(values[0], module),
        lambda value: [_taps_to_official(value, module)],
    )
    return [weight] if module.bias is None else [weight, _same(_join(ours, "bias"), _join(official, "bias"))]


def feed_forward_entries(module: GatedFeedForward, ours: str, official: str) -> list[Entry]:
    """Gate (w1) and value (w3) are one layer of ours."""
    up = Entry(
        _join(ours, "up.weight"),
        (_join(official, "w1.weight"), _join(official, "w3.weight")),
        lambda values: _taps_to_ours(torch.cat(values), module.up),
        lambda value: list(_taps_to_official(value, module.up).chunk(2)),
    )
    return [up, *layer_entries(module.down, _join(ours, "down"), _join(official, "w2"))]


def stream_entries(block: StreamBlock, ours: str, official: str) -> list[Entry]:
    """One modality's block, or a fused block."""
    head_width = block.qkv.width // block.num_heads
    rows = _qkv_rows(block.num_heads, head_width)
    entries = [
        *(
            _reordered(_join(ours, f"qkv.{part}"), _join(official, f"attn.qkv.{part}"), rows)
            for part in ("weight", "bias")
        ),
        *(
            _reordered(_join(ours, f"{norm}.weight"), _join(official, f"attn.{norm}.weight"), _half_split(head_width))
            for norm in ("q_norm", "k_norm")
        ),
    ]
    if not block.only_attends:
        entries += layer_entries(block.out, _join(ours, "out"), _join(official, "linear1"))
        entries += feed_forward_entries(block.feed_forward, _join(ours, "feed_forward"), _join(official, "ffn"))
    modulation = layer_entries(block.modulation, _join(ours, "modulation"), _join(official, "adaLN_modulation.1"))
    return entries + modulation


def joint_entries(block: JointBlock, ours: str, official: str) -> list[Entry]:
    """Three streams."""
    return [
        *stream_entries(block.latent, _join(ours, "latent"), _join(official, "latent_block")),
        *stream_entries(block.rgb, _join(ours, "rgb"), _join(official, "clip_block")),
        *stream_entries(block.text, _join(ours, "text"), _join(official, "text_block")),
    ]


def final_entries(block: FinalBlock, ours: str, official: str) -> list[Entry]:
    """The last block."""
    return [
        *layer_entries(block.modulation, _join(ours, "modulation"), _join(official, "adaLN_modulation.1")),
        *layer_entries(block.out, _join(ours, "out"), _join(official, "conv")),
    ]


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _taps_to_ours(weight: Tensor, module: TokenMap) -> Tensor:
    """[out, in, taps] to the layout of `TokenMap.weight`."""
    if module.num_taps == 1:
        return weight
    return weight.permute(0, 2, 1).flatten(1) if module.gathers else weight.permute(2, 0, 1).flatten(0, 1)


def _taps_to_official(weight: Tensor, module: TokenMap) -> Tensor:
    if module.num_taps == 1:
        return weight
    if module.gathers:
        return weight.view(module.out_width, module.num_taps, module.width).permute(0, 2, 1)
    return weight.view(module.num_taps, module.out_width, module.width).permute(1, 2, 0)


def _half_split(head_width: int) -> Tensor:
    """Published channel index of each of our channels in a head: the first of every pair, then the second."""
    channels = torch.arange(head_width, device="cpu")
    return torch.cat((channels[0::2], channels[1::2]))


def _qkv_rows(num_heads: int, head_width: int) -> Tensor:
    """Published row index of each of our rows: theirs are ordered (head, channel, qkv), ours (qkv, head, channel)."""
    rows = torch.arange(3 * num_heads * head_width, device="cpu").view(num_heads, head_width, 3).permute(2, 0, 1)
    split = _half_split(head_width)
    return torch.cat((rows[0][:, split].flatten(), rows[1][:, split].flatten(), rows[2].flatten()))
