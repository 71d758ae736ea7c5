"""CLIP, built with open_clip: image embeddings of frames and depth maps, and text features per token.

MMAudio (section 3.2 and its published code) uses the image embedding of every frame at 8 fps, and for text the 77
hidden states after the final norm, before pooling and projection; both are L2-normalised.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dmma_core.encoders.loading import network_fingerprint
from dmma_core.encoders.torchvision_shim import import_open_clip
from dmma_core.errors import WeightsError
from dmma_core.models.matmul import use_fast_linear
from dmma_core.storage.state_dicts import load_strictly, read_state_dict

MEAN = (0.48145466, 0.4578275, 0.40821073)  # of CLIP's training images (OpenAI's CLIP, shared by DFN5B)
STD = (0.26862954, 0.26130258, 0.27577711)
TINY_WEIGHTS = Path(__file__).parent / "tiny_weights" / "clip.safetensors"


class Tokenizer(Protocol):
    """Captions to token ids, int64 [n, N], padded with 0."""

    def __call__(self, texts: list[str]) -> Tensor: ...


@dataclass(frozen=True)
class ClipTower:
    """Size of one of CLIP's two towers. `head_width` is the width of one attention head.

    An image tower with four numbers of blocks is CLIP's ResNet: `width` is that of its stem, and `head_width`
    that of its attention pooling, over 32 x `width` channels.
    """

    width: int
    num_blocks: int | tuple[int, int, int, int]
    head_width: int
    mlp_ratio: float = 4.0


@dataclass(frozen=True)
class ClipConfig:
    """Architecture of a CLIP. `input_size` is the side of its input frames in pixels.

    It may exceed `grid_size`, the side that the patch grid covers: the last rows and columns are then ignored, as the
    published models do with 384 and 378.
    """

    name: str
    input_size: int
    grid_size: int
    patch_size: int
    embed_dim: int
    vision: ClipTower
    text: ClipTower
    vocabulary_size: int = 49408
    num_tokens: int = 77
    quick_gelu: bool = True
    byte_tokens: bool = False


DFN5B_VIT_H_14_384 = ClipConfig(
    name="DFN5B-CLIP-ViT-H-14-384",
    input_size=384,
    grid_size=378,
    patch_size=14,
    embed_dim=1024,
    vision=ClipTower(width=1280, num_blocks=32, head_width=80),
    text=ClipTower(width=1024, num_blocks=24, head_width=64),
)
TINY = ClipConfig(
    name="tiny-clip",
    input_size=96,
    grid_size=96,
    patch_size=16,
    embed_dim=64,
    vision=ClipTower(width=12, num_blocks=(1, 1, 1, 1), head_width=48),  # convolutions need less training data
    text=ClipTower(width=64, num_blocks=2, head_width=16, mlp_ratio=2.0),
    vocabulary_size=260,
    byte_tokens=True,
)


class ByteTokenizer:
    """UTF-8 bytes as tokens: padding 0, byte b is b + 1, start 257, end 258 (the largest, where CLIP pools)."""

    START, END = 257, 258

    def __init__(self, num_tokens: int) -> None:
        self.num_tokens = num_tokens

    def __call__(self, texts: list[str]) -> Tensor:
        tokens = torch.zeros(len(texts), self.num_tokens, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            data = text.lower().encode()[: self.num_tokens - 2]
            ids = [self.START, *(byte + 1 for byte in data), self.END]
            row[: len(ids)] = torch.tensor(ids)
        return tokens


class ClipEncoder(nn.Module):
    """Frames and captions to features. `model` is open_clip's CLIP, a plain trainable module.

    The `encode_*` functions don't track gradients; training uses `image_embeddings` and `pooled_text_embeddings`.
    """

    def __init__(self, config: ClipConfig, images_per_batch: int = 128) -> None:
        super().__init__()
        self.config = config
        self.images_per_batch = images_per_batch
        open_clip = import_open_clip()
        self.model = open_clip.model.CLIP(
            embed_dim=config.embed_dim,
            vision_cfg={
                **_tower(config.vision),
                "head_width": config.vision.head_width,
                "patch_size": config.patch_size,
                "image_size": config.grid_size,
            },
            text_cfg={
                **_tower(config.text),
                "heads": config.text.width // config.text.head_width,
                "context_length": config.num_tokens,
                "vocab_size": config.vocabulary_size,
            },
            quick_gelu=config.quick_gelu,
        )
        use_fast_linear(self.model)
        self.tokenize: Tokenizer = (
            ByteTokenizer(config.num_tokens)
            if config.byte_tokens
            else open_clip.tokenizer.SimpleTokenizer(context_length=config.num_tokens)
        )
        self._set_constants()

    @classmethod
    def from_state(cls, config: ClipConfig, state: Mapping[str, Tensor], where: str) -> "ClipEncoder":
        """Encoder with the weights of an open_clip state dict, without initialising the 10^9 parameters first.

        Raises WeightsError where the weights do not fit.
        """
        with torch.device("meta"):
            encoder = cls(config)
        load_strictly(encoder.model, state, config.name, where)
        encoder._set_constants()
        return encoder.eval()

    def _set_constants(self) -> None:
        """Set what no state dict contains: the normalisation constants and the causal attention mask."""
        self.register_buffer("mean_C", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std_C", torch.tensor(STD).view(3, 1, 1), persistent=False)
        num_tokens = self.config.num_tokens
        mask_NN = torch.full((num_tokens, num_tokens), float("-inf")).triu(1)
        self.model.register_buffer("attn_mask", mask_NN, persistent=False)

    def image_embeddings(self, pixels_BCHW: Tensor) -> Tensor:
        """L2-normalised embeddings [B, D] of images [B, 3, H, W] in [0, 1].

        Raises ValueError where H and W are not `config.input_size`.
        """
        size = (self.config.input_size, self.config.input_size)
        if pixels_BCHW.shape[-2:] != size:
            raise ValueError(f"CLIP {self.config.name} expects images of {size}, not {tuple(pixels_BCHW.shape[-2:])}.")
        embeddings_BD: Tensor = self.model.encode_image(self.normalized(pixels_BCHW).to(self._dtype), normalize=True)
        return embeddings_BD

    def normalized(self, pixels_BCHW: Tensor) -> Tensor:
        """Images in [0, 1], normalised by mean and standard deviation of CLIP's training images."""
        return (pixels_BCHW - self.get_buffer("mean_C")) / self.get_buffer("std_C")

    def pooled_text_embeddings(self, captions: Sequence[str]) -> Tensor:
        """L2-normalised caption embeddings [n, D] in the space of the image embeddings (for retrieval and training)."""
        embeddings_BD: Tensor = self.model.encode_text(self._tokens(captions), normalize=True)
        return embeddings_BD

    @torch.inference_mode()
    def encode_pixels(self, pixels_BCHW: Tensor) -> Tensor:
        """float32 embeddings [n, D] of images [n, 3, H, W] in [0, 1], in batches of `images_per_batch`."""
        chunks = [
            self.image_embeddings(chunk_BCHW.to(self.device, torch.float32)).float()
            for chunk_BCHW in torch.split(pixels_BCHW, self.images_per_batch)
        ]
        return torch.cat(chunks)

    @torch.inference_mode()
    def encode_images(self, frames_THWC: Tensor) -> Tensor:
        """float32 embeddings [n, D] of uint8 frames [n, H, W, 3], in batches of `images_per_batch`."""
        chunks = [
            self.encode_pixels(chunk_THWC.to(self.device).permute(0, 3, 1, 2).float() * (1 / 255))
            for chunk_THWC in torch.split(frames_THWC, self.images_per_batch)
        ]
        return torch.cat(chunks)

    @torch.inference_mode()
    def encode_text(self, captions: Sequence[str]) -> Tensor:
        """float32 [n, N, D_text]: hidden states after the final norm, each token L2-normalised."""
        return F.normalize(self.text_hidden_states(captions).float(), dim=-1)

    def text_hidden_states(self, captions: Sequence[str]) -> Tensor:
        """[n, N, D_text] after the final norm, not normalised."""
        model, tokens_BN = self.model, self._tokens(captions)
        hidden_BND = model.token_embedding(tokens_BN) + model.positional_embedding
        hidden_BND = model.transformer(hidden_BND.to(self._dtype), attn_mask=model.attn_mask)
        normed_BND: Tensor = model.ln_final(hidden_BND)
        return normed_BND

    def fingerprint(self) -> str:
        """Identifies architecture, precision and weights."""
        return network_fingerprint(asdict(self.config), self.model)

    def _tokens(self, captions: Sequence[str]) -> Tensor:
        return self.tokenize(list(captions)).to(self.device)

    @property
    def device(self) -> torch.device:
        return self.get_buffer("mean_C").device

    @property
    def _dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.model.visual.conv1.weight.dtype
        return dtype


def tiny_clip(weights: str | None = None) -> ClipEncoder:
    """The tiny CLIP, with the weights of a file, or untrained where `weights` is None (for training only)."""
    if weights is None:
        return ClipEncoder(TINY).eval()
    return ClipEncoder.from_state(TINY, read_state_dict(weights), weights)


def full_clip(weights: str) -> ClipEncoder:
    """DFN5B ViT-H/14 at 384 pixels, with its published weights (`open_clip_pytorch_model.bin` or safetensors).

    Raises WeightsError.
    """
    state = read_state_dict(weights)
    if "visual.conv1.weight" not in state:
        raise WeightsError(
            f"{weights} contains no open_clip model.", remedy="Use open_clip_pytorch_model.bin of DFN5B."
        )
    return ClipEncoder.from_state(DFN5B_VIT_H_14_384, state, weights)


def _tower(tower: ClipTower) -> dict[str, Any]:
    return {"width": tower.width, "layers": tower.num_blocks, "mlp_ratio": tower.mlp_ratio}
