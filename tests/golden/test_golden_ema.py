"""Post-hoc EMA against the reference library's trajectory and its synthesised averages."""

import re

import numpy as np
import pytest
import torch

from dmma_core.training.ema import EmaSnapshot, PostHocEma, decay_of, gamma_of, synthesis_weights
from helpers.golden import GoldenFile, assert_close, golden_file
from helpers.training import synthesised


@pytest.fixture(scope="module")
def golden() -> GoldenFile:
    return golden_file("posthoc_ema")


def frozen_parameter(golden: GoldenFile) -> torch.Tensor:
    """Size and value from the file's note, such as "frozen(2)=1.5"."""
    size, value = re.search(r"frozen\((\d+)\)=(-?[\d.]*\d)", golden.meta["note"]).groups()
    return torch.full((int(size),), float(value))


def run_reference_trajectory(golden: GoldenFile, every: int) -> tuple[list[EmaSnapshot], torch.Tensor]:
    """Average the stored online values; snapshots at the reference's steps, and the path [steps, lengths, 4]."""
    online = {"w": golden["in.w"][0], "b": golden["in.b"][0], "frozen": frozen_parameter(golden)}
    ema = PostHocEma(online, golden.meta["sigma_rels"], update_every=every)
    snapshots, path = [], []
    for step in range(golden.meta["n_steps"]):
        online = {**online, "w": golden["in.w"][step], "b": golden["in.b"][step]}
        ema.update(online)
        now = ema.snapshot()
        path.append(torch.stack([torch.cat((values["w"], values["b"])) for values in now.averages.values()]))
        if now.step % golden.meta["checkpoint_every"] == 0:
            copies = {
                length: {name: value.clone() for name, value in values.items()}
                for length, values in now.averages.items()
            }
            snapshots.append(EmaSnapshot(now.step, copies))
    return snapshots, torch.stack(path)


def intervals(golden: GoldenFile) -> list[int]:
    """Every number of steps between two updates that the file holds."""
    prefix, suffix = "correctionTrue.every", ".trajectory"
    names = [name for name in golden.names() if name.startswith(prefix) and name.endswith(suffix)]
    assert names
    return [int(name.removeprefix(prefix).removesuffix(suffix)) for name in names]


def test_averages_follow_the_reference_at_every_step(golden: GoldenFile) -> None:
    for every in intervals(golden):
        _, path = run_reference_trajectory(golden, every)
        assert_close(path, golden[f"correctionTrue.every{every}.trajectory"])


def test_decay_equals_the_reference(golden: GoldenFile) -> None:
    gammas = [gamma_of(length) for length in golden.meta["sigma_rels"]]
    for every in intervals(golden):
        expected = golden[f"correctionTrue.every{every}.beta_after_update"]
        actual = [[decay_of(gamma, step, every) for gamma in gammas] for step in range(1, len(expected) + 1)]
        assert_close(torch.tensor(actual, dtype=torch.float64), expected)


def test_gamma_and_weights_equal_the_reference(golden: GoldenFile) -> None:
    for sigma_rel, gamma in golden["gamma_of_sigma"].tolist():
        assert gamma_of(sigma_rel) == pytest.approx(gamma, rel=1e-7)
    steps = golden["solve.t"].tolist()
    weight_keys = [key for key in golden.names() if key.startswith("solve.weights.")]
    assert weight_keys
    for key in weight_keys:
        sigma_rel = float(key.split("sigma")[1].split(".step")[0])
        weights, _ = synthesis_weights(steps, golden["solve.gamma_f32"].tolist(), max(steps), gamma_of(sigma_rel))
        np.testing.assert_allclose(weights, golden.array(key), atol=1e-4)


def test_synthesised_averages_equal_the_reference(golden: GoldenFile) -> None:
    for every in intervals(golden):
        snapshots, _ = run_reference_trajectory(golden, every)
        prefix = f"correctionTrue.every{every}.synth.sigma"
        keys = [key for key in golden.names() if key.startswith(prefix)]
        assert keys
        for key in keys:
            sigma_rel, _, step = key.removeprefix(prefix).partition(".step")
            made = synthesised(snapshots, float(sigma_rel), None if step == "None" else int(step))
            actual = torch.cat((made["w"], made["b"], made["frozen"]))
            assert (actual - golden[key]).abs().max() <= 1e-4
