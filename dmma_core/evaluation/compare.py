"""Comparison of two reports over the same clips: differences, intervals, verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dmma_core.errors import DmmaError
from dmma_core.evaluation.arm_differences import differences_beyond_depth
from dmma_core.evaluation.bootstrap import ConfidenceInterval, Statistic, mean_of, paired_interval
from dmma_core.evaluation.metric_specs import METRIC_SPECS, MetricSpec
from dmma_core.evaluation.report_file import Report
from dmma_core.evaluation.set_metrics import set_statistics
from dmma_core.recipe import Changes

BETTER, WORSE, UNDECIDED, TOO_FEW = "better", "worse", "no difference shown", "too few clips"
MIN_CLIPS = 30  # below, percentile intervals are too narrow to conclude anything from


class ComparisonError(DmmaError):
    """Two reports whose numbers are not comparable."""


@dataclass(frozen=True)
class MetricRow:
    """One metric: value of both arms and of the ground truth (None if it has none), difference and verdict.

    `first` is the baseline's value, `second` the other arm's; the interval is of second - first.
    """

    spec: MetricSpec
    first: float
    second: float
    ground_truth: float | None
    interval: ConfidenceInterval
    num_clips: int

    @property
    def verdict(self) -> str:
        """BETTER, WORSE or UNDECIDED for the second arm, TOO_FEW if the clips allow no conclusion."""
        if self.num_clips < MIN_CLIPS:
            return TOO_FEW
        if self.interval.contains_zero:
            return UNDECIDED
        return BETTER if (self.interval.low > 0) == (self.spec.better == "higher") else WORSE


@dataclass(frozen=True)
class Comparison:
    """All rows, the metrics that could not be computed with the reason, and notes for the reader.

    `differences` are the settings beyond depth in which the arms differ, with the value of each.
    """

    first: Report
    second: Report
    rows: tuple[MetricRow, ...]
    unavailable: dict[str, str]
    notes: tuple[str, ...]
    differences: Changes
    num_resamples: int
    seed: int

    @property
    def of_depth_alone(self) -> bool:
        """Whether the arms differ in depth only."""
        models = [report.record["training"]["model"]["depth"] for report in (self.first, self.second)]
        return models[0] != models[1] and not self.differences

    def with_verdict(self, verdict: str) -> list[MetricRow]:
        return [row for row in self.rows if row.verdict == verdict]


def require_comparable(first: Report, second: Report) -> None:
    """Raises ComparisonError for two arms of one name, or if clips, split, features or evaluator differ."""
    a, b = first.record, second.record
    if first.arm == second.arm:
        raise ComparisonError(
            f"{first.uri} and {second.uri} are both of an arm named {first.arm!r}, so a table could not distinguish them.",
            remedy="Compare two arms of different names; check that the two reports are not the same.",
        )
    if a["evaluator"]["fingerprint"] != b["evaluator"]["fingerprint"]:
        differing = [key for key in ("version", "settings", "networks") if a["evaluator"][key] != b["evaluator"][key]]
        raise ComparisonError(
            f"{first.uri} and {second.uri} were measured by different evaluators: {' and '.join(differing)} differ "
            f"({', '.join(str(a['evaluator'][key]) for key in differing)} versus "
            f"{', '.join(str(b['evaluator'][key]) for key in differing)}).",
            remedy="Run `dmma evaluate` for both with the same settings.",
        )
    if a["split"] != b["split"]:
        raise ComparisonError(
            f"{first.uri} is over the split {a['split']!r}, {second.uri} over {b['split']!r}.",
            remedy="Generate and evaluate the same split for both.",
        )
    if a["features_fingerprint"] != b["features_fingerprint"]:
        raise ComparisonError(
            f"{first.uri} and {second.uri} use different feature sets ({a['features_uri']}, {b['features_uri']}).",
            remedy="Generate both arms from the same feature set.",
        )
    if a["clip_ids"] != b["clip_ids"]:
        only_first, only_second = (sorted(set(x) - set(y)) for x, y in _both_orders(a["clip_ids"], b["clip_ids"]))
        raise ComparisonError(
            f"{first.uri} and {second.uri} are over different clips: {_some(only_first)} only in the first, "
            f"{_some(only_second)} only in the second.",
            remedy="See both failures.parquet; run `dmma generate` again until both contain the same clips.",
        )


def compare(first: Report, second: Report, num_resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Difference second - first of every metric with its paired bootstrap interval over clips.

    Raises ComparisonError if the reports are not comparable.
    """
    require_comparable(first, second)
    rows: list[MetricRow] = []
    unavailable: dict[str, str] = {}
    set_first, missing = set_statistics(first.set_arrays())
    set_second, _ = set_statistics(second.set_arrays())
    for spec in METRIC_SPECS:
        if spec.name in missing or spec.name in first.record["unavailable"]:
            unavailable[spec.name] = missing.get(spec.name, first.record["unavailable"].get(spec.name, ""))
            continue
        if spec.per_clip:
            statistics, num_clips = _clip_statistics(first, second, spec.name)
        else:
            statistics, num_clips = (set_first[spec.name], set_second[spec.name]), len(first.clip_ids)
        if statistics is None:
            unavailable[spec.name] = "no clip has it in both reports"
            continue
        interval = paired_interval(*statistics, num_clips, num_resamples, seed)
        rows.append(_row(spec, first, second, interval, num_clips))
    differences = differences_beyond_depth(first.record, second.record)
    notes = tuple(_notes(first, second))
    return Comparison(first, second, tuple(rows), unavailable, notes, differences, num_resamples, seed)


def _clip_statistics(first: Report, second: Report, name: str) -> tuple[tuple[Statistic, Statistic] | None, int]:
    values = np.stack([first.values(name), second.values(name)])
    values = values[:, np.isfinite(values).all(axis=0)]
    if not values.shape[1]:
        return None, values.shape[1]
    return (mean_of(values[0]), mean_of(values[1])), values.shape[1]


def _row(spec: MetricSpec, first: Report, second: Report, interval: ConfidenceInterval, num_clips: int) -> MetricRow:
    aggregates = [report.record["aggregates"][spec.name] for report in (first, second)]
    return MetricRow(
        spec,
        aggregates[0]["generated"],
        aggregates[1]["generated"],
        aggregates[0].get("ground_truth"),
        interval,
        num_clips,
    )


def _notes(first: Report, second: Report) -> list[str]:
    a, b = first.record, second.record
    notes = [
        "One training run per arm: the intervals show the effect of the choice of clips, not that of another "
        "training seed."
    ]
    if a["step"] != b["step"]:
        notes.append(f"Checkpoints: step {a['step']} ({first.arm}), step {b['step']} ({second.arm}).")
    notes += [
        f"{report.arm}: {report.record['training']['overfitting']} The checkpoint of step {report.record['step']} is used."
        for report in (first, second)
        if report.record["training"]["overfitting"]
    ]
    if not a["rendered_clips"]:
        notes.append(
            "Real clips: distances and onsets are unknown, so there is no distance test. The tiny tagger was trained on "
            "rendered clips only, so its metrics mean little here."
        )
    return notes


def _both_orders(x: Sequence[str], y: Sequence[str]) -> tuple[tuple[Sequence[str], Sequence[str]], ...]:
    return (x, y), (y, x)


def _some(clip_ids: Sequence[str]) -> str:
    shown = ", ".join(clip_ids[:3])
    return f"{len(clip_ids)} ({shown}{', …' if len(clip_ids) > 3 else ''})" if clip_ids else "none"
