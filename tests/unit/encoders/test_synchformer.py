"""Synchformer: lengths, segments, and the properties of the random stand-in."""

import pytest
import torch

from dmma_core.encoders.loading import fill_with_random_weights
from dmma_core.encoders.synchformer import (
    FEATURES_PER_SEGMENT,
    SEGMENT_STEP,
    TINY_RANDOM,
    SynchformerEncoder,
    num_sync_features,
    tiny_random_synchformer,
)
from dmma_core.errors import WeightsError


@pytest.fixture(scope="module")
def encoder() -> SynchformerEncoder:
    return tiny_random_synchformer()


def _frames(num_frames: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(num_frames)
    side = TINY_RANDOM.image_size
    return torch.randint(0, 256, (1, num_frames, side, side, 3), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("num_frames", "num_features"), [(15, 0), (16, 8), (23, 8), (24, 16), (100, 88), (200, 192)])
def test_lengths_are_those_of_the_paper(num_frames: int, num_features: int) -> None:
    assert num_sync_features(num_frames) == num_features


def test_a_segment_depends_on_its_own_frames_only(encoder: SynchformerEncoder) -> None:
    frames_BTHWC = _frames(40)
    features_BSD = encoder.encode_frames(frames_BTHWC)
    assert features_BSD.shape == (1, num_sync_features(40), TINY_RANDOM.width)
    for segment in range(4):
        start = segment * SEGMENT_STEP
        alone_BSD = encoder.encode_frames(frames_BTHWC[:, start : start + 16])
        rows = slice(segment * FEATURES_PER_SEGMENT, (segment + 1) * FEATURES_PER_SEGMENT)
        torch.testing.assert_close(alone_BSD, features_BSD[:, rows], atol=1e-5, rtol=0)


def test_too_few_frames_and_another_size_are_refused(encoder: SynchformerEncoder) -> None:
    with pytest.raises(ValueError, match="at least 16 frames"):
        encoder.encode_frames(_frames(15))
    with pytest.raises(ValueError, match="64x64"):
        encoder.encode_frames(_frames(16)[:, :, :32])


def test_the_stand_in_is_deterministic_and_named_random(encoder: SynchformerEncoder) -> None:
    assert encoder.fingerprint() == tiny_random_synchformer().fingerprint()
    assert encoder.fingerprint().startswith("tiny-random:")


def test_the_stand_in_depends_more_on_motion_than_on_static_content(encoder: SynchformerEncoder) -> None:
    still_BTHWC = _frames(16)[:, :1].expand(-1, 16, -1, -1, -1)
    moving_BTHWC = torch.stack([still_BTHWC[:, i].roll(2 * i, dims=2) for i in range(16)], dim=1)
    still_BSD, moving_BSD = encoder.encode_frames(still_BTHWC), encoder.encode_frames(moving_BTHWC)
    assert moving_BSD.std(1).mean() > 2 * still_BSD.std(1).mean()


def test_audio_parts_are_ignored_and_a_file_without_the_visual_part_is_refused(
    encoder: SynchformerEncoder,
) -> None:
    state = {
        **encoder.state_dict(),
        "afeat_extractor.x": torch.zeros(1),
        "vfeat_extractor.patch_embed.proj.bias": torch.zeros(1),
    }
    other = fill_with_random_weights(SynchformerEncoder(TINY_RANDOM), "other")
    other.load(state, "a file")
    assert other.fingerprint() == encoder.fingerprint()
    with pytest.raises(WeightsError, match="no visual encoder"):
        other.load({"afeat_extractor.x": torch.zeros(1)}, "a file")
