"""Solvers of dx/dt = velocity(x, t), for any velocity callable and any shape of state.

Sampling integrates from 0 (noise) to 1 - min_sigma (data); for the reverse direction, from data to noise, swap start
and end.
"""

from collections.abc import Callable
from itertools import pairwise
from math import isfinite

import torch
from torch import Tensor

from dmma_core.errors import ConfigError
from dmma_core.flow.methods import METHODS

Velocity = Callable[[Tensor, Tensor], Tensor]
"""Maps (state, time as a float32 scalar tensor) to the state's derivative, in the state's shape."""

_MAX_ADAPTIVE_STEPS = 10_000


def integrate(
    velocity: Velocity,
    state: Tensor,
    method: str = "euler",
    num_steps: int = 25,
    start: float = 0.0,
    end: float = 1.0,
    relative_tolerance: float = 1e-7,
    absolute_tolerance: float = 1e-9,
) -> Tensor:
    """The state at time `end`. `num_steps` equal steps; "adaptive" chooses its steps from the tolerances instead.

    Evaluations per step: euler 1 (order 1), midpoint 2 and heun 2 (order 2), adaptive 6 (order 5). Raises ConfigError
    for an unknown method, fewer than one step, or an adaptive solution that is not finite or needs too many steps.
    """
    if method == "adaptive":
        return _dormand_prince(velocity, state, start, end, relative_tolerance, absolute_tolerance)
    if method not in METHODS:
        raise ConfigError(f"There is no solver {method!r}.", remedy=f"Choose one of {', '.join(METHODS)}.")
    if num_steps < 1:
        raise ConfigError(f"The solver cannot take {num_steps} steps.", remedy="Use at least one.")
    step = {"euler": _euler, "midpoint": _midpoint, "heun": _heun}[method]
    times = torch.linspace(start, end, num_steps + 1, device=state.device)
    for time, next_time in pairwise(times):
        state = step(velocity, state, time, next_time - time)
    return state


def _euler(velocity: Velocity, state: Tensor, time: Tensor, width: Tensor) -> Tensor:
    return state + width * velocity(state, time)


def _midpoint(velocity: Velocity, state: Tensor, time: Tensor, width: Tensor) -> Tensor:
    middle = state + width / 2 * velocity(state, time)
    return state + width * velocity(middle, time + width / 2)


def _heun(velocity: Velocity, state: Tensor, time: Tensor, width: Tensor) -> Tensor:
    first = velocity(state, time)
    second = velocity(state + width * first, time + width)
    return state + width / 2 * (first + second)


# Dormand and Prince 1980, RK5(4)7M: nodes, stages, and the difference between the two solutions' weights.
_NODES = (0.2, 0.3, 0.8, 8 / 9, 1.0, 1.0)
_STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (
    35 / 384 - 5179 / 57600,
    0.0,
    500 / 1113 - 7571 / 16695,
    125 / 192 - 393 / 640,
    -2187 / 6784 + 92097 / 339200,
    11 / 84 - 187 / 2100,
    -1 / 40,
)


def _dormand_prince(
    velocity: Velocity, state: Tensor, start: float, end: float, relative: float, absolute: float
) -> Tensor:
    """Step control in float64 on the host; the error of a step is its root mean square in units of the tolerance."""

    def evaluate(value: Tensor, time: float) -> Tensor:
        return velocity(value, torch.tensor(time, dtype=torch.float32, device=value.device))

    def size(value: Tensor, scale: Tensor) -> float:
        return float((value.double() / scale).square().mean().sqrt())

    time, derivative = start, evaluate(state, start)
    scale = absolute + relative * state.double().abs()
    slope = size(derivative, scale)
    width = (end - start) * min(1.0, 0.01 * size(state, scale) / slope if slope > 0 else 1.0)
    for _ in range(_MAX_ADAPTIVE_STEPS):
        if abs(end - time) <= 1e-12 * abs(end - start):
            return state
        width = width if abs(width) < abs(end - time) else end - time
        slopes = [derivative]
        for node, weights in zip(_NODES, _STAGES, strict=True):
            candidate = state + width * _combine(weights, slopes)
            slopes.append(evaluate(candidate, time + node * width))
        scale = absolute + relative * torch.maximum(state.abs(), candidate.abs()).double()
        error = size(width * _combine(_ERROR, slopes), scale)
        if not isfinite(error):
            raise ConfigError(
                f"The velocity is not finite at time {time:.6f}.",
                remedy="Use another checkpoint, or a lower guidance scale.",
            )
        if error <= 1:
            state, time, derivative = candidate, time + width, slopes[-1]
        width *= min(10.0, max(0.2, 0.9 * error**-0.2)) if error > 0 else 10.0
    raise ConfigError(
        f"The adaptive solver took {_MAX_ADAPTIVE_STEPS} steps and reached time {time:.6f} only.",
        remedy="Use a looser tolerance or a method with a fixed number of steps.",
    )


def _combine(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    return torch.stack([weight * slope for weight, slope in zip(weights, slopes, strict=True) if weight]).sum(dim=0)
