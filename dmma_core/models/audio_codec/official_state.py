"""Published state dicts: unwrapped, checked against what a network expects, widened to float32."""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from dmma_core.errors import CheckpointError

_CONTAINERS = ("weights", "state_dict", "generator", "ema")


def unwrap(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state dict itself, which published files also keep under a key such as "generator" or "weights"."""
    for container in _CONTAINERS:
        if isinstance(state.get(container), Mapping):
            return unwrap(state[container])
    return state


def checked(
    state: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]], what: str, optional: Collection[str] = ()
) -> dict[str, Tensor]:
    """float32 tensors of exactly the keys `shapes`; those in `optional` may be absent.

    Raises CheckpointError that lists missing, unexpected and misshapen tensors, or names one that is not finite.
    """
    problems = {
        "missing": [key for key in shapes if key not in state and key not in optional],
        "unexpected": [key for key in state if key not in shapes],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {shape}"
            for key, shape in shapes.items()
            if key in state and tuple(state[key].shape) != tuple(shape)
        ],
    }
    found = [f"{len(keys)} {kind} ({_few(keys)})" for kind, keys in problems.items() if keys]
    if found:
        raise CheckpointError(
            f"The weights do not fit {what}: {'; '.join(found)}.", remedy="Give the file of this variant."
        )
    widened = {key: value.detach().to(torch.float32) for key, value in state.items()}
    damaged = [key for key, value in widened.items() if not torch.isfinite(value).all()]
    if damaged:
        raise CheckpointError(
            f"The weights of {what} hold values that are not finite in {_few(damaged)}.", remedy="Fetch the file again."
        )
    return widened


def _few(keys: list[str]) -> str:
    return ", ".join(keys[:4]) + (", …" if len(keys) > 4 else "")
