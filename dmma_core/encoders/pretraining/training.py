"""Training of the tiny CLIP and the tiny depth network on rendered clips, from random weights, on a CPU, in minutes.

The depth network learns inverse depth in 1/m, so its scale is the same for all clips. CLIP's text tower first learns to
embed captions as sums of one direction for the class and one for the distance or motion. Then its image tower is
trained on frames and depth images against the frozen text tower.
"""

from collections.abc import Callable, Sequence
from math import cos, pi

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.data.scenes import MOTIONS, OBJECT_CLASSES
from dmma_core.data.scenes.world import KINDS, MOTION_PHRASES
from dmma_core.encoders.clip import ClipEncoder, tiny_clip
from dmma_core.encoders.depth import DepthEncoder, normalized_depth, tiny_depth
from dmma_core.encoders.pretraining.config import PretrainingConfig
from dmma_core.encoders.pretraining.data import SIDE, Samples
from dmma_core.log import Progress

CLASS_CAPTIONS = tuple(KINDS[name].phrase for name in OBJECT_CLASSES)
DISTANCE_PHRASES = ("close by", "some way off", "far away")
DISTANCE_BOUNDS_M = (4.0, 8.0)
ATTRIBUTE_PHRASES = (*DISTANCE_PHRASES, *(MOTION_PHRASES[motion] for motion in MOTIONS))
LONG_CAPTIONS = tuple(
    (f"{caption}, {phrase}", label, attribute)
    for label, caption in enumerate(CLASS_CAPTIONS)
    for attribute, phrase in enumerate(ATTRIBUTE_PHRASES)
)
"""Captions with a distance or a motion: text, index of the class, index in ATTRIBUTE_PHRASES."""
_NUM_DISTANCES = len(DISTANCE_PHRASES)
_NEAR_WEIGHT = 0.3  # of the loss over captions with a distance, relative to that over class captions
_DEPTH_FLOOR = 0.02  # added to inverse depth (1/m) before the logarithm: differences below matter little
_FOREGROUND_WEIGHT = 6.0


def train_depth(samples: Samples, config: PretrainingConfig) -> DepthEncoder:
    """Train the tiny depth network. Weighted L1 loss on the logarithm of inverse depth: objects on the ground have a
    higher weight, because they cover few pixels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = tiny_depth()
    frames = torch.from_numpy(samples.frames_BTHWC).flatten(0, 1)
    targets = torch.from_numpy(samples.inverse_depth_BTHW).flatten(0, 1)
    with torch.no_grad():  # initial output in the middle of the range, where the last ReLU has gradients
        encoder.network.get_submodule("scratch.output_conv.4").get_parameter("bias").fill_(0.1)

    def loss_of(rows: Tensor, done: float, generator: torch.Generator) -> Tensor:
        flipped = torch.rand(len(rows), generator=generator) < 0.5
        pixels_BCHW = _mirrored(_augmented(frames[rows], generator), flipped)
        target_BHW = _mirrored(targets[rows].float(), flipped)
        # Ground and sky have one depth per row; pixels nearer than the farthest of their row belong to objects.
        standing = target_BHW > 1.05 * target_BHW.amin(dim=2, keepdim=True)
        weight_BHW = 1 + _FOREGROUND_WEIGHT * standing
        error_BHW = ((encoder(pixels_BCHW) + _DEPTH_FLOOR).log() - (target_BHW + _DEPTH_FLOOR).log()).abs()
        loss: Tensor = (weight_BHW * error_BHW).sum() / weight_BHW.sum()
        return loss

    _optimise(
        "depth",
        encoder,
        list(encoder.parameters()),
        loss_of,
        config.num_depth_steps,
        config.depth_rate,
        config.depth_batch_size,
        config.seed,
        len(frames),
    )
    return encoder.eval()


def train_clip(samples: Samples, depth: DepthEncoder, config: PretrainingConfig) -> ClipEncoder:
    """Train the tiny CLIP on frames and, for an eighth of every batch, on their depth images by `depth`.

    At first most images are random crops around the object, which make small objects easier to learn.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = tiny_clip()
    _train_text(encoder, config)
    plain_GD = encoder.pooled_text_embeddings(CLASS_CAPTIONS).detach()
    near_GD = encoder.pooled_text_embeddings(
        [text for text, _, attribute in LONG_CAPTIONS if attribute < _NUM_DISTANCES]
    ).detach()
    scale = encoder.model.logit_scale.detach().exp()
    frames = torch.from_numpy(samples.frames_BTHWC).flatten(0, 1)
    depth_grey = _depth_grey(samples, depth)
    places = torch.from_numpy(np.stack([samples.column_BT.ravel(), samples.row_BT.ravel()], axis=1)) * (2 / SIDE) - 1
    classes = torch.from_numpy(samples.class_B).repeat_interleave(samples.frames_BTHWC.shape[1])
    distances = torch.from_numpy(np.digitize(samples.distance_m_BT.ravel(), DISTANCE_BOUNDS_M))

    def loss_of(rows: Tensor, done: float, generator: torch.Generator) -> Tensor:
        num_frames = len(rows) * 7 // 8
        pixels_BCHW = _augmented(frames[rows[:num_frames]], generator)
        grey_BCHW = (depth_grey[rows[num_frames:], None].float() / 255).expand(-1, 3, -1, -1)
        images_BCHW = torch.cat([pixels_BCHW, grey_BCHW])
        cropped_BCHW, uncropped = _cropped(images_BCHW, places[rows], done, generator)
        image_BD = scale * encoder.image_embeddings(cropped_BCHW)
        loss = F.cross_entropy(image_BD @ plain_GD.T, classes[rows])
        if bool(uncropped.any()):  # crops do not show the distance
            near_targets = classes[rows] * _NUM_DISTANCES + distances[rows]
            loss = loss + _NEAR_WEIGHT * F.cross_entropy((image_BD @ near_GD.T)[uncropped], near_targets[uncropped])
        return loss

    parameters = list(encoder.model.visual.parameters())
    _optimise(
        "clip",
        encoder,
        parameters,
        loss_of,
        config.num_clip_steps,
        config.clip_rate,
        config.clip_batch_size,
        config.seed,
        len(frames),
    )
    return encoder.eval()


