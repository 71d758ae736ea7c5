"""Post-hoc exponential moving averages (Karras et al. 2024, "Analyzing and Improving the Training Dynamics of
Diffusion Models", section 3 and appendix C).

Two averages with power-function profiles are kept while training; snapshots of them are stored. Afterwards an average
of any length is a linear combination of the snapshots. The length of an average is its relative standard deviation
`sigma_rel`: 0.05 averages over roughly the last twentieth of the training.
"""

from collections.abc import Mapping, Sequence
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
    """Weight of the old average in update number `step` (1, 2, …; the value the counter has after it is raised).

    The continuous decay (s / (s + 1))^(gamma + 1) is taken as the geometric mean of its values at both ends of the
    interval between two updates, to the power of the interval's length.
    """
    ends = (step / (step + 1)) * ((step + update_every) / (step + update_every + 1))
    return float(ends ** (update_every * (gamma + 1) / 2))


class PostHocEma:
    """The averages that are kept while training, one per `sigma_rel`, over named floating-point tensors.

    The averages lie beside the tensors (same device) in float32. `update` is called after every optimiser step; only
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
        """The present averages (not copied)."""
        return EmaSnapshot(self.step, dict(zip(self._sigma_rels, self._averages, strict=True)))

    def restore(self, snapshot: "EmaSnapshot") -> None:
        """Go on from `snapshot`. Raises CheckpointError for other lengths or other tensors."""
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


def synthesis_weights(
    snapshot_steps: Sequence[int], snapshot_gammas: Sequence[float], target_step: int, target_gamma: float
) -> Doubles:
    """Weights [number of snapshots] with which snapshots add up best to the target profile (paper, algorithm 3).

    Least squares between profiles: the Gram matrix of the snapshots' profiles against their products with the target.
    Exponents are rounded to float32, as in the implementation the published averages were made with.
    """
    steps = np.asarray(snapshot_steps, dtype=np.float64)
    gammas = np.asarray(snapshot_gammas, dtype=np.float32).astype(np.float64)
    wanted_step = np.full_like(steps, target_step)
    wanted_gamma = np.full_like(gammas, np.float32(target_gamma))
    gram = _profile_product(steps[:, None], gammas[:, None], steps[None, :], gammas[None, :])
    weights = np.linalg.solve(gram, _profile_product(steps, gammas, wanted_step, wanted_gamma))
    return weights.astype(np.float64)


def synthesise(snapshots: Sequence[EmaSnapshot], sigma_rel: float, target_step: int | None = None) -> dict[str, Tensor]:
    """The average of length `sigma_rel` at `target_step` (default: the last snapshot's) in float32.

    Sums in float64. All snapshots take part, also those after `target_step`. Snapshots of one step must not be repeated.
    """
    pairs = [
        (snapshot.step, length, average) for snapshot in snapshots for length, average in snapshot.averages.items()
    ]
    if target_step is None:
        target_step = max(step for step, _, _ in pairs)
    gammas = [gamma_of(length) for _, length, _ in pairs]
    weights = synthesis_weights([step for step, _, _ in pairs], gammas, target_step, gamma_of(sigma_rel))
    total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in pairs[0][2].items()}
    for weight, (_, _, average) in zip(weights, pairs, strict=True):
        for name, value in total.items():
            value.add_(average[name].to(value.device, torch.float64), alpha=float(weight))
    return {name: value.float() for name, value in total.items()}


def _profile_product(t_a: Doubles, gamma_a: Doubles, t_b: Doubles, gamma_b: Doubles) -> Doubles:
    """Integral of the product of two profiles (gamma + 1) / t (tau / t)^gamma, each on [0, t] and zero after."""
    earlier, later = np.minimum(t_a, t_b), np.maximum(t_a, t_b)
    gamma_of_later = np.where(t_a < t_b, gamma_b, gamma_a)
    scale = (gamma_a + 1) * (gamma_b + 1) / (gamma_a + gamma_b + 1)
    return np.asarray(scale * (earlier / later) ** gamma_of_later / later)
