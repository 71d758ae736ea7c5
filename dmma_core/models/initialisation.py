"""Initial weights of the flow network, adding depth to a trained one, and parameter counts."""

import hashlib

import torch
from torch import nn

from dmma_core.models.embeddings import LinearDepthFusion
from dmma_core.models.layers import InitialValue
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.mmdit_config import MMDiTConfig
from dmma_core.models.presets import require_depth_from_baseline


def parameter_count(config: MMDiTConfig) -> tuple[int, int]:
    """(all, trainable) parameters, counted as published: all includes the latent statistics. Allocates nothing."""
    with torch.device("meta"):
        model = MMDiT(config)
    num_all = sum(value.numel() for value in model.state_dict().values())
    return num_all, sum(value.numel() for value in model.parameters() if value.requires_grad)


def initialise(model: nn.Module, seed: int) -> None:
    """Set the initial weights: every parameter is sampled from a generator seeded by (seed, parameter name).

    Two networks of the same seed agree in every parameter that both have, on every device, so the initial weights of
    baseline and depth arm are equal.
    """
    for module_name, module in model.named_modules():
        initial_values: dict[str, InitialValue] = module.initial_values() if hasattr(module, "initial_values") else {}
        for name, parameter in module.named_parameters(recurse=False):
            full_name = f"{module_name}.{name}" if module_name else name
            assert name in initial_values, f"{full_name} has no initial value"
            _fill(parameter, initial_values[name], seed, full_name)


def _fill(parameter: nn.Parameter, initial: InitialValue, seed: int, name: str) -> None:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    value = torch.empty(parameter.shape, dtype=torch.float32)
    if initial.kind == "uniform":
        value.uniform_(-initial.value, initial.value, generator=generator)
    elif initial.kind == "normal":
        value.normal_(0.0, initial.value, generator=generator)
    else:
        value.fill_(initial.value)
    with torch.no_grad():
        parameter.copy_(value)


def depth_from_baseline(baseline: MMDiT, config: MMDiTConfig, seed: int = 0) -> MMDiT:
    """A depth network that computes exactly the function of `baseline` until it is trained.

    `config` is the baseline's with another `depth` and `fusion`. Raises ConfigError as `require_depth_from_baseline` does.
    """
    require_depth_from_baseline(baseline.config, config)
    model = MMDiT(config)
    initialise(model, seed)
    model.load_state_dict(baseline.state_dict(), strict=False)
    if isinstance(model.depth_fusion, LinearDepthFusion):
        model.depth_fusion.pass_rgb()
    return model.to(baseline.empty_rgb.device)
