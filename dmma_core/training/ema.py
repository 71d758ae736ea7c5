"""Post-hoc exponential moving averages (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of
Diffusion Models", section 3 and appendix C).

Averages with power-function profiles are tracked during training, and snapshots of them are stored. After training, an
average of another length is computed as a linear combination of the snapshots. The length of an average is its relative
standard deviation `sigma_rel`: 0.05 averages over roughly the last twentieth of the training.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dmma_core.errors import CheckpointError

Doubles = NDArray[np.float64]


def gamma_of(sigma_rel: float) -> float:
    """Exponent of the power-function profile with relative standard deviation `sigma_rel` (paper, algorithm 2).

    The profile t^gamma on [0, 1] is a Beta(gamma + 1, 1) density, whose variance (g+1) / ((g+2)^2 (g+3)) is set equal
    to sigma_rel^2: the real root of g^3 + 7 g^2 + (16 - 1/s^2) g + 12 - 1/s^2.
    """
    inverse = sigma_rel**-2
    return float(np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse]).real.max())


def decay_of(gamma: float, step: int, update_every: int = 1) -> float:
    """Weight of the old average in update number `step` (1, 2, …: the counter after the increment).

    The continuous decay (s / (s + 1))^(gamma + 1) is taken as the geometric mean of its values at both ends of the
    interval between two updates, to the power of the interval's length.
    """
    ends = (step / (step + 1)) * ((step + update_every) / (step + update_every + 1))
    return float(ends ** (update_every * (gamma + 1) / 2))


class PostHocEma:
    """The averages that are tracked during training, one per `sigma_rel`, over named floating-point tensors.

    The averages are float32 on the device of the tensors. `update` is called after every optimiser step; only
    every `update_every`-th call changes the averages. The first one copies the tensors.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], sigma_rels: Sequence[float] = (0.05, 0.1), update_every: int = 1
    ) -> None:
        self._sigma_rels = tuple(sigma_rels)
        self._gammas = [gamma_of(sigma_rel) for sigma_rel in sigma_rels]
        self._averages = [
            {name: tensor.detach().float().clone() for name, tensor in tensors.items()} for _ in sigma_rels
        ]
        self._update_every = update_every
        self.step = 0

    @torch.no_grad()
    def update(self, tensors: Mapping[str, Tensor]) -> None:
        """Count one step and move the averages towards `tensors` (the same names as at construction)."""
        first = self.step == 0
        self.step += 1
        if (self.step - 1) % self._update_every:
            return
        values = [tensor.detach().float() for tensor in tensors.values()]
        for gamma, average in zip(self._gammas, self._averages, strict=True):
            kept = [average[name] for name in tensors]
            if first:
                torch._foreach_copy_(kept, values)
            torch._foreach_lerp_(kept, values, 1.0 - decay_of(gamma, self.step, self._update_every))

    def snapshot(self) -> "EmaSnapshot":
        """The current averages (not copied)."""
        return EmaSnapshot(self.step, dict(zip(self._sigma_rels, self._averages, strict=True)))

    def restore(self, snapshot: "EmaSnapshot") -> None:
        """Continue from `snapshot`. Raises CheckpointError for other lengths or other tensors."""
        names = [set(average) for average in snapshot.averages.values()]
        if set(snapshot.averages) != set(self._sigma_rels) or any(name != set(self._averages[0]) for name in names):
            raise CheckpointError(
                f"The stored averages have the lengths {list(snapshot.averages)} or other parameters, "
                f"expected {list(self._sigma_rels)}.",
                remedy="Continue with the configuration the run was started with, or start a new run.",
            )
        self.step = snapshot.step
        for sigma_rel, average in zip(self._sigma_rels, self._averages, strict=True):
            for name, value in average.items():
                value.copy_(snapshot.averages[sigma_rel][name])


@dataclass(frozen=True)
class EmaSnapshot:
    """The tracked averages after `step` steps: `averages[sigma_rel][name]`."""

    step: int
    averages: Mapping[float, Mapping[str, Tensor]]

    def to_tensors(self) -> dict[str, Tensor]:
        """Flat names `<sigma_rel>/<name>` for a safetensors file."""
        return {f"{sigma}/{name}": value for sigma, values in self.averages.items() for name, value in values.items()}

    @classmethod
    def from_tensors(cls, step: int, tensors: Mapping[str, Tensor]) -> "EmaSnapshot":
        averages: dict[float, dict[str, Tensor]] = {}
        for key in tensors:
            sigma_rel, _, name = key.partition("/")
            averages.setdefault(float(sigma_rel), {})[name] = tensors[key]
        return cls(step, averages)


