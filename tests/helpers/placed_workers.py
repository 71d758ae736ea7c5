"""`python -m helpers.placed_workers`: prints which GPU ids workers get, as JSON, on a Ray with two logical GPUs.

Workers are started as Ray Train starts those of `train_driver`: a group of actors with the resources of a `Placement`.
"""

import json
from collections.abc import Sequence

import ray
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from ray_jobs.common.placement import Placement, cluster_nodes, place
from ray_jobs.common.runtime import _environment, _local_environment


class Worker:
    """Holds its resources until it is killed."""

    def gpus(self) -> list[str]:
        return [str(gpu) for gpu in ray.get_runtime_context().get_accelerator_ids()["GPU"]]


def gpus_of(arms: Sequence[str], placed: Placement) -> list[str]:
    """GPU ids of all workers of these arms while all of them run."""
    share = {"CPU": placed.cpus_per_worker, "GPU": placed.gpus_per_worker}
    groups = [placement_group([share] * placed.workers_per_arm, strategy="PACK") for _ in arms]
    workers = [
        ray.remote(Worker)
        .options(
            num_cpus=share["CPU"],
            num_gpus=share["GPU"],
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
        )
        .remote()
        for group in groups
        for rank in range(placed.workers_per_arm)
    ]
    gpus = ray.get([worker.gpus.remote() for worker in workers], timeout=120)
    for group in groups:
        remove_placement_group(group)
    return sorted(gpu for each in gpus for gpu in each)


if __name__ == "__main__":
    with _environment(_local_environment()):
        ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    found = {}
    for num_workers in (1, 2):
        placed = place(("baseline", "depth"), num_workers, cluster_nodes(), "auto")
        found[num_workers] = [gpus_of(group, placed) for group in placed.groups]
    ray.shutdown()
    print(json.dumps(found))
