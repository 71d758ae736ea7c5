"""The features that the flow network is conditioned on, as stored in a feature row."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True)
class ConditionFeatures:
    """Features of B clips, in the network's dtype. T frames at 8 fps, S Synchformer tokens at 24 fps, N text tokens.

    `present_*_B` are bool [B]: where False the network uses the learned empty token of that condition and ignores the
    tensor. Video conditions, depth and text are dropped independently of each other.
    """

    rgb_BTD: Tensor
    depth_BTD: Tensor
    depth_scalars_BTK: Tensor
    sync_BSD: Tensor
    text_BND: Tensor
    present_video_B: Tensor
    present_depth_B: Tensor
    present_text_B: Tensor

    def to(self, device: torch.device) -> "ConditionFeatures":
        """The same features on `device`."""
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return ConditionFeatures(**{name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})
