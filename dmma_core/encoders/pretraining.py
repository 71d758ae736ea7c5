"""Training of the tiny CLIP and the tiny depth network on rendered clips, from random weights, on a CPU, in minutes.

The depth network learns inverse depth in 1/m, so its maps keep one scale over all clips. CLIP learns to pick a frame's
(or a depth picture's) true caption among all captions of a kind: the plain ones, those with a distance, those with a motion.
"""

from collections.abc import Callable
from math import cos, pi

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.data.scenes import MOTIONS, OBJECT_CLASSES
from dmma_core.data.scenes.world import KINDS, MOTION_PHRASES
from dmma_core.encoders.clip import ClipEncoder, tiny_clip
from dmma_core.encoders.depth import DepthEncoder, normalized_depth, tiny_depth
from dmma_core.encoders.pretraining_config import PretrainingConfig
from dmma_core.encoders.pretraining_data import Samples
from dmma_core.log import Progress

CLASS_CAPTIONS = tuple(KINDS[name].phrase for name in OBJECT_CLASSES)
DISTANCE_PHRASES = ("close by", "some way off", "far away")
DISTANCE_BOUNDS_M = (4.5, 9.0)
_DEPTH_FLOOR = 0.02  # inverse depth (1/m) below which differences stop to matter
_FOREGROUND_WEIGHT = 6.0
_LONG_CAPTION_WEIGHT = (
    0.3  # of the losses over captions with a distance or a motion, beside the one over plain captions
)


def train_depth(samples: Samples, config: PretrainingConfig) -> DepthEncoder:
    """Train the tiny depth network. Weighted L1 on the logarithm of inverse depth: things that stand out of the ground
    count more than their few pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = tiny_depth()
    frames = torch.from_numpy(samples.frames_BTHWC).flatten(0, 1)
    targets = torch.from_numpy(samples.inverse_depth_BTHW).flatten(0, 1)
    with torch.no_grad():  # start in the middle of the range, where the last rectifier passes gradients
        encoder.network.get_submodule("scratch.output_conv.4").get_parameter("bias").fill_(0.1)

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        pixels_BCHW, flipped = _augmented(frames[rows], generator)
        target_BHW = targets[rows].float()
        target_BHW = torch.where(flipped[:, None, None], target_BHW.flip(-1), target_BHW)
        # Ground and sky have one depth per row; what is nearer than its row's farthest point stands on the ground.
        standing = target_BHW > 1.05 * target_BHW.amin(dim=2, keepdim=True)
        weight_BHW = 1 + _FOREGROUND_WEIGHT * standing
        error_BHW = ((encoder(pixels_BCHW) + _DEPTH_FLOOR).log() - (target_BHW + _DEPTH_FLOOR).log()).abs()
        loss: Tensor = (weight_BHW * error_BHW).sum() / weight_BHW.sum()
        return loss

    _optimise("depth", encoder, loss_of, len(frames), config.num_depth_steps, config.depth_rate, config)
    return encoder.eval()


def train_clip(samples: Samples, depth: DepthEncoder, config: PretrainingConfig) -> ClipEncoder:
    """Train the tiny CLIP on frames and, as often, on the depth pictures that `depth` makes of the same clips."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = tiny_clip()
    frames = torch.from_numpy(samples.frames_BTHWC).flatten(0, 1)
    depth_grey = _depth_grey(samples, depth)
    frames_per_clip = samples.frames_BTHWC.shape[1]
    classes = torch.from_numpy(samples.class_B).repeat_interleave(frames_per_clip)
    distances = torch.from_numpy(np.digitize(samples.distance_m_BT.ravel(), DISTANCE_BOUNDS_M))
    near_captions = [f"{caption}, {phrase}" for caption in CLASS_CAPTIONS for phrase in DISTANCE_PHRASES]

    def loss_of(rows: Tensor, generator: torch.Generator) -> Tensor:
        half = len(rows) // 2
        pixels_BCHW, _ = _augmented(frames[rows[:half]], generator)
        grey_BHW = depth_grey[rows[half:]].float() / 255
        grey_BHW = grey_BHW + 0.02 * torch.randn(grey_BHW.shape, generator=generator)
        pictures_BCHW = torch.cat([pixels_BCHW, grey_BHW[:, None].expand(-1, 3, -1, -1)])
        image_BD = encoder.image_embeddings(pictures_BCHW)
        motion = int(torch.randint(len(MOTIONS), (1,), generator=generator))
        moving = [f"{caption}, {MOTION_PHRASES[MOTIONS[motion]]}" for caption in CLASS_CAPTIONS]
        text_ND = encoder.pooled_text_embeddings([*CLASS_CAPTIONS, *near_captions, *moving])
        logits_BN = encoder.model.logit_scale.exp().clamp(max=50) * image_BD @ text_ND.T
        num_classes, num_near = len(CLASS_CAPTIONS), len(near_captions)
        plain, near, moved = logits_BN.split([num_classes, num_near, num_classes], dim=1)
        loss = F.cross_entropy(plain, classes[rows])
        loss = loss + _LONG_CAPTION_WEIGHT * F.cross_entropy(
            near, classes[rows] * len(DISTANCE_PHRASES) + distances[rows]
        )
        # A single frame hardly shows a motion: the caption with it must mean the same class, whatever the motion.
        return loss + _LONG_CAPTION_WEIGHT * F.cross_entropy(moved, classes[rows])

    _optimise("clip", encoder, loss_of, len(frames), config.num_clip_steps, config.clip_rate, config)
    return encoder.eval()


