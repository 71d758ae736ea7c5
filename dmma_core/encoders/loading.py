"""Fingerprints of networks, and deterministic random weights for stand-in networks."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def network_fingerprint(config: Mapping[str, Any], module: nn.Module) -> str:
    """sha256 (hex) over the architecture (JSON values) and every tensor of `module` (name, shape, dtype, bytes)."""
    digest = hashlib.sha256(json.dumps(dict(config), sort_keys=True).encode())
    for name, tensor in sorted(module.state_dict().items()):
        plain = tensor.detach().to("cpu").contiguous()
        digest.update(f"{name} {tuple(plain.shape)} {plain.dtype}".encode())
        digest.update(memoryview(plain.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()


def fill_with_random_weights(module: Module, seed: str) -> Module:
    """Overwrite every parameter, in place, with values that depend only on `seed` and the parameter's name.

    Matrices and kernels ~ N(0, 1/fan_in), norm weights 1, biases 0, tokens and embeddings ~ N(0, 0.02²). For stand-in
    networks, whose name and fingerprint must state that their weights are random.
    """
    for name, parameter in module.named_parameters():
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        noise = torch.randn(parameter.shape, generator=generator)
        if "weight" not in name and ("embed" in name or "token" in name):
            value = 0.02 * noise
        elif parameter.dim() >= 2:
            value = noise / parameter[0].numel() ** 0.5
        else:
            value = torch.full_like(noise, float("weight" in name))
        with torch.no_grad():
            parameter.copy_(value)
    return module
