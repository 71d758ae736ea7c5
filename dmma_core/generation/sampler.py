"""From features to latents: noise fixed per clip, guidance, an ODE solver."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def noise_for(clip_ids: Sequence[str], seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise [B, *shape], float32: each clip's depends on (seed, clip_id) and on nothing else."""
    return torch.from_numpy(np.stack([_generator(seed, clip_id).standard_normal(shape, np.float32) for clip_id in clip_ids]))


def _generator(seed: int, clip_id: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{clip_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
