"""The validation loss on a fixed grid of noise and times: the same in every run with the same clips and seed."""

import hashlib
from dataclasses import replace
from statistics import NormalDist

import torch

from dmma_core.data.batching import collate
from dmma_core.data.feature_store import FeatureStore
from dmma_core.models.mmdit import MMDiT
from dmma_core.recipe import Recipe
from dmma_core.training.step import condition_features, loss_per_clip, noise_of, sample_posterior, times_of
from dmma_core.training.workers import Workers


@torch.no_grad()
def validation_loss(
    model: MMDiT,
    store: FeatureStore,
    recipe: Recipe,
    workers: Workers,
) -> float:
    """Mean flow-matching loss with all conditions present. The clips are divided among the workers."""
    config = recipe.validation
    rows = store.rows_of_split("val")[: config.max_clips][workers.rank :: workers.size]
    quantiles = [(part + 0.5) / config.num_times for part in range(config.num_times)]
    total, count = 0.0, 0
    for start in range(0, len(rows), config.batch_size):
        chunk = rows[start : start + config.batch_size]
        batch = collate([store], [(0, row) for row in chunk], chunk).to(workers.device)
        present_B = torch.ones(len(chunk), dtype=torch.bool, device=workers.device)
        features = condition_features(batch, present_B, present_B, present_B)
        for quantile in quantiles:
            keys = [(recipe.seed, _key(store.clips[row].clip_id, quantile)) for row in chunk]
            noise = noise_of(keys, *batch.latent_mean_BLC.shape[1:])
            normal_B = torch.full((len(chunk),), NormalDist().inv_cdf(quantile))
            noise = replace(noise, time_normal_B=normal_B).to(workers.device)
            latent_BLC = model.normalize(sample_posterior(batch, noise.posterior_noise_BLC))
            time_B = times_of(noise.time_normal_B, recipe.flow)
            loss_B = loss_per_clip(model, latent_BLC, noise.prior_BLC, time_B, features, recipe.flow)
            total += float(loss_B.double().sum())
            count += len(chunk)
    total, clips = workers.total(total, count)
    return total / clips


def _key(clip_id: str, quantile: float) -> int:
    """A separate generator key for each clip and time; equal on every machine."""
    return int.from_bytes(hashlib.sha256(f"validation/{clip_id}/{quantile}".encode()).digest()[:8], "little")
