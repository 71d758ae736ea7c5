"""Averages during training: snapshots, resuming, synthesis of tracked averages."""

import numpy as np
import pytest
import torch

from dmma_core.errors import CheckpointError, ConfigError
from dmma_core.recipe import EmaConfig
from dmma_core.training.ema import EmaSnapshot, PostHocEma, gamma_of, solve_synthesis
from helpers.training import synthesised


def walk(ema: PostHocEma, steps: int, seed: int = 0) -> list[EmaSnapshot]:
    generator = torch.Generator().manual_seed(seed)
    weight, snapshots = torch.zeros(3), []
    for _ in range(steps):
        weight = weight + torch.randn(3, generator=generator)
        ema.update({"w": weight})
        now = ema.snapshot()
        snapshots.append(EmaSnapshot(now.step, {length: {"w": v["w"].clone()} for length, v in now.averages.items()}))
    return snapshots


def test_the_profile_has_the_requested_width() -> None:
    for sigma_rel in (0.05, 0.1, 0.2):
        gamma = gamma_of(sigma_rel)
        assert ((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) ** 0.5 == pytest.approx(sigma_rel)


def test_first_update_copies() -> None:
    ema = PostHocEma({"w": torch.zeros(3)})
    ema.update({"w": torch.tensor([1.0, 2.0, 3.0])})
    for values in ema.snapshot().averages.values():
        assert torch.equal(values["w"], torch.tensor([1.0, 2.0, 3.0]))


def test_synthesis_reproduces_tracked_averages() -> None:
    snapshots = walk(PostHocEma({"w": torch.zeros(3)}), 60)[9::10]
    for sigma_rel in (0.05, 0.1):
        torch.testing.assert_close(
            synthesised(snapshots, sigma_rel)["w"], snapshots[-1].averages[sigma_rel]["w"], atol=1e-4, rtol=0
        )


def test_synthesis_of_another_length_is_near_one_tracked_directly() -> None:
    snapshots = walk(PostHocEma({"w": torch.zeros(3)}), 400)[19::20]
    direct = walk(PostHocEma({"w": torch.zeros(3)}, (0.08,)), 400)[-1].averages[0.08]["w"]
    made = synthesised(snapshots, 0.08)["w"]
    spread = (snapshots[-1].averages[0.05]["w"] - snapshots[-1].averages[0.1]["w"]).abs().max()
    assert (made - direct).abs().max() < 0.05 * spread


def test_resumes_from_a_stored_snapshot() -> None:
    ema = PostHocEma({"w": torch.zeros(3)})
    snapshot = walk(ema, 5)[-1]
    again = PostHocEma({"w": torch.zeros(3)})
    again.restore(EmaSnapshot.from_tensors(snapshot.step, snapshot.to_tensors()))
    for average in (ema, again):
        average.update({"w": torch.ones(3)})
    assert again.step == ema.step == 6
    assert torch.equal(again.snapshot().averages[0.1]["w"], ema.snapshot().averages[0.1]["w"])


def test_other_lengths_are_refused() -> None:
    snapshot = walk(PostHocEma({"w": torch.zeros(3)}, (0.05, 0.2)), 2)[-1]
    with pytest.raises(CheckpointError, match="lengths"):
        PostHocEma({"w": torch.zeros(3)}).restore(snapshot)
    with pytest.raises(ConfigError, match=r"length sigma_rel of an average is 0\.5"):
        EmaConfig(tracked_sigma_rel=(0.05, 0.5))
    with pytest.raises(
        ConfigError, match=r"0\.08, which is not tracked while training \(0\.05, 0\.1 are\).*weights average"
    ):
        EmaConfig(sigma_rel=0.08)
    for tracked in ((), (0.05, 0.05)):
        with pytest.raises(ConfigError, match="one or more different numbers"):
            EmaConfig(tracked_sigma_rel=tracked)


def test_the_misfit_is_the_distance_of_the_profiles() -> None:
    """Compared with the distance of the combined profile from the target profile on a fine grid of times."""
    steps, tracked, end = list(range(100, 1300, 100)), [0.05, 0.1], 1200
    times = (np.arange(200_000) + 0.5) / 200_000 * end

    def profile(step: int, sigma_rel: float) -> np.ndarray:
        gamma = gamma_of(sigma_rel)
        return np.where(times <= step, (gamma + 1) / step * (times / step) ** gamma, 0.0)

    for sigma_rel in (0.02, 0.05, 0.08, 0.25):
        synthesis = solve_synthesis(steps, tracked, sigma_rel, end)
        made = sum(weight * profile(*pair) for pair, weight in synthesis.weights.items())
        target = profile(end, sigma_rel)
        expected = np.sqrt(((made - target) ** 2).sum() / (target**2).sum())
        assert synthesis.misfit == pytest.approx(expected, rel=1e-2, abs=1e-4)
