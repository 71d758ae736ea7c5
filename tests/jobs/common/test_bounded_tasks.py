"""Bounded tasks on a real Ray: order, how many are in flight, errors, and calls that kill their worker."""

from collections.abc import Iterator

import pytest
from ray.exceptions import WorkerCrashedError

from dmma_core.errors import StorageError
from helpers.tasks import square
from ray_jobs.common.bounded_tasks import bounded_tasks
from ray_jobs.common.runtime import plain_errors


def test_all_results_come_once_in_the_order_asked_for(ray_cluster: None) -> None:
    in_order = list(bounded_tasks(square, ((number, 0) for number in range(20)), in_order=True))
    assert in_order == [number * number for number in range(20)]
    as_ready = list(bounded_tasks(square, ((number, 0) for number in range(20))))
    assert sorted(as_ready) == in_order
    assert as_ready[0] != 0
    assert list(bounded_tasks(square, [])) == []


def test_only_a_few_calls_are_taken_ahead(ray_cluster: None) -> None:
    import ray

    taken: list[int] = []

    def calls() -> Iterator[tuple[int]]:
        for number in range(1000):
            taken.append(number)
            yield (number,)

    assert next(bounded_tasks(square, calls())) >= 0
    assert len(taken) == 2 * int(ray.cluster_resources()["CPU"])


def test_a_call_that_kills_its_worker_is_replaced_or_raised(ray_cluster: None) -> None:
    calls = [(number, -1, 2) for number in range(4)]
    replaced = bounded_tasks(square, calls, in_order=True, when_killed=lambda call, error: -call[0])
    assert list(replaced) == [0, 1, -2, 9]
    with pytest.raises(WorkerCrashedError):
        list(bounded_tasks(square, calls))


def test_an_error_of_the_function_is_raised(ray_cluster: None) -> None:
    calls = [(number, -1, -1, 1) for number in range(4)]
    with pytest.raises(StorageError, match=r"There is no 1\."), plain_errors():
        list(bounded_tasks(square, calls, when_killed=lambda call, error: 0))
