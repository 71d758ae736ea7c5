"""Measuring: runs that take turns, ratios, and one JSON line a figure (name, value, unit, bar, ok)."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Clock = Callable[[], float]


def figure(name: str, value: float, unit: str, bar: float | None = None, at_most: bool = False) -> bool:
    """Print the figure; `ok` says whether it reaches its bar (or stays below it). True where there is no bar."""
    ok = None if bar is None else value <= bar if at_most else value >= bar
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, "bar": bar, "ok": ok}), flush=True)
    return ok is not False


def seconds(run: Callable[[], object], clock: Clock) -> float:
    start = clock()
    run()
    return clock() - start


def timed_in_turns(runs: Mapping[str, Callable[[], object]], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of each run in each round, after one round that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            value = seconds(run, clock)
            if index > 0:
                taken[name].append(value)
    return taken


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def require_equal(own: Tensor, plain: Tensor, what: str, relative: float = 1e-4) -> None:
    difference, size = float((own - plain).abs().max()), float(plain.abs().max())
    if not difference <= relative * size:
        sys.exit(f"{what}: results differ by {difference:.3g} at a magnitude of {size:.3g}")


def timing_options(parser: argparse.ArgumentParser, rounds: int) -> None:
    """The options that every benchmark of networks has."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine, with --threads 1")


def clock_of(arguments: argparse.Namespace) -> Clock:
    """Set the number of threads; returns the clock that was asked for."""
    torch.set_num_threads(arguments.threads)
    return time.process_time if arguments.processor_time else time.perf_counter
