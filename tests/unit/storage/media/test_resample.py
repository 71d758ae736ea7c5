"""Resampling: level, phase and length at common rates, and rates without a common divisor."""

import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from dmma_core.errors import MediaError
from dmma_core.storage.media import decode_audio
from dmma_core.storage.media.resample import resample
from helpers.media import tone

COMMON_HZ = (8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)


@pytest.mark.parametrize("rate_hz", [*COMMON_HZ, 44_099, 96_000])
@pytest.mark.parametrize("new_rate_hz", [16_000, 44_100])
def test_a_tone_keeps_level_phase_and_length(rate_hz: int, new_rate_hz: int) -> None:
    num_samples = round(0.37 * rate_hz)
    made_A = resample(tone(1.0, rate_hz, 1000.0, 0.5)[:num_samples], rate_hz, new_rate_hz)
    assert made_A.dtype == np.float32
    assert len(made_A) == math.ceil(num_samples * new_rate_hz / rate_hz)
    inner = slice(new_rate_hz // 50, -new_rate_hz // 50)
    assert np.abs(made_A - tone(1.0, new_rate_hz, 1000.0, 0.5)[: len(made_A)])[inner].max() < 1e-5


def test_frequencies_above_the_new_nyquist_are_removed() -> None:
    assert np.abs(resample(tone(0.5, 44_100, 9_000.0, 0.5), 44_100, 16_000)[500:-500]).max() < 1e-5


@pytest.mark.parametrize("rate_hz", [16_000, 44_099, 22_050])
def test_a_long_sound_is_the_sum_of_its_parts(rate_hz: int) -> None:
    """Blocks and periods cause no discontinuity: the result equals that of two halves, each padded with silence."""
    noise_A = np.random.default_rng(0).standard_normal(5 * rate_hz).astype(np.float32)
    first_A, second_A = noise_A.copy(), noise_A.copy()
    first_A[2 * rate_hz + 123 :] = 0
    second_A[: 2 * rate_hz + 123] = 0
    sum_A = resample(first_A, rate_hz, 44_100) + resample(second_A, rate_hz, 44_100)
    np.testing.assert_allclose(resample(noise_A, rate_hz, 44_100), sum_A, atol=1e-5)
    assert np.abs(resample(second_A, rate_hz, 44_100)[: 2 * 44_100 - 4_410]).max() == 0


def test_rates_without_a_common_divisor_take_little_memory() -> None:
    noise_A = np.random.default_rng(0).standard_normal(2 * 44_099).astype(np.float32)
    tracemalloc.start()
    resample(noise_A, 44_099, 16_000)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 64 * 2**20


@pytest.mark.parametrize("num_samples", [0, 1, 5])
def test_very_short_sounds(num_samples: int) -> None:
    assert len(resample(np.ones(num_samples, dtype=np.float32), 44_100, 16_000)) == math.ceil(num_samples * 160 / 441)


def test_a_header_with_an_impossible_rate_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(1000), 2_000_000_000)
    with pytest.raises(MediaError, match="sample rate of 2000000000 Hz") as error:
        decode_audio(str(tmp_path / "a.wav"), 16_000)
    assert error.value.reason == "damaged"
