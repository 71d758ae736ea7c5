"""Arms x workers x clusters, and that Ray then gives every worker a GPU of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dmma_core.errors import ConfigError
from ray_jobs.common.placement import Node, expected_nodes, place

ROOT = Path(__file__).resolve().parents[3]
BOTH = ("baseline", "depth")
TOGETHER = (BOTH,)
IN_TURN = (("baseline",), ("depth",))
EIGHT_GPUS = Node(64, 8)


@pytest.mark.parametrize(
    ("num_workers", "nodes", "device", "groups", "gpus", "cpus", "per_node"),
    [
        (1, [Node(2)], "auto", TOGETHER, 0, 1.0, 2),
        (2, [Node(2)], "auto", TOGETHER, 0, 0.5, 4),
        (1, [Node(1)], "cpu", TOGETHER, 0, 0.5, 2),
        (3, [Node(1), Node(1)], "auto", TOGETHER, 0, 0.33, 3),  # 2/6 of a CPU each: three on every node
        (1, [Node(8, 4)], "cpu", TOGETHER, 0, 1.0, 2),
        (1, [Node(8, 1)], "auto", IN_TURN, 1, 1.0, 1),
        (1, [Node(8, 2)], "auto", TOGETHER, 1, 1.0, 2),
        (2, [Node(8, 2)], "auto", IN_TURN, 1, 1.0, 2),
        (2, [Node(8, 3)], "cuda", IN_TURN, 1, 1.0, 2),
        (2, [Node(8, 4)], "auto", TOGETHER, 1, 1.0, 4),
        (2, [Node(8, 1), Node(8, 1)], "auto", IN_TURN, 1, 1.0, 1),  # an arm over two nodes
        (2, [Node(4, 2), Node(4, 2)], "auto", TOGETHER, 1, 1.0, 2),
        (8, [EIGHT_GPUS, EIGHT_GPUS], "auto", TOGETHER, 1, 1.0, 8),
        (4, [Node(32), Node(2, 8)], "auto", TOGETHER, 1, 0.25, 8),  # the CPUs of the other node are of no use
        (2, [Node(32), Node(2, 4)], "auto", TOGETHER, 1, 0.5, 4),
        (1, [Node(0, 2), Node(8, 1)], "auto", IN_TURN, 1, 1.0, 1),  # no worker without a CPU
    ],
)
def test_two_arms(
    num_workers: int,
    nodes: list[Node],
    device: str,
    groups: tuple[tuple[str, ...], ...],
    gpus: int,
    cpus: float,
    per_node: int,
) -> None:
    placed = place(BOTH, num_workers, nodes, device)
    assert (placed.groups, placed.gpus_per_worker, placed.cpus_per_worker) == (groups, gpus, cpus)
    assert (placed.workers_per_arm, placed.workers_per_node) == (num_workers, per_node)


def test_as_many_arms_at_once_as_there_are_gpus_for() -> None:
    arms = ("a", "b", "c", "d", "e")
    assert place(arms, 2, [Node(8, 4)], "auto").groups == (("a", "b"), ("c", "d"), ("e",))
    assert place(arms, 1, [EIGHT_GPUS], "auto").groups == (arms,)
    assert str(place(arms[:3], 2, [Node(2, 4)], "auto")) == (
        "Order: a and b, then c; 2 workers an arm, each with a GPU of its own and 0.5 CPU."
    )
    assert str(place(("a",), 1, [Node(2)], "auto")) == "Order: a; 1 worker an arm, each with no GPU and 1 CPU."


@pytest.mark.parametrize(
    ("num_workers", "nodes", "device", "sentence"),
    [
        (3, [Node(8, 2)], "auto", "Each arm needs 3 GPU workers, the cluster has 2 GPUs. Lower num_workers"),
        (1, [Node(8)], "cuda", "has 0 GPUs"),
        (1, [Node(0, 2)], "auto", "has 0 GPUs"),
        (1, [Node(0)], "auto", "0 CPUs are too few for 2 workers"),
        (100, [Node(1)], "cpu", "1 CPUs are too few for 200 workers"),
    ],
)
def test_too_small_a_cluster_is_a_sentence(num_workers: int, nodes: list[Node], device: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        place(BOTH, num_workers, nodes, device)


def test_without_a_cluster_this_machine_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray_jobs.common.placement.is_cluster_given", lambda: False)
    (node,) = expected_nodes(min_cpus=1000)
    assert node.num_cpus == 1000
    (node,) = expected_nodes(min_cpus=1)
    assert node.num_cpus == os.cpu_count()


def test_ray_gives_every_worker_a_gpu_of_its_own() -> None:
    """On logical GPUs: two arms of one worker at the same time, then two arms of two workers one after the other."""
    code = (sys.executable, "-m", "helpers.placed_workers")
    path = os.pathsep.join((str(ROOT / "tests"), str(ROOT)))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    run = subprocess.run(
        code, cwd=ROOT / "tests", env={**environment, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    gpus = json.loads(run.stdout.splitlines()[-1])
    assert gpus == {"1": [["0", "1"]], "2": [["0", "1"], ["0", "1"]]}
