"""Solvers against exact solutions."""

import math

import pytest
import torch
from torch import Tensor

from dmma_core.errors import ConfigError
from dmma_core.flow.solver import integrate


def turning(state: Tensor, time: Tensor) -> Tensor:
    """dx/dt = x cos t, so x(t) = x(0) exp(sin t)."""
    return state * torch.cos(time.double())


START = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
EXACT = START * math.exp(math.sin(1.0))


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("heun", 2)])
def test_order_of_convergence(method: str, order: int) -> None:
    errors = [float((integrate(turning, START, method, steps) - EXACT).abs().max()) for steps in (20, 40)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.15)


def test_adaptive_meets_its_tolerance_with_few_evaluations() -> None:
    calls = 0

    def counted(state: Tensor, time: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return turning(state, time)

    final = integrate(counted, START, "adaptive", relative_tolerance=1e-6, absolute_tolerance=1e-6)
    torch.testing.assert_close(final, EXACT, atol=1e-5, rtol=0)
    assert calls < 100


@pytest.mark.parametrize("method", ["euler", "midpoint", "heun", "adaptive"])
def test_constant_velocity_is_exact_and_reversible(method: str) -> None:
    def steady(state: Tensor, time: Tensor) -> Tensor:
        return torch.full_like(state, 3.0)

    there = integrate(steady, START, method, 7, start=0.0, end=0.9)
    torch.testing.assert_close(there, START + 2.7)
    torch.testing.assert_close(integrate(steady, there, method, 7, start=0.9, end=0.0), START)


def test_zero_velocity_keeps_the_state() -> None:
    assert torch.equal(integrate(lambda state, time: 0 * state, START, "adaptive"), START)


@pytest.mark.parametrize(("method", "num_steps"), [("rk4", 10), ("euler", 0)])
def test_unusable_settings_are_refused(method: str, num_steps: int) -> None:
    with pytest.raises(ConfigError):
        integrate(turning, START, method, num_steps)


def test_a_non_finite_velocity_stops_the_adaptive_solver() -> None:
    calls = 0

    def broken(state: Tensor, time: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.full_like(state, torch.nan if time > 0 else 1.0)

    with pytest.raises(ConfigError, match="not finite at time 0"):
        integrate(broken, START, "adaptive")
    assert calls < 10
