"""Mel spectrograms and resampling equal the published ones."""

import numpy as np
import pytest
import torch

from dmma_core.models.audio_codec.mel import MEL_16K, MEL_44K, MelSpectrogram
from dmma_core.models.audio_codec.resample import resample
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
            wave_BA = file[f"in.{kind}"].reshape(1, -1)
        log_mel = mel(wave_BA)
        assert_close(log_mel.exp(), file[key].exp())
        if kind.startswith("audio"):
            assert_close(log_mel, file[key])


def test_resampling() -> None:
    file = golden_file("resample_kaiser")
    native_rate_hz = file.meta["native_sr"]
    native_BA = file["in.wave_native_2s"][None]
    for key in file.names():
        if key.startswith("resampled_"):
            rate_hz = {"16k": 16_000, "44k": 44_100}[key.removeprefix("resampled_")]
            expected = file[key]
            assert_close(resample(native_BA, native_rate_hz, rate_hz)[0, : len(expected)], expected)
        elif key.startswith("noise_"):
            before, _, after = key.removeprefix("noise_").partition("_to_")
            assert_close(resample(file["in.noise"][None], int(before), int(after))[0], file[key])


def test_a_tone_keeps_level_and_phase() -> None:
    seconds = np.arange(44_100) / 44_100
    tone_BA = torch.tensor(np.sin(2 * np.pi * 1000 * seconds), dtype=torch.float32)[None]
    expected = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    inner = slice(500, -500)
    assert np.abs(resample(tone_BA, 44_100, 16_000)[0].numpy()[inner] - expected[inner]).max() < 1e-4
