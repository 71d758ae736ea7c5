import itertools
import threading
import time

import numpy as np
import pytest
import torch

from dmma_core.data.batching import ClipBatch, collate, prefetch, training_batches
from dmma_core.data.feature_store import FeatureStore
from dmma_core.data.mixing import SampleOrder, Source
from helpers.rows import make_features, write_features


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    uri = str(tmp_path_factory.mktemp("batching") / "set")
    write_features(uri, num_clips=13)
    return FeatureStore(uri)


def steps(store: FeatureStore, first_sample: int, num: int, rank: int = 0, world_size: int = 1) -> list[ClipBatch]:
    order = SampleOrder([Source(0, range(len(store)))], seed=3)
    batches = training_batches([store], order, first_sample, 4, rank, world_size)
    return list(itertools.islice(batches, num))


def test_a_batch_has_the_stored_values(store: FeatureStore) -> None:
    batch = collate([store], [(0, 7), (0, 2)], [100, 101])
    assert batch.clip_ids == ("clip-0007", "clip-0002")
    assert batch.sample_B.tolist() == [100, 101] and batch.has_video_B.tolist() == [True, True]
    assert batch.depth_BTD.shape == (2, 2, 3) and batch.depth_BTD.dtype == torch.float16
    for name, values in (("sync", batch.sync_BSD), ("latent_std", batch.latent_std_BLC)):
        np.testing.assert_array_equal(values[0].numpy(), make_features(7)[name])
    assert batch.text_BND[:, 0, 0].tolist() == [1, 2]


def test_batches_own_their_memory(store: FeatureStore) -> None:
    batch = collate([store], [(0, 7)], [0])
    batch.rgb_BTD.zero_()
    assert collate([store], [(0, 7)], [0]).rgb_BTD.any()
    assert batch.to("cpu").clip_ids == batch.clip_ids


def test_two_workers_together_have_the_batch_of_one(store: FeatureStore) -> None:
    alone = steps(store, 0, 6)
    pairs = zip(steps(store, 0, 6, 0, 2), steps(store, 0, 6, 1, 2), strict=True)
    for whole, (left, right) in zip(alone, pairs, strict=True):
        assert whole.clip_ids == left.clip_ids + right.clip_ids
        assert whole.sample_B.tolist() == left.sample_B.tolist() + right.sample_B.tolist()


def test_a_run_resumes_at_any_sample(store: FeatureStore) -> None:
    whole, resumed = steps(store, 0, 8), steps(store, 12, 5)
    assert [batch.clip_ids for batch in whole[3:]] == [batch.clip_ids for batch in resumed]
    assert resumed[0].sample_B.tolist() == [12, 13, 14, 15]


def test_prefetching_is_bounded_and_ends_with_its_consumer(store: FeatureStore) -> None:
    asked: list[int] = []

    def read(index: int) -> ClipBatch:
        asked.append(index)
        return collate([store], [(0, index % 13)], [index])

    batches = prefetch(read)
    assert next(batches).sample_B.tolist() == [0]
    time.sleep(0.3)
    assert len(asked) <= 7
    batches.close()
    deadline_s = time.monotonic() + 5
    while any(thread.name == "dmma-read-ahead" for thread in threading.enumerate()):
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_an_error_of_the_reader_is_raised_in_the_consumer(store: FeatureStore) -> None:
    def read(index: int) -> ClipBatch:
        if index == 2:
            raise OSError("the disk went away")
        return collate([store], [(0, index)], [index])

    batches = prefetch(read)
    assert len(list(itertools.islice(batches, 2))) == 2
    with pytest.raises(OSError, match="the disk went away"):
        next(batches)
