"""Path, loss, times and solvers against the published flow-matching code."""

import pytest
import torch
from torch import Tensor

from dmma_core.flow.path import flow_loss, interpolate, logit_normal_times
from dmma_core.flow.solver import integrate
from helpers.golden import GoldenFile, assert_close, golden_file


@pytest.fixture(scope="module")
def file() -> GoldenFile:
    return golden_file("flow_matching")


def field(state: Tensor, time: Tensor) -> Tensor:
    """The reference file's vector field (defined in its meta data)."""
    return torch.sin(3 * state) * (1 + time) - state / 2


def sigmas(file: GoldenFile) -> list[float]:
    return [float(name.removeprefix("sigma").removesuffix(".xt")) for name in file.names() if name.endswith(".xt")]


def test_path_and_loss(file: GoldenFile) -> None:
    assert file.meta["vector_field"] == "sin(3x)*(1+t)-x/2"
    noise, data, time = file["in.x0"], file["in.x1"], file["in.t"]
    for sigma in sigmas(file):
        assert_close(interpolate(noise, data, time, sigma), file[f"sigma{sigma}.xt"])
        assert_close(flow_loss(file["in.v"], noise, data, sigma), file[f"sigma{sigma}.loss"])


def test_euler_has_the_same_times_and_final_state(file: GoldenFile) -> None:
    for sigma in sigmas(file):
        for direction, state, start, end in (
            ("data", file["in.x0"], 0.0, 1 - sigma),
            ("prior", file["in.x1"], 1.0, -sigma),  # the reference subtracts sigma from the end in both directions
        ):
            times: list[Tensor] = []

            def recorded(state: Tensor, time: Tensor, times: list[Tensor] = times) -> Tensor:
                times.append(time)
                return field(state, time)

            final = integrate(recorded, state, "euler", file.meta["steps"], start, end)
            suffix = "" if direction == "data" else "_to_prior"
            assert_close(final, file[f"sigma{sigma}.euler_to_{direction}"])
            assert_close(torch.stack(times), file[f"sigma{sigma}.euler{suffix}_times"])


def test_adaptive_returns_the_final_state(file: GoldenFile) -> None:
    assert_close(integrate(field, file["in.x0"], "adaptive"), file["adaptive_to_data"][-1])


def test_logit_normal_times(file: GoldenFile) -> None:
    for name in file.names():
        if name.startswith("log_normal_m"):
            mean, scale = (float(part) for part in name.removeprefix("log_normal_m").split("_s"))
            assert_close(logit_normal_times(file["in.normal"], mean, scale), file[name])


def test_times_are_by_default_logit_normal_0_1(file: GoldenFile) -> None:
    normal = file["in.normal"]
    assert_close(logit_normal_times(normal), torch.sigmoid(normal))
    if "log_normal_m0_s1" in file:
        assert_close(logit_normal_times(normal), file["log_normal_m0_s1"])


def test_times_of_another_mean_and_scale_are_consistent(file: GoldenFile) -> None:
    """The file does not state mean and scale of these times; one mean and one scale must fit all of them."""
    normal, times = file["in.torch_randn"].double(), file["log_normal_reference"].double()
    assert len(normal) > 2
    design = torch.stack((torch.ones_like(normal), normal), dim=1)
    mean, scale = torch.linalg.lstsq(design, torch.logit(times)[:, None]).solution[:, 0].tolist()
    assert_close(logit_normal_times(normal, mean, scale), times)
