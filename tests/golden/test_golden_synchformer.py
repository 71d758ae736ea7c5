"""Synchformer's visual encoder equals the published one."""

import pytest

from dmma_core.encoders.synchformer import SYNCHFORMER, SynchformerEncoder, num_sync_features
from helpers.golden import assert_close, fill_digest, fill_state_dict, golden_file, golden_shapes


@pytest.mark.slow
def test_features_are_the_published_ones() -> None:
    golden = golden_file("synchformer_visual")
    state = fill_state_dict(golden_shapes("synchformer_visual"), golden.meta["salt"])
    assert fill_digest(state) == golden.meta["fill"]["sha256"]
    encoder = SynchformerEncoder(SYNCHFORMER).eval()
    encoder.load(state, "the reference data")
    names = [name for name in golden.names() if name.startswith("in.frames_u8_")]
    assert names
    for name in names:
        frames_BTHWC = golden[name].permute(0, 1, 3, 4, 2)
        expected_BSD = golden[name.replace("in.frames_u8_", "features_")]
        assert expected_BSD.shape[1] == num_sync_features(frames_BTHWC.shape[1])
        assert_close(encoder.encode_frames(frames_BTHWC), expected_BSD)
