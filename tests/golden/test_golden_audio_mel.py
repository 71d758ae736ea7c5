"""Mel spectrograms and resampling equal the published ones."""

import pytest
import torch

from dmma_core.models.audio_codec.mel import MEL_16K, MEL_44K, MelSpectrogram
from dmma_core.storage.media.resample import resample
from helpers.golden import assert_close, golden_file

CONFIGS = {"mel_16k": MEL_16K, "mel_44k": MEL_44K}


@pytest.mark.parametrize("name", CONFIGS)
def test_log_mel(name: str) -> None:
    file = golden_file(name)
    mel = MelSpectrogram(CONFIGS[name])
    assert_close(mel.mel_basis_MK, file["mel_basis"])
    assert_close(mel.window, file["hann_window"])
    for key in file.names():
        kind = key.removeprefix("mel.")
        if kind == key:
            continue
        if kind.startswith("silence"):
            wave_BA = torch.zeros(1, int(kind.removeprefix("silence")))
        else:
            wave_BA = torch.atleast_2d(file[f"in.{kind}"])
        log_mel = mel(wave_BA)
        assert_close(log_mel.exp(), file[key].exp())
        if kind.startswith("audio"):
            assert_close(log_mel, file[key])


def test_resampling() -> None:
    file = golden_file("resample_kaiser")
    for key in file.names():
        if key.startswith("resampled_"):
            rates_hz = file.meta["native_sr"], {"16k": 16_000, "44k": 44_100}[key.removeprefix("resampled_")]
            native_A = file.array("in.wave_native_2s")
        elif key.startswith("noise_"):
            before, _, after = key.removeprefix("noise_").partition("_to_")
            rates_hz, native_A = (int(before), int(after)), file.array("in.noise")
        else:
            continue
        expected_A = file[key]
        made_A = torch.from_numpy(resample(native_A, *rates_hz))
        if key.startswith("noise_"):
            assert len(made_A) == len(expected_A)
        assert_close(made_A[: len(expected_A)], expected_A)
