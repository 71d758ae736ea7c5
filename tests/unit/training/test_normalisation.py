"""Normalisation statistics: the published definition, stored with the run."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from dmma_core.data.feature_store import FeatureStore
from dmma_core.errors import SchemaError
from dmma_core.training.normalisation import normalisation_of, stored_normalisation
from helpers.features import write_feature_set


def test_mean_and_unbiased_deviation_over_clips_and_time_of_the_training_split(tmp_path: Path) -> None:
    store = write_feature_set(tmp_path / "features", num_clips=7, num_val=3)
    stacked = np.concatenate([store.read(row)["latent_mean"] for row in store.rows_of_split("train")]).astype(
        np.float64
    )
    made = normalisation_of(store).latent
    np.testing.assert_allclose(made.mean, stacked.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(made.std, stacked.std(axis=0, ddof=1), rtol=1e-9)


def test_depth_scalars_of_clips_with_video(tmp_path: Path) -> None:
    store = write_feature_set(tmp_path / "features", num_clips=7)
    stacked = np.concatenate([store.read(row)["depth_scalars"] for row in store.rows_of_split("train")])
    made = normalisation_of(store).depth_scalars
    np.testing.assert_allclose(made.mean, stacked.astype(np.float64).mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(made.std, stacked.astype(np.float64).std(axis=0, ddof=1), rtol=1e-9)
    blind = write_feature_set(tmp_path / "blind", num_clips=3, has_video=False)
    assert set(normalisation_of(blind).depth_scalars.mean) == {0.0}
    assert set(normalisation_of(blind).depth_scalars.std) == {1.0}


def test_a_channel_that_never_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write_feature_set(tmp_path / "features", num_clips=3)
    read_column = FeatureStore.read_column

    def flat_channel(self: FeatureStore, name: str, rows: Iterable[int]) -> Iterator[np.ndarray]:
        return (np.where(np.arange(values.shape[1]) == 2, 0.1, values) for values in read_column(self, name, rows))

    monkeypatch.setattr(FeatureStore, "read_column", flat_channel)
    with pytest.raises(SchemaError, match=r"channels \[2\]"):
        normalisation_of(store)


def test_stored_with_the_run_and_computed_again_for_other_features(tmp_path: Path) -> None:
    first = write_feature_set(tmp_path / "first", num_clips=4)
    second = write_feature_set(tmp_path / "second", num_clips=4, seed=1)
    uri = str(tmp_path / "statistics.json")
    made = stored_normalisation(uri, first)
    assert stored_normalisation(uri, first) == made
    assert stored_normalisation(uri, second) != made
