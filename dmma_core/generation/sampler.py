"""From features to latents: fixed noise per clip, guidance, and an ODE solver."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from dmma_core.flow.guidance import guidance_weights, guided_velocity
from dmma_core.flow.solver import integrate
from dmma_core.generation.sampling_config import SamplingConfig
from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.mmdit import MMDiT
from dmma_core.models.winograd import winograd_convolutions


def noise_for(clip_ids: Sequence[str], seed: int, shape: tuple[int, ...]) -> Tensor:
    """Standard normal noise [B, *shape], float32: each clip's depends on (seed, clip_id) only."""
    return torch.from_numpy(
        np.stack([_generator(seed, clip_id).standard_normal(shape, np.float32) for clip_id in clip_ids])
    )


def sample_latents(
    model: MMDiT,
    features: ConditionFeatures,
    noise_BLC: Tensor,
    sampling: SamplingConfig,
    negative_text_BND: Tensor | None = None,
) -> Tensor:
    """Latents [B, L, C] in the scale of the codec. Conditions are embedded once, guidance branches share one batch."""
    weights = guidance_weights(sampling.guidance, sampling.guidance_depth)
    conditions = model.branch_conditions(features, tuple(weights), negative_text_BND)

    def velocity(latent_BLC: Tensor, time: Tensor) -> Tensor:
        return guided_velocity(model.velocity, latent_BLC, time, conditions, weights)

    with winograd_convolutions(model):
        latent_BLC = integrate(
            velocity,
            noise_BLC,
            sampling.solver,
            sampling.num_steps,
            relative_tolerance=sampling.tolerance,
            absolute_tolerance=sampling.tolerance,
        )
    return model.unnormalize(latent_BLC)


def _generator(seed: int, clip_id: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}:{clip_id}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))
