"""Means and standard deviations of a training set, with which the flow network normalises latents and depth scalars."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dmma_core.data.feature_store import FeatureStore
from dmma_core.errors import SchemaError, StorageError
from dmma_core.storage import paths

_MIN_LATENT_STD = 1e-6
_MIN_SCALAR_STD = 0.01  # scalars are logarithms and ratios: a smaller deviation is noise


@dataclass(frozen=True)
class ColumnStatistics:
    """Mean and unbiased standard deviation of each channel of one column."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Normalisation:
    """Statistics of the latents' means (C channels) and of the depth scalars (K)."""

    latent: ColumnStatistics
    depth_scalars: ColumnStatistics


def normalisation_of(store: FeatureStore) -> Normalisation:
    """Statistics over the clips and time steps of the training split: latents as in the published training; depth scalars over
    clips with video only (without such clips: mean 0, deviation 1).

    Raises SchemaError for a latent channel that never changes, which cannot be normalised.
    """
    rows = store.rows_of_split("train")
    latent = column_statistics(store, "latent_mean", rows)
    if constant := [channel for channel, std in enumerate(latent.std) if std < _MIN_LATENT_STD]:
        raise SchemaError(
            f"The latent channels {constant[:5]} of {store.uri} never change in the split 'train'.",
            remedy="Train on more clips, or check the audio of these.",
        )
    with_video = [row for row in rows if store.clips[row].has_video]
    num_scalars = len(store.schema.depth_scalar_names)
    scalars = ColumnStatistics((0.0,) * num_scalars, (1.0,) * num_scalars)
    if with_video:
        found = column_statistics(store, "depth_scalars", with_video)
        scalars = ColumnStatistics(found.mean, tuple(max(std, _MIN_SCALAR_STD) for std in found.std))
    return Normalisation(latent, scalars)


def column_statistics(store: FeatureStore, column: str, rows: Sequence[int]) -> ColumnStatistics:
    """Statistics over all `rows` and time steps of a column of shape [T, C], in double precision."""
    num_channels = store.schema.spec(column).shape[1]
    total_C, squares_C, count = np.zeros(num_channels), np.zeros(num_channels), 0
    shift_C = np.zeros(num_channels)
    for values_TC in store.read_column(column, rows):
        wide_TC = values_TC.astype(np.float64)
        if not count:
            shift_C = wide_TC.mean(axis=0)  # keeps the squares small
        shifted_TC = wide_TC - shift_C
        total_C += shifted_TC.sum(axis=0)
        squares_C += (shifted_TC**2).sum(axis=0)
        count += len(shifted_TC)
    variance_C = np.maximum(squares_C - total_C**2 / count, 0) / max(count - 1, 1)
    mean_C = shift_C + total_C / count
    return ColumnStatistics(tuple(mean_C.tolist()), tuple(np.sqrt(variance_C).tolist()))


def stored_normalisation(uri: str, store: FeatureStore) -> Normalisation:
    """The statistics stored at `uri` (JSON); computed and written there if they are absent or of other features."""
    try:
        record = paths.read_json(uri) if paths.exists(uri) else {}
    except StorageError:
        record = {}
    if record.get("features_fingerprint") == store.fingerprint:
        return Normalisation(*(_from_record(record[column]) for column in ("latent", "depth_scalars")))
    computed = normalisation_of(store)
    paths.write_json(uri, {"features_fingerprint": store.fingerprint, **asdict(computed)})
    return computed


def _from_record(values: dict[str, list[float]]) -> ColumnStatistics:
    return ColumnStatistics(tuple(values["mean"]), tuple(values["std"]))
