"""Averages while training: snapshots, going on, synthesis of what was tracked."""

import pytest
import torch

from dmma_core.errors import CheckpointError, ConfigError
from dmma_core.training.configs import EmaConfig
from dmma_core.training.ema import EmaSnapshot, PostHocEma, gamma_of, synthesise


def walk(ema: PostHocEma, steps: int, seed: int = 0) -> list[EmaSnapshot]:
    generator = torch.Generator().manual_seed(seed)
    weight, snapshots = torch.zeros(3), []
    for _ in range(steps):
        weight = weight + torch.randn(3, generator=generator)
        ema.update({"w": weight})
        now = ema.snapshot()
        snapshots.append(EmaSnapshot(now.step, {length: {"w": v["w"].clone()} for length, v in now.averages.items()}))
    return snapshots


def test_the_profile_has_the_asked_width() -> None:
    for sigma_rel in (0.05, 0.1, 0.2):
        gamma = gamma_of(sigma_rel)
        assert ((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))) ** 0.5 == pytest.approx(sigma_rel)


def test_first_update_copies() -> None:
    ema = PostHocEma({"w": torch.zeros(3)})
    ema.update({"w": torch.tensor([1.0, 2.0, 3.0])})
    for values in ema.snapshot().averages.values():
        assert torch.equal(values["w"], torch.tensor([1.0, 2.0, 3.0]))


def test_synthesis_gives_back_what_was_tracked() -> None:
    snapshots = walk(PostHocEma({"w": torch.zeros(3)}), 60)[9::10]
    for sigma_rel in (0.05, 0.1):
        torch.testing.assert_close(
            synthesise(snapshots, sigma_rel)["w"], snapshots[-1].averages[sigma_rel]["w"], atol=1e-4, rtol=0
        )


def test_synthesis_of_another_length_is_near_one_tracked_directly() -> None:
    snapshots = walk(PostHocEma({"w": torch.zeros(3)}), 400)[19::20]
    direct = walk(PostHocEma({"w": torch.zeros(3)}, (0.08,)), 400)[-1].averages[0.08]["w"]
    made = synthesise(snapshots, 0.08)["w"]
    spread = (snapshots[-1].averages[0.05]["w"] - snapshots[-1].averages[0.1]["w"]).abs().max()
    assert (made - direct).abs().max() < 0.05 * spread


def test_goes_on_from_a_stored_snapshot() -> None:
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
    with pytest.raises(ConfigError, match="EMA length"):
        EmaConfig(sigma_rel=0.5)
