"""The tiny CLIP: shapes, norms, tokens and fingerprint."""

import pytest
import torch

from dmma_core.encoders.clip import TINY, ByteTokenizer, ClipEncoder, tiny_clip
from dmma_core.encoders.loading import fill_with_random_weights


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    return fill_with_random_weights(tiny_clip(), "clip")


def _frames(num_frames: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (num_frames, TINY.input_size, TINY.input_size, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_embeddings_have_norm_one_and_do_not_depend_on_the_batch(encoder: ClipEncoder) -> None:
    frames_THWC = _frames(5)
    embeddings_TD = encoder.encode_images(frames_THWC)
    assert embeddings_TD.shape == (5, TINY.embed_dim) and embeddings_TD.dtype == torch.float32
    torch.testing.assert_close(embeddings_TD.norm(dim=1), torch.ones(5))
    encoder.images_per_batch, whole = 2, encoder.images_per_batch
    chunked_TD = encoder.encode_images(frames_THWC)
    encoder.images_per_batch = whole
    torch.testing.assert_close(chunked_TD, embeddings_TD, atol=1e-6, rtol=0)


def test_pixels_and_bytes_have_the_same_embedding(encoder: ClipEncoder) -> None:
    frames_THWC = _frames(2)
    pixels_BCHW = frames_THWC.permute(0, 3, 1, 2).float() / 255
    torch.testing.assert_close(encoder.encode_pixels(pixels_BCHW), encoder.encode_images(frames_THWC))


def test_frames_of_another_size_are_refused(encoder: ClipEncoder) -> None:
    with pytest.raises(ValueError, match="expects images of"):
        encoder.encode_images(_frames(1)[:, :-1])


def test_every_text_token_has_norm_one_and_padding_comes_after_the_text(encoder: ClipEncoder) -> None:
    features_BND = encoder.encode_text(["a dog barks", "a dog barks far away", ""])
    assert features_BND.shape == (3, TINY.num_tokens, TINY.text.width)
    torch.testing.assert_close(features_BND.norm(dim=-1), torch.ones(3, TINY.num_tokens))
    common = 1 + len("a dog barks")  # start and the shared text: attention is causal
    torch.testing.assert_close(features_BND[0, :common], features_BND[1, :common])
    assert not torch.allclose(features_BND[0, common], features_BND[1, common])


def test_byte_tokens_of_any_text_fit_and_end_where_clip_pools() -> None:
    tokens_BN = ByteTokenizer(77)(["Dog", "犬 " * 100])
    assert tokens_BN[0, :5].tolist() == [257, ord("d") + 1, ord("o") + 1, ord("g") + 1, 258]
    assert tokens_BN[0, 5:].eq(0).all()
    assert tokens_BN.argmax(1).tolist() == [4, 76] and tokens_BN.max() < TINY.vocabulary_size


def test_training_has_gradients_and_the_temperature(encoder: ClipEncoder) -> None:
    images_BD = encoder.image_embeddings(torch.rand(2, 3, TINY.input_size, TINY.input_size))
    texts_BD = encoder.pooled_text_embeddings(["a", "b"])
    (encoder.model.logit_scale.exp() * (images_BD * texts_BD).sum()).backward()
    missing = [name for name, parameter in encoder.model.named_parameters() if parameter.grad is None]
    encoder.zero_grad()
    assert missing == []
