"""Placement of the workers of all arms: which arms run side by side, which in turn, and the resources of each worker.

With GPUs every worker has one of its own, because NCCL refuses two workers of a group on one GPU; as many arms run at
the same time as there are GPUs for. Without GPUs all arms run side by side and share the CPUs.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import ray
import torch

from dmma_core.errors import ConfigError
from ray_jobs.common.runtime import connect, is_cluster_given


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, with its logical CPUs and its GPUs."""

    num_cpus: float
    num_gpus: int = 0

    def capacity(self, cpus_per_worker: float, gpus_per_worker: int) -> int:
        """How many workers with these resources fit."""
        by_cpus = int(self.num_cpus / cpus_per_worker + 1e-6)
        return min(by_cpus, self.num_gpus // gpus_per_worker) if gpus_per_worker else by_cpus


@dataclass(frozen=True)
class Placement:
    """Groups of arms that run one after the other, the arms of a group side by side, and each worker's resources."""

    groups: tuple[tuple[str, ...], ...]
    workers_per_arm: int
    cpus_per_worker: float
    gpus_per_worker: int  # 1 or 0
    workers_per_node: int  # at most, on one machine

    def __str__(self) -> str:
        order = ", then ".join(" and ".join(group) for group in self.groups)
        workers = f"{self.workers_per_arm} worker{'s' if self.workers_per_arm > 1 else ''} an arm"
        gpu = "a GPU of its own" if self.gpus_per_worker else "no GPU"
        return f"Order: {order}; {workers}, each with {gpu} and {self.cpus_per_worker:g} CPU."


def place(arms: Sequence[str], num_workers: int, nodes: Sequence[Node], device: str) -> Placement:
    """Place `num_workers` workers of every arm. `device` is "auto", "cpu" or "cuda".

    Workers of one arm may be on several nodes. Raises ConfigError where the cluster is too small for one arm.
    """
    num_gpus = sum(node.num_gpus for node in nodes)
    if device == "cpu" or (device == "auto" and not num_gpus):
        return _placement([tuple(arms)], num_workers, nodes, gpus_per_worker=0)
    # A GPU on a node without CPUs takes no worker.
    usable = sum(node.num_gpus for node in nodes if node.num_cpus > 0)
    at_once = usable // num_workers
    if at_once == 0:
        raise ConfigError(
            f"Each arm needs {num_workers} GPU workers, the cluster has {usable} GPUs.",
            remedy="Lower num_workers, add GPUs, or set device=cpu.",
        )
    groups = [tuple(arms[start : start + at_once]) for start in range(0, len(arms), at_once)]
    return _placement(groups, num_workers, nodes, gpus_per_worker=1)


def _placement(
    groups: Sequence[tuple[str, ...]], num_workers: int, nodes: Sequence[Node], gpus_per_worker: int
) -> Placement:
    """With the largest share of a CPU, at most one, with which all workers of a group fit."""
    total = num_workers * max(map(len, groups))
    shares = {min(1.0, int(100 * node.num_cpus / count) / 100) for node in nodes for count in range(1, total + 1)}
    for share in sorted(shares - {0.0}, reverse=True):
        capacities = [node.capacity(share, gpus_per_worker) for node in nodes]
        if sum(capacities) >= total:
            return Placement(tuple(groups), num_workers, share, gpus_per_worker, min(total, max(capacities)))
    raise ConfigError(
        f"The cluster's {sum(node.num_cpus for node in nodes):g} CPUs are too few for {total} workers.",
        remedy="Lower num_workers, or train one arm at a time (only=…).",
    )


def cluster_nodes() -> list[Node]:
    """The living nodes of the cluster that this process is connected to."""
    resources = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [Node(each.get("CPU", 0.0), int(each.get("GPU", 0))) for each in resources]


def expected_nodes(min_cpus: int) -> list[Node]:
    """The nodes that a job will have after `connect(min_cpus)`. Starts no local Ray.

    Raises ConfigError when the cluster of RAY_ADDRESS cannot be reached.
    """
    if is_cluster_given():
        with connect():
            return cluster_nodes()
    return [Node(max(os.cpu_count() or 1, min_cpus), torch.cuda.device_count())]
