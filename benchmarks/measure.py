"""Timing of alternating runs, and output of one JSON line per figure (name, value, unit, bar, ok)."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Clock = Callable[[], float]


def print_figure(name: str, value: float, unit: str, bar: float | None = None, at_most: bool = False) -> bool:
    """Print a figure; `ok` is whether it is at least its bar (or at most, with `at_most`).

    Returns True without a bar.
    """
    ok = None if bar is None else value <= bar if at_most else value >= bar
    print(json.dumps({"name": name, "value": round(value, 4), "unit": unit, "bar": bar, "ok": ok}), flush=True)
    return ok is not False


def seconds_of(run: Callable[[], object], clock: Clock) -> float:
    start = clock()
    run()
    return clock() - start


def time_alternating(runs: Mapping[str, Callable[[], object]], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of each run in each round, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for index in range(rounds + 1):
        for name, run in runs.items():
            value = seconds_of(run, clock)
            if index > 0:
                seconds[name].append(value)
    return seconds


def median_ratio(numerators: list[float], denominators: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(numerators, denominators, strict=True))


def require_equal(own: Tensor, plain: Tensor, what: str, relative: float = 1e-4) -> None:
    difference, size = float((own - plain).abs().max()), float(plain.abs().max())
    if not difference <= relative * size:
        sys.exit(f"{what}: results differ by {difference:.3g} at a magnitude of {size:.3g}")


def add_timing_options(parser: argparse.ArgumentParser, rounds: int) -> None:
    """Add the options that all benchmarks of networks have."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--processor-time", action="store_true", help="for a busy machine, with --threads 1")


def set_threads_and_clock(arguments: argparse.Namespace) -> Clock:
    """Set the number of threads; returns the requested clock."""
    torch.set_num_threads(arguments.threads)
    return time.process_time if arguments.processor_time else time.perf_counter
