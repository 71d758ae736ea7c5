"""What every worker of an arm runs under Ray Train: join the group, train, write the error message of a failure.

INPUT: an `ArmPlan` and the number of workers on this node. OUTPUT: the run folder of the plan. One process per worker
because gradients are exchanged by torch.distributed (gloo on CPUs, nccl on GPUs).
"""

import os
from typing import Any

import ray.train
import ray.train.torch
import torch

from dmma_core.errors import DmmaError, LeaseLostError
from dmma_core.log import setup_logging
from dmma_core.storage import paths
from dmma_core.training.arm import ArmPlan, train_arm
from dmma_core.training.workers import Workers

FAILED = "FAILED.json"


def run_worker(settings: dict[str, Any]) -> None:
    """Train `settings["plan"]` on this worker of the arm's group.

    A user's error is written to FAILED.json, which the driver reads. Ray restarts a group whose worker raised. The
    restarted workers return at once where FAILED.json exists, because a restart cannot help, or where another job has
    taken the run over.
    """
    plan: ArmPlan = settings["plan"]
    failed_uri = paths.join(plan.run_uri, FAILED)
    if _is_lost(plan) or paths.exists(failed_uri):
        return
    setup_logging()
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // settings["workers_per_node"]))
    context = ray.train.get_context()
    workers = Workers(ray.train.torch.get_device(), context.get_world_rank(), context.get_world_size())
    try:
        train_arm(plan, workers)
    except LeaseLostError:  # the folder is another job's now: write nothing there; the driver reports it
        if workers.size > 1:
            raise
    except DmmaError as error:
        record = {"error": type(error).__name__, "message": error.message, "remedy": error.remedy}
        paths.write_json(failed_uri, record)
        if workers.size > 1:  # the others wait for this worker's gradients: let Ray end the whole group
            raise


def _is_lost(plan: ArmPlan) -> bool:
    try:
        if plan.lease:
            plan.lease.require()
    except LeaseLostError:
        return True
    return False
