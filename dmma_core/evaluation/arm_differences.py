"""Differences of two arms beyond depth: only without any does a comparison show the effect of depth alone."""

from collections.abc import Mapping
from typing import Any

from dmma_core.recipe import BOOKKEEPING, Changes, changes_between

# Settings without effect in an arm without depth.
DEPTH_SETTINGS = {
    "model.depth",
    "model.fusion",
    "model.num_depth_scalars",
    "recipe.dropout.depth",
    "recipe.dropout.depth_with_video",
    "sampling.guidance_depth",
}


def differences_beyond_depth(first: Mapping[str, Any], second: Mapping[str, Any]) -> Changes:
    """Dotted name -> (value of the first arm, of the second) for all settings in two reports that may explain a difference.

    Compared are network, recipe and its changes during training, data, initial weights, code and libraries of training,
    the checkpoint, and sampling. Depth itself and settings that do not affect the weights are excluded. If both arms
    use their checkpoint of the lowest validation loss, its step is a result, not a setting.
    """
    found = changes_between(_settings(first), _settings(second), "")
    return {name: pair for name, pair in found.items() if name not in DEPTH_SETTINGS | BOOKKEEPING}


def _settings(report: Mapping[str, Any]) -> dict[str, Any]:
    training = report["training"]
    provenance = training["provenance"] or {}
    settings = {name: training[name] for name in ("model", "recipe", "features_fingerprint", "init_sha256", "source")}
    return {
        **settings,
        "recipe_changes": _without_bookkeeping(training["recipe_changes"] or []),
        "code": {name: provenance.get(name) for name in ("git_commit", "libraries")},
        "checkpoint": training["choice"] if training["choice"] == "best" else report["step"],
        "weights": report["weights"],
        "sampling": report["sampling"],
    }


def _without_bookkeeping(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history of a run's recipe without changes of the number of steps and of intervals."""
    kept = [
        {**entry, "changes": {name: pair for name, pair in entry["changes"].items() if name not in BOOKKEEPING}}
        for entry in history
    ]
    return [entry for entry in kept if entry["changes"]]
