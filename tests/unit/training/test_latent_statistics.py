"""Whitening statistics: the published definition, kept with the run."""

from pathlib import Path

import numpy as np
import pytest

from dmma_core.data.feature_store import FeatureStore
from dmma_core.errors import SchemaError
from dmma_core.training.latent_statistics import latent_statistics, stored_latent_statistics
from helpers.features import write_feature_set


def test_mean_and_unbiased_deviation_over_clips_and_time_of_the_training_split(tmp_path: Path) -> None:
    store = write_feature_set(tmp_path / "features", num_clips=7, num_val=3)
    stacked = np.concatenate([store.read(row)["latent_mean"] for row in store.rows_of_split("train")]).astype(
        np.float64
    )
    made = latent_statistics(store)
    np.testing.assert_allclose(made.mean, stacked.mean(axis=0), atol=1e-9)
    np.testing.assert_allclose(made.std, stacked.std(axis=0, ddof=1), rtol=1e-9)


def test_a_channel_that_never_changes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = write_feature_set(tmp_path / "features", num_clips=3)
    read = FeatureStore.read

    def flat_channel(self: FeatureStore, row: int) -> dict[str, np.ndarray]:
        features = read(self, row)
        return {**features, "latent_mean": np.where(np.arange(40) == 2, 0, features["latent_mean"])}

    monkeypatch.setattr(FeatureStore, "read", flat_channel)
    with pytest.raises(SchemaError, match=r"channels \[2\]"):
        latent_statistics(store)


def test_kept_with_the_run_and_made_anew_for_other_features(tmp_path: Path) -> None:
    first = write_feature_set(tmp_path / "first", num_clips=4)
    second = write_feature_set(tmp_path / "second", num_clips=4, seed=1)
    uri = str(tmp_path / "statistics.json")
    made = stored_latent_statistics(uri, first)
    assert stored_latent_statistics(uri, first) == made
    assert stored_latent_statistics(uri, second) != made
