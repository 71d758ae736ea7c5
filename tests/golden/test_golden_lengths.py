"""Sequence lengths of every duration equal the published ones: latents, frames, sync features, samples."""

import pytest
from torch import Tensor

from dmma_core.encoders.bundle import RGB_FPS, SYNC_FPS
from dmma_core.encoders.synchformer import num_sync_features
from dmma_core.models.audio_codec.codec import AudioCodec, LatentPosterior
from dmma_core.models.audio_codec.mmaudio_codec import MODES, samples_per_latent
from dmma_core.storage.media import FrameRequest
from helpers.golden import golden_json


class _LengthsOnly(AudioCodec):
    """The rates of a codec, without its networks."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.sample_rate_hz = MODES[mode].mel.sample_rate_hz
        self.samples_per_latent = samples_per_latent(MODES[mode])

    def encode(self, wave_BA: Tensor) -> LatentPosterior:
        raise NotImplementedError

    def decode(self, latent_BLC: Tensor) -> Tensor:
        raise NotImplementedError

    def fingerprint(self) -> str:
        raise NotImplementedError


@pytest.mark.parametrize("mode", MODES)
def test_lengths(mode: str) -> None:
    codec = _LengthsOnly(mode)
    rgb, sync = (FrameRequest("any", fps, 8, 8, "squash") for fps in (RGB_FPS, SYNC_FPS))
    durations = {key: lengths for key, lengths in golden_json("sequence_config").items() if key.startswith(f"{mode}/")}
    assert durations
    assert all(key.partition("/")[0] in MODES for key in golden_json("sequence_config"))  # all are tested
    for key, published in durations.items():
        duration_s = float(key.partition("/")[2])
        assert {
            "latent_seq_len": codec.latent_length(duration_s),
            "clip_seq_len": rgb.num_frames(duration_s),
            "sync_seq_len": num_sync_features(sync.num_frames(duration_s)),
            "num_audio_frames": codec.num_samples(duration_s),
        } == published, key
