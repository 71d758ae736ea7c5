"""Both arms side by side: one Ray Train trainer a thread on one cluster, watched through their metrics files."""

import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import ceil
from types import FrameType

import ray
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from dmma_core.errors import ConfigError
from dmma_core.log import Progress
from dmma_core.storage import paths
from dmma_core.storage.metrics_log import Point, read_metrics
from dmma_core.storage.run_folder import RunFolder
from dmma_core.training.arm import ArmPlan, newest_checkpoint
from ray_jobs.stages.train_worker import FAILED, run_worker

_log = logging.getLogger(__name__)
_POLL_S = 1.0
# On one machine nobody announces preemption or reads Ray's own metrics; each would cost two more processes.
_LOCAL_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}


@dataclass(frozen=True)
class Resources:
    """Share of a CPU and of a GPU for each worker, and how many workers run on one node."""

    num_cpus: float
    num_gpus: float
    workers_per_node: int

    @classmethod
    def of_cluster(cls, device: str, num_arms: int, num_workers: int) -> "Resources":
        """Share the cluster out among all workers of all arms. `device` is "auto", "cpu" or "cuda".

        Arms may share a GPU, workers of one arm may not. Raises ConfigError where the GPUs are too few.
        """
        cluster, total = ray.cluster_resources(), num_arms * num_workers
        num_nodes = max(1, sum(node["Alive"] for node in ray.nodes()))
        num_cpus = min(1.0, int(100 * cluster.get("CPU", 1) / total) / 100)
        num_gpus = int(cluster.get("GPU", 0))
        if device == "cpu" or (device == "auto" and num_gpus == 0):
            return cls(num_cpus, 0.0, ceil(total / num_nodes))
        if num_gpus < num_workers:
            raise ConfigError(
                f"Each arm wants {num_workers} GPU workers, the cluster has {num_gpus} GPUs.",
                remedy="Lower num_workers, add GPUs, or set device=cpu.",
            )
        arms_per_gpu = ceil(total / num_gpus)
        return cls(num_cpus, int(100 / arms_per_gpu) / 100, ceil(total / num_nodes))


@dataclass
class _Arm:
    """One running arm: its trainer's thread, the sentences of its failure, and what is shown of it."""

    plan: ArmPlan
    thread: threading.Thread
    errors: list[str]
    shown_step: int
    progress: Progress | None = None

    def show(self, stack: ExitStack) -> None:
        """Bring the progress bar to the newest logged step; the bar begins with this session's first."""
        points = read_metrics(RunFolder(self.plan.run_uri).metrics)
        last_step = int(points[-1]["step"]) if points else -1
        is_new = last_step > self.shown_step or last_step == 0
        if is_new and self.progress is None:
            total = self.plan.recipe.loop.num_steps - self.shown_step
            self.progress = stack.enter_context(Progress(f"train {self.plan.arm}", total, "step"))
        if self.progress is not None and last_step > self.shown_step:
            self.progress.advance(last_step - self.shown_step, _note(points))
            self.shown_step = last_step


def train_arms(
    plans: Sequence[ArmPlan], resources: Resources, num_workers: int, max_restarts: int, stop: threading.Event
) -> dict[str, str]:
    """Train all arms at the same time; returns arm -> sentence for those that failed. One failing leaves the others be.

    When `stop` is set, the arms write a checkpoint and leave.
    """
    if "RAY_ADDRESS" not in os.environ:
        for name, value in _LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    _log.info("Starting %s (on a free machine 10 to 20 s) …", " and ".join(plan.arm for plan in plans))
    with ExitStack() as stack:
        storage = stack.enter_context(_ray_storage(plans[0].stop_uri.rsplit("/", 1)[0]))
        arms = []
        for plan in plans:
            paths.remove(paths.join(plan.run_uri, FAILED))
            checkpoint = newest_checkpoint(RunFolder(plan.run_uri))
            errors: list[str] = []
            work = (plan, resources, num_workers, max_restarts, storage, errors)
            thread = threading.Thread(target=_fit, args=work, name=f"dmma-train-{plan.arm}", daemon=True)
            arms.append(_Arm(plan, thread, errors, checkpoint.step if checkpoint else 0))
            thread.start()
        told = False
        while any(arm.thread.is_alive() for arm in arms):
            if stop.is_set() and not told:
                told = True
                paths.write_bytes(plans[0].stop_uri, b"")
                _log.info("Stopping: every arm writes a checkpoint first. Interrupt again to leave at once.")
            time.sleep(_POLL_S)
            for arm in arms:
                arm.show(stack)
    paths.remove(plans[0].stop_uri)
    return {arm.plan.arm: " ".join(arm.errors) for arm in arms if arm.errors}


def _fit(
    plan: ArmPlan, resources: Resources, num_workers: int, max_restarts: int, storage: str, errors: list[str]
) -> None:
    use_gpu = resources.num_gpus > 0
    filesystem, path = paths.arrow_filesystem_of(storage)
    share = {"CPU": resources.num_cpus, **({"GPU": resources.num_gpus} if use_gpu else {})}
    trainer = TorchTrainer(
        run_worker,
        train_loop_config={"plan": plan, "workers_per_node": resources.workers_per_node},
        scaling_config=ScalingConfig(num_workers=num_workers, use_gpu=use_gpu, resources_per_worker=share),
        run_config=RunConfig(
            name=plan.arm,
            storage_path=path,
            storage_filesystem=filesystem if paths.is_remote(storage) else None,
            failure_config=FailureConfig(max_failures=max_restarts),
        ),
    )
    try:
        trainer.fit()
    except Exception as error:  # the edge to Ray: the arm's end becomes a sentence, the other arm goes on
        if not paths.exists(paths.join(plan.run_uri, FAILED)):
            _log.debug("Ray Train ended %s", plan.arm, exc_info=True)
            errors.append(f"Its workers ended unexpectedly ({_reason(error)}).")
    if paths.exists(failed_uri := paths.join(plan.run_uri, FAILED)):
        record = paths.read_json(failed_uri)
        errors[:] = [f"{record['message']} {record['remedy']}".strip()]


def _reason(error: Exception) -> str:
    """What ended the workers, in a few words of Ray's many."""
    text = str(error).strip()
    if "out of memory" in text.lower() or "OutOfMemory" in text:
        return "a machine ran out of memory: take smaller batches, one arm at a time (only=…), or a larger machine"
    return (text.splitlines() or [type(error).__name__])[-1][:300]


@contextmanager
def _ray_storage(comparison_uri: str) -> Iterator[str]:
    """A place for Ray Train's bookkeeping, removed afterwards; checkpoints go to the run's own folder.

    Every node must see it, so it lies in the bucket where the runs do.
    """
    if paths.is_remote(comparison_uri):
        uri = paths.join(comparison_uri, "ray-train")
        try:
            yield uri
        finally:
            paths.remove(uri)
        return
    with tempfile.TemporaryDirectory(prefix="dmma-ray-train-", ignore_cleanup_errors=True) as folder:
        yield folder


def _note(points: Sequence[Point]) -> str:
    """The newest value of what a person wants to see while waiting."""
    newest: Point = {}
    for point in points:
        newest.update(point)
    shown = (("train/loss", "loss {:.3f}"), ("val/loss", "val {:.3f}"), ("train/samples_per_s", "{:.0f} clips/s"))
    return ", ".join(text.format(newest[name]) for name, text in shown if name in newest)


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; a second one raises KeyboardInterrupt."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
