"""What two arms differ in beyond depth: only where that is nothing does a comparison show the effect of depth alone."""

from collections.abc import Mapping
from typing import Any

from dmma_core.recipe import BOOKKEEPING, Changes, changes_between

# Settings that an arm without depth has no use for.
OF_DEPTH = {
    "model.depth",
    "model.fusion",
    "model.num_depth_scalars",
    "recipe.dropout.depth",
    "recipe.dropout.depth_with_video",
    "sampling.guidance_depth",
}


def differences_beyond_depth(first: Mapping[str, Any], second: Mapping[str, Any]) -> Changes:
    """Dotted name -> (value of the first arm, of the second) of everything in two reports that may explain a difference.

    Compared are network, recipe and its changes in mid-training, data, initial weights, code and libraries of training,
    the checkpoint, and sampling. Left out are depth itself and settings that decide no weights. Where both arms took
    their checkpoint of the lowest validation loss, its step is a result and no setting.
    """
    found = changes_between(_settings(first), _settings(second), "")
    return {name: pair for name, pair in found.items() if name not in OF_DEPTH | BOOKKEEPING}


def _settings(report: Mapping[str, Any]) -> dict[str, Any]:
    training = report["training"]
    provenance = training["provenance"] or {}
    settings = {name: training[name] for name in ("model", "recipe", "features_fingerprint", "init_sha256", "source")}
    return {
        **settings,
        "recipe_changes": _without_bookkeeping(training["recipe_changes"] or []),
        "code.git_commit": provenance.get("git_commit"),
        "code.libraries": provenance.get("libraries"),
        "checkpoint": training["choice"] if training["choice"] == "best" else report["step"],
        "weights": report["weights"],
        "sampling": report["sampling"],
    }


def _without_bookkeeping(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history of a run's recipe, of which more steps or another interval are no part."""
    kept = [
        {**entry, "changes": {name: pair for name, pair in entry["changes"].items() if name not in BOOKKEEPING}}
        for entry in history
    ]
    return [entry for entry in kept if entry["changes"]]