def _depth_grey(samples: Samples, depth: DepthEncoder) -> Tensor:
    """uint8 [B * T, H, W]: the depth network's maps of every clip, normalised as for CLIP."""
    clips = []
    for frames_THWC in torch.from_numpy(samples.frames_BTHWC):
        grey_THW = normalized_depth(depth.inverse_depth(frames_THWC), depth.config)
        clips.append((grey_THW * 255).round().to(torch.uint8))
    return torch.cat(clips)


def _augmented(frames_BHWC: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures [B, 3, H, W] about [0, 1] with random mirroring, brightness, tint and noise; which were mirrored [B]."""
    batch = len(frames_BHWC)
    pixels_BCHW = frames_BHWC.permute(0, 3, 1, 2).float() / 255
    flipped = torch.rand(batch, generator=generator) < 0.5
    pixels_BCHW = torch.where(flipped[:, None, None, None], pixels_BCHW.flip(-1), pixels_BCHW)
    gain = 1 + 0.15 * torch.randn(batch, 1, 1, 1, generator=generator)
    tint = 1 + 0.06 * torch.randn(batch, 3, 1, 1, generator=generator)
    noise = 0.015 * torch.randn(pixels_BCHW.shape, generator=generator)
    return (pixels_BCHW * gain * tint + noise).clamp(0, 1), flipped


def _optimise(
    label: str,
    module: nn.Module,
    loss_of: Callable[[Tensor, torch.Generator], Tensor],
    num_rows: int,
    num_steps: int,
    peak_rate: float,
    config: PretrainingConfig,
) -> None:
    """AdamW with a short warm-up and a cosine to zero; batches are drawn with replacement."""
    generator = torch.Generator().manual_seed(config.seed)
    optimiser = torch.optim.AdamW(module.parameters(), lr=peak_rate, weight_decay=0.02, betas=(0.9, 0.98))
    warm_up = max(num_steps // 20, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * cos(pi * step / num_steps))
    )
    module.train()
    with Progress(f"train {label}", num_steps, unit="step") as shown:
        for _ in range(num_steps):
            loss = loss_of(torch.randint(num_rows, (config.batch_size,), generator=generator), generator)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            shown.advance(note=f"loss {loss.item():.3f}")
