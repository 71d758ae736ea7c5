"""Train all arms on one cluster: one Ray Train trainer per thread, monitored through the metrics files.

The driver holds the lease on each arm's run folder; worker 0 of the arm checks it on the storage whenever it checks for
the stop file, and before it writes. When the driver dies its workers end within a minute. A new driver may start before
that: its lease has another token, and the old workers stop when they see it.
"""

import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType

from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from dmma_core.errors import DmmaError
from dmma_core.log import Progress
from dmma_core.storage import paths
from dmma_core.storage.metrics_log import MetricsPoint, read_metrics
from dmma_core.storage.run_folder import RunFolder
from dmma_core.training.arm import ArmPlan, newest_checkpoint
from ray_jobs.common.placement import Placement
from ray_jobs.stages.train_worker import FAILED, run_worker

_log = logging.getLogger(__name__)
_POLL_S = 1.0
# One machine has no notice of preemption and no reader of Ray's own metrics; each would cost two more processes.
_LOCAL_ENVIRONMENT = {
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
}


@dataclass
class _Arm:
    """One running arm: its trainer's thread, its error messages, and its progress bar."""

    plan: ArmPlan
    thread: threading.Thread
    errors: list[str]
    shown_step: int
    progress: Progress | None = None

    def show(self, stack: ExitStack) -> None:
        """Advance the progress bar to the newest logged step; the bar starts at this session's first step."""
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
    plans: Sequence[ArmPlan], placement: Placement, max_restarts: int, stop: threading.Event
) -> dict[str, str]:
    """Train all arms as placed; returns arm -> error message of those that failed. The other arms continue.

    When `stop` is set, the running arms write a checkpoint and stop; waiting arms do not start.
    """
    if "RAY_ADDRESS" not in os.environ:
        for name, value in _LOCAL_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
    _log.info("%s", placement)
    failed: dict[str, str] = {}
    for group in placement.groups:
        if not stop.is_set():
            failed |= _train_group([plan for plan in plans if plan.arm in group], placement, max_restarts, stop)
    return failed


def _train_group(
    plans: Sequence[ArmPlan], placement: Placement, max_restarts: int, stop: threading.Event
) -> dict[str, str]:
    """Train these arms at the same time."""
    _log.info("Starting %s (on a free machine 10 to 20 s) …", " and ".join(plan.arm for plan in plans))
    with ExitStack() as stack:
        arms = []
        for plan in plans:
            paths.remove(plan.stop_uri)
            paths.remove(paths.join(plan.run_uri, FAILED))
            checkpoint = newest_checkpoint(RunFolder(plan.run_uri))
            errors: list[str] = []
            storage = stack.enter_context(_ray_storage(plan.run_uri))
            work = (plan, placement, max_restarts, storage, errors)
            thread = threading.Thread(target=_fit, args=work, name=f"dmma-train-{plan.arm}", daemon=True)
            arms.append(_Arm(plan, thread, errors, checkpoint.step if checkpoint else 0))
            thread.start()
        is_stopping = False
        while any(arm.thread.is_alive() for arm in arms):
            if stop.is_set() and not is_stopping:
                is_stopping = True
                for plan in plans:
                    paths.write_bytes(plan.stop_uri, b"")
                _log.info("Stopping: every arm writes a checkpoint first. Interrupt again to stop at once.")
            time.sleep(_POLL_S)
            for arm in arms:
                arm.show(stack)
    for plan in plans:
        paths.remove(plan.stop_uri)
    return {arm.plan.arm: " ".join(arm.errors) for arm in arms if arm.errors}


def _fit(plan: ArmPlan, placement: Placement, max_restarts: int, storage: str, errors: list[str]) -> None:
    use_gpu = placement.gpus_per_worker > 0
    filesystem, path = paths.arrow_filesystem_of(storage)
    share = {"CPU": placement.cpus_per_worker, **({"GPU": placement.gpus_per_worker} if use_gpu else {})}
    trainer = TorchTrainer(
        run_worker,
        train_loop_config={"plan": plan, "workers_per_node": placement.workers_per_node},
        scaling_config=ScalingConfig(
            num_workers=placement.workers_per_arm, use_gpu=use_gpu, resources_per_worker=share
        ),
        run_config=RunConfig(
            name=plan.arm,
            storage_path=path,
            storage_filesystem=filesystem if paths.is_remote(storage) else None,
            failure_config=FailureConfig(max_failures=max_restarts),
        ),
    )
    reason = ""
    try:
        trainer.fit()
    except Exception as error:  # the edge to Ray: the failure becomes a message, the other arms continue
        _log.debug("Ray Train ended %s", plan.arm, exc_info=True)
        reason = f"Its workers ended unexpectedly ({_reason(error)})."
    try:
        if plan.lease:
            plan.lease.require()  # otherwise the folder and its FAILED.json belong to another job
        if paths.exists(failed_uri := paths.join(plan.run_uri, FAILED)):
            record = paths.read_json(failed_uri)
            reason = f"{record['message']} {record['remedy']}".strip()
    except DmmaError as error:
        reason = str(error)
    errors += [reason] if reason else []


def _reason(error: Exception) -> str:
    """Short reason why the workers ended, from Ray's long message."""
    text = str(error).strip()
    if "out of memory" in text.lower() or "OutOfMemory" in text:
        return "a machine ran out of memory: take smaller batches, one arm at a time (only=…), or a larger machine"
    return (text.splitlines() or [type(error).__name__])[-1][:300]


@contextmanager
def _ray_storage(run_uri: str) -> Iterator[str]:
    """A folder for Ray Train's own state, removed afterwards; checkpoints are not stored there.

    Every node must reach it, so the folder of a run in a bucket is in that bucket.
    """
    if paths.is_remote(run_uri):
        uri = paths.join(run_uri, "ray-train")
        try:
            yield uri
        finally:
            paths.remove(uri)
        return
    with tempfile.TemporaryDirectory(prefix="dmma-ray-train-", ignore_cleanup_errors=True) as folder:
        yield folder


def _note(points: Sequence[MetricsPoint]) -> str:
    """Newest loss, validation loss and speed, for the progress bar."""
    newest: MetricsPoint = {}
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
