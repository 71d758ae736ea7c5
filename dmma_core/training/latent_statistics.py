"""Mean and standard deviation of the training latents, with which the flow network whitens them."""

from dataclasses import dataclass

import numpy as np

from dmma_core.data.feature_store import FeatureStore
from dmma_core.errors import SchemaError, StorageError
from dmma_core.storage import paths


@dataclass(frozen=True)
class LatentStatistics:
    """Per latent channel (C numbers each)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


def latent_statistics(store: FeatureStore, split: str = "train") -> LatentStatistics:
    """Mean and unbiased standard deviation of the posterior means, over the clips and time steps of a split.

    Raises SchemaError for a channel that never changes: it could not be whitened.
    """
    rows = store.rows_of_split(split)
    num_channels = store.schema.spec("latent_mean").shape[1]
    total_C, squares_C, count = np.zeros(num_channels), np.zeros(num_channels), 0
    shift_C = store.read(rows[0])["latent_mean"].astype(np.float64).mean(axis=0)  # keeps the squares small
    for row in rows:
        shifted_LC = store.read(row)["latent_mean"].astype(np.float64) - shift_C
        total_C += shifted_LC.sum(axis=0)
        squares_C += (shifted_LC**2).sum(axis=0)
        count += len(shifted_LC)
    variance_C = (squares_C - total_C**2 / count) / (count - 1)
    if (variance_C <= 0).any():
        channels = np.flatnonzero(variance_C <= 0).tolist()
        raise SchemaError(
            f"The latent channels {channels[:5]} of {store.uri} never change in the split {split!r}.",
            remedy="Train on more clips, or look at the audio of these.",
        )
    mean_C = shift_C + total_C / count
    return LatentStatistics(tuple(mean_C.tolist()), tuple(np.sqrt(variance_C).tolist()))


def stored_latent_statistics(uri: str, store: FeatureStore) -> LatentStatistics:
    """The statistics kept at `uri` (JSON), computed and written there first if they are absent or of other features."""
    try:
        record = paths.read_json(uri) if paths.exists(uri) else {}
    except StorageError:
        record = {}
    if record.get("features_fingerprint") == store.fingerprint:
        return LatentStatistics(tuple(record["mean"]), tuple(record["std"]))
    made = latent_statistics(store)
    paths.write_json(uri, {"features_fingerprint": store.fingerprint, "mean": list(made.mean), "std": list(made.std)})
    return made
