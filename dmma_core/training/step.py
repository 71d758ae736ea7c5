"""One flow-matching training step. Its noise is a function of (seed, sample number) alone.

Rank, batch composition and number of workers therefore change nothing: sample 4711 gets the same noise, time and
dropped conditions in every run with the same seed, in both arms.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from dmma_core.data.batching import ClipBatch
from dmma_core.flow.path import flow_loss, interpolate, logit_normal_times
from dmma_core.models.conditioning import ConditionFeatures
from dmma_core.models.mmdit import MMDiT
from dmma_core.recipe import DropoutConfig, FlowConfig, Recipe
from dmma_core.training.optim import clip_gradients, set_learning_rate
from dmma_core.training.schedule import learning_rate

VelocityModel = Callable[[Tensor, Tensor, ConditionFeatures], Tensor]


@dataclass(frozen=True)
class StepNoise:
    """All noise of one step: standard normals and uniforms in [0, 1)."""

    posterior_noise_BLC: Tensor
    prior_BLC: Tensor
    time_normal_B: Tensor
    video_uniform_B: Tensor
    depth_uniform_B: Tensor
    text_uniform_B: Tensor

    def to(self, device: torch.device) -> "StepNoise":
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **moved)


def noise_of(keys: Sequence[tuple[int, int]], latent_length: int, latent_channels: int) -> StepNoise:
    """Noise of one step, on the CPU; row b comes from the counter-based generator (Philox) with key `keys[b]`.

    A training sample's key is (seed, sample number).
    """
    normals = np.empty((2, len(keys), latent_length, latent_channels), dtype=np.float32)
    times = np.empty(len(keys), dtype=np.float32)
    uniforms = np.empty((3, len(keys)), dtype=np.float32)
    for row, key in enumerate(keys):
        generator = np.random.Generator(np.random.Philox(key=np.array(key, dtype=np.uint64)))
        uniforms[:, row] = generator.random(3, dtype=np.float32)
        times[row] = generator.standard_normal(dtype=np.float32)
        generator.standard_normal(dtype=np.float32, out=normals[0, row])
        generator.standard_normal(dtype=np.float32, out=normals[1, row])
    posterior_noise, prior = torch.from_numpy(normals)
    video, depth, text = torch.from_numpy(uniforms)
    return StepNoise(posterior_noise, prior, torch.from_numpy(times), video, depth, text)


def training_noise(batch: ClipBatch, seed: int) -> StepNoise:
    """The noise of a training batch, from its sample numbers."""
    _, length, channels = batch.latent_mean_BLC.shape
    return noise_of([(seed, sample) for sample in batch.sample_B.tolist()], length, channels)


def sample_posterior(batch: ClipBatch, noise_BLC: Tensor) -> Tensor:
    """A sample of every clip's audio posterior, float32 [B, L, C], not yet normalised."""
    return batch.latent_mean_BLC.float() + batch.latent_std_BLC.float() * noise_BLC


def condition_features(
    batch: ClipBatch, present_video_B: Tensor, present_depth_B: Tensor, present_text_B: Tensor
) -> ConditionFeatures:
    """The batch's conditions in float32; `present_*` has no effect for a clip without video or text."""
    return ConditionFeatures(
        rgb_BTD=batch.rgb_BTD.float(),
        depth_BTD=batch.depth_BTD.float(),
        depth_scalars_BTK=batch.depth_scalars_BTK.float(),
        sync_BSD=batch.sync_BSD.float(),
        text_BND=batch.text_BND.float(),
        present_video_B=batch.has_video_B & present_video_B,
        present_depth_B=batch.has_video_B & present_depth_B,
        present_text_B=batch.has_text_B & present_text_B,
    )


def drop_conditions(batch: ClipBatch, noise: StepNoise, config: DropoutConfig) -> ConditionFeatures:
    """The conditions after condition dropout."""
    keep_video_B = noise.video_uniform_B >= config.video
    keep_depth_B = noise.depth_uniform_B >= config.depth
    if config.depth_with_video:
        keep_depth_B = keep_depth_B & keep_video_B
    return condition_features(batch, keep_video_B, keep_depth_B, noise.text_uniform_B >= config.text)


def loss_per_clip(
    velocity: VelocityModel,
    latent_BLC: Tensor,
    prior_BLC: Tensor,
    time_B: Tensor,
    features: ConditionFeatures,
    flow: FlowConfig,
) -> Tensor:
    """Flow-matching loss [B] of the (normalised) latents at the given times, from the given noise."""
    noisy_BLC = interpolate(prior_BLC, latent_BLC, time_B, flow.min_sigma)
    with autocast(latent_BLC.device):
        predicted_BLC = velocity(noisy_BLC, time_B, features)
    return flow_loss(predicted_BLC, prior_BLC, latent_BLC, flow.min_sigma)


def times_of(normal_B: Tensor, flow: FlowConfig) -> Tensor:
    """The recipe's times [B] in (0, 1) from standard normal noise."""
    return logit_normal_times(normal_B, flow.time_mean, flow.time_scale)


def autocast(device: torch.device) -> torch.autocast:
    """bfloat16 autocast on a GPU, float32 elsewhere."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@dataclass(frozen=True)
class StepResult:
    """Mean loss of this worker's clips, total gradient norm before clipping (of all workers), learning rate."""

    loss: float
    grad_norm: float
    learning_rate: float
    is_finite: bool


@dataclass(frozen=True)
class TrainingStep:
    """Loss, gradients, clipping and update. `model` is the network, `velocity` the callable: the network itself, or its
    wrapper for several workers, which averages the gradients over them."""

    model: MMDiT
    velocity: VelocityModel
    optimizer: torch.optim.Optimizer
    recipe: Recipe

    def __call__(self, batch: ClipBatch, noise: StepNoise, step: int) -> StepResult:
        """Run step number `step` (0, 1, …). If loss or gradient is not finite, nothing is updated."""
        recipe = self.recipe
        rate = learning_rate(recipe.schedule, recipe.optim.learning_rate, step)
        set_learning_rate(self.optimizer, rate)
        latent_BLC = self.model.normalize(sample_posterior(batch, noise.posterior_noise_BLC))
        time_B = times_of(noise.time_normal_B, recipe.flow)
        features = drop_conditions(batch, noise, recipe.dropout)
        self.optimizer.zero_grad(set_to_none=True)
        loss = loss_per_clip(self.velocity, latent_BLC, noise.prior_BLC, time_B, features, recipe.flow).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(clip_gradients(self.model, recipe.optim.max_grad_norm))
        is_finite = bool(np.isfinite(norm))
        if is_finite:
            self.optimizer.step()
        return StepResult(float(loss.detach()), norm, rate, is_finite)
