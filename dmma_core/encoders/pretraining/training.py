"""Training of the tiny CLIP and the tiny depth network on rendered clips, from random weights, on a CPU, in minutes.

The depth network learns inverse depth in 1/m, so its maps keep one scale over all clips. CLIP's text tower first learns to
put captions where a class and a distance or motion are directions that add up; then its image tower learns to put
frames, and depth pictures, at their captions (the image side against a locked text side).
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
ASIDES = (*DISTANCE_PHRASES, *(MOTION_PHRASES[motion] for motion in MOTIONS))
LONG_CAPTIONS = tuple(
    (f"{caption}, {aside}", number, place)
    for number, caption in enumerate(CLASS_CAPTIONS)
    for place, aside in enumerate(ASIDES)
)
"""Captions with a distance or a motion: text, number of the class, number of the aside."""
_NUM_DISTANCES = len(DISTANCE_PHRASES)
_NEAR_WEIGHT = 0.3  # of the loss over captions with a distance, beside the one over plain captions
_DEPTH_FLOOR = 0.02  # inverse depth (1/m) below which differences stop to matter
_FOREGROUND_WEIGHT = 6.0


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

    def loss_of(rows: Tensor, done: float, generator: torch.Generator) -> Tensor:
        flipped = torch.rand(len(rows), generator=generator) < 0.5
        pixels_BCHW = _mirrored(_augmented(frames[rows], generator), flipped)
        target_BHW = _mirrored(targets[rows].float(), flipped)
        # Ground and sky have one depth per row; what is nearer than its row's farthest point stands on the ground.
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
    """Train the tiny CLIP on frames and, an eighth of every batch, on the depth pictures that `depth` makes of them.

    At first most pictures are random crops that keep the object: small things are learned from large ones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = tiny_clip()
    _train_text(encoder, config)
    plain_GD = encoder.pooled_text_embeddings(CLASS_CAPTIONS).detach()
    near_GD = encoder.pooled_text_embeddings(
        [text for text, _, aside in LONG_CAPTIONS if aside < _NUM_DISTANCES]
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
        pictures_BCHW = torch.cat([pixels_BCHW, grey_BCHW])
        cropped_BCHW, whole = _cropped(pictures_BCHW, places[rows], done, generator)
        image_BD = scale * encoder.image_embeddings(cropped_BCHW)
        loss = F.cross_entropy(image_BD @ plain_GD.T, classes[rows])
        if bool(whole.any()):  # a crop does not show how far away things are
            near_targets = classes[rows] * _NUM_DISTANCES + distances[rows]
            loss = loss + _NEAR_WEIGHT * F.cross_entropy((image_BD @ near_GD.T)[whole], near_targets[whole])
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
    """Captions to orthogonal directions: one for the class, plus half of one for the distance or motion, if any."""
    captions = [*((text, number, None) for number, text in enumerate(CLASS_CAPTIONS)), *LONG_CAPTIONS]
    num_directions = len(CLASS_CAPTIONS) + len(ASIDES)
    noise = torch.randn(num_directions, encoder.config.embed_dim, generator=torch.Generator().manual_seed(config.seed))
    directions = torch.linalg.qr(noise.T).Q.T
    sides = torch.stack(
        [
            0.5 * directions[len(CLASS_CAPTIONS) + aside] if aside is not None else torch.zeros_like(directions[0])
            for _, _, aside in captions
        ]
    )
    aims_GD = F.normalize(directions[torch.tensor([number for _, number, _ in captions])] + sides, dim=-1)

    def loss_of(rows: Tensor, done: float, generator: torch.Generator) -> Tensor:
        text_BD = encoder.pooled_text_embeddings([captions[row][0] for row in rows.tolist()])
        return (1 - (text_BD * aims_GD[rows]).sum(dim=1)).mean()

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
    """uint8 [B * T, H, W]: the depth network's maps of every clip, normalised as for CLIP."""
    clips = []
    for frames_THWC in torch.from_numpy(samples.frames_BTHWC):
        grey_THW = normalized_depth(depth.inverse_depth(frames_THWC), depth.config)
        clips.append((grey_THW * 255).round().to(torch.uint8))
    return torch.cat(clips)


def _augmented(frames_BHWC: Tensor, generator: torch.Generator) -> Tensor:
    """Pictures [B, 3, H, W] in [0, 1] with random brightness, tint and noise."""
    batch = len(frames_BHWC)
    pixels_BCHW = frames_BHWC.permute(0, 3, 1, 2).float() / 255
    gain = 1 + 0.15 * torch.randn(batch, 1, 1, 1, generator=generator)
    tint = 1 + 0.06 * torch.randn(batch, 3, 1, 1, generator=generator)
    noise = 0.015 * torch.randn(pixels_BCHW.shape, generator=generator)
    return (pixels_BCHW * gain * tint + noise).clamp(0, 1)


def _mirrored(pictures: Tensor, flipped_B: Tensor) -> Tensor:
    """Pictures [B, ..., W] of which those marked are mirrored."""
    return torch.where(flipped_B.view(-1, *[1] * (pictures.dim() - 1)), pictures.flip(-1), pictures)


def _cropped(pixels_BCHW: Tensor, places_B2: Tensor, done: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pictures whole or cropped to 0.3 to 1 of their side around the object, mirrored at random. The share of whole ones
    grows from none to all while training goes on (`done` from 0 to 1): small things are learned from large ones.

    places_B2: column and row of the object, -1 to 1. Returns the pictures in their old size and which are whole [B].
    """
    batch = len(pixels_BCHW)
    whole = torch.rand(batch, generator=generator) < done
    side = torch.where(whole, 1.0, 0.3 + 0.7 * torch.rand(batch, generator=generator))[:, None]
    jitter = 0.6 * side * (2 * torch.rand(batch, 2, generator=generator) - 1)
    centre = torch.maximum(torch.minimum(places_B2 + jitter, 1 - side), side - 1)
    mirror = 1 - 2 * (torch.rand(batch, generator=generator) < 0.5).float()
    affine = torch.zeros(batch, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1], affine[:, :, 2] = side[:, 0] * mirror, side[:, 0], centre
    grid = F.affine_grid(affine, list(pixels_BCHW.shape), align_corners=False)
    return F.grid_sample(pixels_BCHW, grid, padding_mode="border", align_corners=False), whole


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
    """AdamW with a short warm-up and a cosine to zero; batches are drawn with replacement."""
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