@dataclass(frozen=True)
class Synthesis:
    """Linear combination of snapshots that gives the average of length `sigma_rel` at `step`.

    `weights[step, length]` are the coefficients of the tracked averages of the snapshots. `misfit` is the distance of the
    combined profile from the target profile, relative to the norm of the target: 0 if they are equal.
    """

    sigma_rel: float
    step: int
    weights: Mapping[tuple[int, float], float]
    misfit: float


def solve_synthesis(
    snapshot_steps: Sequence[int], tracked_sigma_rel: Sequence[float], sigma_rel: float, step: int
) -> Synthesis:
    """The best synthesis from snapshots of the averages of the lengths `tracked_sigma_rel`.

    All snapshots are used, also those after `step`. Neither steps nor lengths may be repeated.
    """
    pairs = [(at, length) for at in snapshot_steps for length in tracked_sigma_rel]
    gammas = [gamma_of(length) for _, length in pairs]
    weights, misfit = synthesis_weights([at for at, _ in pairs], gammas, step, gamma_of(sigma_rel))
    return Synthesis(sigma_rel, step, dict(zip(pairs, weights.tolist(), strict=True)), misfit)


def synthesis_weights(
    snapshot_steps: Sequence[int], snapshot_gammas: Sequence[float], target_step: int, target_gamma: float
) -> tuple[Doubles, float]:
    """Weights [number of snapshots] of the snapshots that fit the target profile best (paper, algorithm 3), and the
    remaining misfit (see `Synthesis`).

    Least squares between profiles: the Gram matrix of the snapshots' profiles and their inner products with the target.
    Exponents are rounded to float32, as in the implementation of the published averages.
    """
    steps = np.asarray(snapshot_steps, dtype=np.float64)
    gammas = np.asarray(snapshot_gammas, dtype=np.float32).astype(np.float64)
    target_step_64, target_gamma_64 = (
        np.asarray(target_step, np.float64),
        np.asarray(np.float32(target_gamma), np.float64),
    )
    gram = _profile_inner_product(steps[:, None], gammas[:, None], steps[None, :], gammas[None, :])
    with_target = _profile_inner_product(steps, gammas, target_step_64, target_gamma_64)
    weights = np.linalg.solve(gram, with_target).astype(np.float64)
    norm = _profile_inner_product(target_step_64, target_gamma_64, target_step_64, target_gamma_64)
    squared_misfit = float((norm - 2 * weights @ with_target + weights @ gram @ weights) / norm)
    return weights, max(squared_misfit, 0.0) ** 0.5  # rounding can make it slightly negative


def combine_snapshots(snapshots: Iterable[EmaSnapshot], syntheses: Sequence[Synthesis]) -> list[dict[str, Tensor]]:
    """The averages [one per synthesis] in float32. Snapshots are read one at a time; sums are in float64."""
    totals: list[dict[str, Tensor]] = [{} for _ in syntheses]
    for snapshot in snapshots:
        for total, synthesis in zip(totals, syntheses, strict=True):
            _add_to(total, snapshot, synthesis)
        del snapshot  # before the next one is read: each may take gigabytes
    return [{name: value.float() for name, value in total.items()} for total in totals]


def _add_to(total: dict[str, Tensor], snapshot: EmaSnapshot, synthesis: Synthesis) -> None:
    for length, average in snapshot.averages.items():
        weight = synthesis.weights[snapshot.step, length]
        for name, value in average.items():
            if name not in total:
                total[name] = torch.zeros_like(value, dtype=torch.float64)
            total[name].add_(value.double(), alpha=weight)


def _profile_inner_product(t_a: Doubles, gamma_a: Doubles, t_b: Doubles, gamma_b: Doubles) -> Doubles:
    """Integral of the product of the two profiles (gamma + 1) / t (tau / t)^gamma, each on [0, t] and zero after."""
    earlier, later = np.minimum(t_a, t_b), np.maximum(t_a, t_b)
    gamma_of_later = np.where(t_a < t_b, gamma_b, gamma_a)
    scale = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)
    return np.asarray(scale * (earlier / later) ** gamma_of_later / later)