def _train_text(encoder: ClipEncoder, config: PretrainingConfig) -> None:
    """Train the text tower: targets are sums of orthogonal directions, one per class and half of one per attribute."""
    captions = [*((text, label, None) for label, text in enumerate(CLASS_CAPTIONS)), *LONG_CAPTIONS]
    num_directions = len(CLASS_CAPTIONS) + len(ATTRIBUTE_PHRASES)
    noise = torch.randn(num_directions, encoder.config.embed_dim, generator=torch.Generator().manual_seed(config.seed))
    directions = torch.linalg.qr(noise.T).Q.T
    attributes_GD = torch.stack(
        [
            0.5 * directions[len(CLASS_CAPTIONS) + attribute]
            if attribute is not None
            else torch.zeros_like(directions[0])
            for _, _, attribute in captions
        ]
    )
    targets_GD = F.normalize(directions[torch.tensor([label for _, label, _ in captions])] + attributes_GD, dim=-1)

    def loss_of(rows: Tensor, done: float, generator: torch.Generator) -> Tensor:
        text_BD = encoder.pooled_text_embeddings([captions[row][0] for row in rows.tolist()])
        return (1 - (text_BD * targets_GD[rows]).sum(dim=1)).mean()

    parameters = [value for name, value in encoder.model.named_parameters() if not name.startswith("visual.")]
    _optimise(
        "text",
        encoder,
        parameters,
        loss_of,
        config.num_text_steps,
        config.clip_rate,
        config.clip_batch_size,
        config.seed,
        len(captions),
    )


def _depth_grey(samples: Samples, depth: DepthEncoder) -> Tensor:
    """uint8 [B * T, H, W]: the depth network's maps, normalised per clip as for CLIP."""
    clips = []
    for frames_THWC in torch.from_numpy(samples.frames_BTHWC):
        grey_THW = normalized_depth(depth.inverse_depth(frames_THWC), depth.config)
        clips.append((grey_THW * 255).round().to(torch.uint8))
    return torch.cat(clips)


def _augmented(frames_BHWC: Tensor, generator: torch.Generator) -> Tensor:
    """Images [B, 3, H, W] in [0, 1] with random brightness, tint and noise."""
    batch = len(frames_BHWC)
    pixels_BCHW = frames_BHWC.permute(0, 3, 1, 2).float() / 255
    gain = 1 + 0.15 * torch.randn(batch, 1, 1, 1, generator=generator)
    tint = 1 + 0.06 * torch.randn(batch, 3, 1, 1, generator=generator)
    noise = 0.015 * torch.randn(pixels_BCHW.shape, generator=generator)
    return (pixels_BCHW * gain * tint + noise).clamp(0, 1)


def _mirrored(images: Tensor, flipped_B: Tensor) -> Tensor:
    """Images [B, ..., W], mirrored where `flipped_B` is True."""
    return torch.where(flipped_B.view(-1, *[1] * (images.dim() - 1)), images.flip(-1), images)


def _cropped(pixels_BCHW: Tensor, places_B2: Tensor, done: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Images randomly cropped to 0.3 to 1 of their side around the object, resized back, randomly mirrored.

    The share of uncropped images grows from 0 to 1 with `done`, the progress of training (0 to 1). places_B2: column
    and row of the object, -1 to 1. Returns the images and a mask [B] of the uncropped ones.
    """
    batch = len(pixels_BCHW)
    uncropped = torch.rand(batch, generator=generator) < done
    side = torch.where(uncropped, 1.0, 0.3 + 0.7 * torch.rand(batch, generator=generator))[:, None]
    jitter = 0.6 * side * (2 * torch.rand(batch, 2, generator=generator) - 1)
    centre = torch.maximum(torch.minimum(places_B2 + jitter, 1 - side), side - 1)
    mirror = 1 - 2 * (torch.rand(batch, generator=generator) < 0.5).float()
    affine = torch.zeros(batch, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = side[:, 0] * mirror, side[:, 0], centre
    grid = F.affine_grid(affine, list(pixels_BCHW.shape), align_corners=False)
    return F.grid_sample(pixels_BCHW, grid, padding_mode="border", align_corners=False), uncropped


def _optimise(
    label: str,
    module: nn.Module,
    parameters: Sequence[nn.Parameter],
    loss_of: Callable[[Tensor, float, torch.Generator], Tensor],
    num_steps: int,
    peak_rate: float,
    batch_size: int,
    seed: int,
    num_rows: int,
) -> None:
    """AdamW with a short warm-up and a cosine decay to zero; batches are sampled with replacement."""
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(parameters, lr=peak_rate, weight_decay=0.02, betas=(0.9, 0.98))
    warm_up = max(num_steps // 20, 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warm_up, 0.5 + 0.5 * cos(pi * step / num_steps))
    )
    module.train()
    with Progress(f"train {label}", num_steps, unit="step") as shown:
        for step in range(num_steps):
            rows = torch.randint(num_rows, (batch_size,), generator=generator)
            loss = loss_of(rows, step / num_steps, generator)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(parameters, 1.0)
            optimiser.step()
            schedule.step()
            shown.advance(note=f"loss {loss.item():.3f}")
