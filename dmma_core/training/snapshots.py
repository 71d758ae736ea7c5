"""Snapshots of the tracked averages, and averages of other lengths computed from them after training.

ema_snapshots/step=000000500.safetensors        the tracked averages after that step
"""

from collections.abc import Sequence

import numpy as np

from dmma_core.errors import CheckpointError, ConfigError, StorageError
from dmma_core.log import progress
from dmma_core.recipe import MAX_SIGMA_REL, check_sigma_rel
from dmma_core.storage import paths
from dmma_core.storage.run_folder import EMA, Checkpoint, RunFolder, step_name, step_of
from dmma_core.storage.tensor_files import read_tensors, write_tensors
from dmma_core.training.checkpoint import SOURCE, write_checkpoint
from dmma_core.training.ema import EmaSnapshot, Synthesis, combine_snapshots, solve_synthesis

_SUFFIX = ".safetensors"
_MAX_MISFIT = 0.05  # above it the weights of a synthesis sum to less than 0.96, which would shrink the network


def save_snapshot(folder: RunFolder, snapshot: EmaSnapshot) -> None:
    write_tensors(_snapshot_uri(folder, snapshot.step), snapshot.to_tensors())


def snapshot_steps(folder: RunFolder, last_step: int) -> list[int]:
    """Steps of the stored snapshots up to `last_step`, ascending. Later ones belong to an interrupted session."""
    base = paths.join(folder.uri, "ema_snapshots")
    if not paths.exists(base):
        return []
    names = (uri[len(base) + 1 :].removesuffix(_SUFFIX) for uri in paths.list_files(base, _SUFFIX))
    return [step for step in map(step_of, names) if step is not None and step <= last_step]


def read_snapshot(folder: RunFolder, step: int) -> EmaSnapshot:
    return EmaSnapshot.from_tensors(step, read_tensors(_snapshot_uri(folder, step)))


def write_averages(
    run: RunFolder, sigma_rels: Sequence[float], folders: Sequence[RunFolder], step: int | None = None
) -> list[Checkpoint]:
    """Write averages of the lengths `sigma_rels` from the snapshots of `run`, each as the only network of its folder.

    They are the averages at `step` (default: that of the newest snapshot). Each has an arm name of its own, so that
    averages of one run can be compared. Raises CheckpointError if there are no such snapshots, ConfigError for a length
    that they cannot represent and StorageError if a folder holds another run; nothing is written then.
    """
    newest = run.checkpoint()
    steps = _steps_up_to(run, newest, step)
    tracked: list[float] = newest.record["ema"]["tracked_sigma_rel"]
    syntheses = [_checked_synthesis(steps, tracked, sigma_rel) for sigma_rel in sigma_rels]
    sources = [{"run": paths.absolute(run.uri), "sigma_rel": sigma_rel} for sigma_rel in sigma_rels]
    for folder, source in zip(folders, sources, strict=True):
        if any(folder.checkpoint(at).record.get(SOURCE) != source for at in folder.complete_steps()):
            raise StorageError(f"{folder.uri} holds another run.", remedy="Give another --run.")
        paths.check_writable(folder.uri)
    network = newest.read(EMA)  # for the latent statistics, which are the same in every step
    averages = combine_snapshots(
        (read_snapshot(run, at) for at in progress(steps, "average", len(steps), "snapshot")), syntheses
    )
    written = []
    for synthesis, folder, source, average in zip(syntheses, folders, sources, averages, strict=True):
        record = {
            "step": steps[-1],
            "arm": f"{newest.record['arm']}-{length_name(synthesis.sigma_rel)}",
            "model": newest.record["model"],
            "features": newest.record["features"],
            "ema": {
                "step": steps[-1],
                "sigma_rel": synthesis.sigma_rel,
                "misfit": synthesis.misfit,
                "snapshots": steps,
            },
            "recipe": newest.record["recipe"],
            "recipe_changes": newest.record["recipe_changes"],
            "features_fingerprint": newest.record["features_fingerprint"],
            "init_sha256": newest.record["init_sha256"],
            SOURCE: source,
        }
        written.append(write_checkpoint(folder, {EMA: {**network, **average}}, record))
    return written


def length_name(sigma_rel: float) -> str:
    """The length of an average in names of folders and arms: sigma0.08."""
    return f"sigma{sigma_rel:g}"


def _steps_up_to(run: RunFolder, newest: Checkpoint, step: int | None) -> list[int]:
    """Steps of the snapshots for the average at `step`, which is the last one."""
    steps = snapshot_steps(run, newest.step)
    if not steps:
        raise CheckpointError(
            f"{run.uri} has no snapshots of averages up to its checkpoint of step {newest.step}.",
            remedy="Give a training run; it stores one every ema.snapshot_every steps.",
        )
    if step is not None and step not in steps:
        near = sorted(sorted(steps, key=lambda at: abs(at - step))[:3])
        raise CheckpointError(
            f"{run.uri} has no snapshot of step {step}; the nearest are of {', '.join(map(str, near))}, "
            f"the last is of {steps[-1]}.",
            remedy="Give the step of a snapshot, or none for the last.",
        )
    return [at for at in steps if step is None or at <= step]


def _checked_synthesis(steps: Sequence[int], tracked: Sequence[float], sigma_rel: float) -> Synthesis:
    """The synthesis at the last of `steps`. Raises ConfigError if the misfit is too large."""
    check_sigma_rel(sigma_rel)
    synthesis = solve_synthesis(steps, tracked, sigma_rel, steps[-1])
    if synthesis.misfit > _MAX_MISFIT:
        candidates = [*tracked, *np.arange(0.005, MAX_SIGMA_REL, 0.005).round(3).tolist()]
        possible = [
            length for length in candidates if solve_synthesis(steps, tracked, length, steps[-1]).misfit <= _MAX_MISFIT
        ]
        raise ConfigError(
            f"An average of sigma_rel {sigma_rel:g} is out of reach: the {len(steps)} snapshots up to step {steps[-1]}, "
            f"of averages of {' and '.join(map(str, tracked))}, would miss its profile by {synthesis.misfit:.0%}.",
            remedy=f"Give a length from {min(possible):g} to {max(possible):g}.",
        )
    return synthesis


def _snapshot_uri(folder: RunFolder, step: int) -> str:
    return paths.join(folder.uri, "ema_snapshots", step_name(step) + _SUFFIX)
