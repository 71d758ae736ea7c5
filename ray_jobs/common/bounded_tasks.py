"""Many small Ray tasks, one CPU each, of which a few are in flight: a million items do not fill the scheduler."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

Arguments = TypeVar("Arguments", bound=tuple[object, ...])
Result = TypeVar("Result")
_IN_FLIGHT_PER_CPU = 2
_MAX_RETRIES = 2


def bounded_tasks(
    function: Callable[..., Result],
    calls: Iterable[Arguments],
    *,
    in_order: bool = False,
    when_killed: Callable[[Arguments, RayError], Result] | None = None,
) -> Iterator[Result]:
    """Results of `function(*arguments)` for all `calls`, in the order of completion or, `in_order`, of the calls.

    What `function` raises is raised here. A call whose worker process dies in every try gives the result of
    `when_killed`; without `when_killed` it raises RayError.
    """
    task = ray.remote(num_cpus=1, max_retries=_MAX_RETRIES)(function)
    window = _IN_FLIGHT_PER_CPU * max(1, int(ray.cluster_resources().get("CPU", 1)))
    waiting = iter(calls)
    running: dict[ray.ObjectRef, Arguments] = {}
    while True:
        for arguments in islice(waiting, window - len(running)):
            running[task.remote(*arguments)] = arguments
        if not running:
            return
        reference = next(iter(running)) if in_order else ray.wait(list(running))[0][0]
        arguments = running.pop(reference)
        try:
            result: Result = ray.get(reference)
        except RayTaskError:
            raise
        except RayError as error:
            if when_killed is None:
                raise
            result = when_killed(arguments, error)
        yield result
