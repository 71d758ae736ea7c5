"""A comparison as text: verdicts, Markdown, JSON."""

from typing import Any

from dmma_core.evaluation.compare import BETTER, MIN_CLIPS, TOO_FEW, UNDECIDED, WORSE, Comparison, MetricRow
from dmma_core.provenance import provenance

SCHEMA_VERSION = 1
ARROWS = {"higher": "↑", "lower": "↓"}


def overall_verdict(comparison: Comparison) -> str:
    """Summary of all metrics: whether anything can be concluded, and whether the arms differ in depth alone."""
    if not comparison.rows:
        return "No metric could be computed; see the reasons below."
    num_clips = len(comparison.first.clip_ids)
    if num_clips < MIN_CLIPS:
        clips = "one clip" if num_clips == 1 else f"{num_clips} clips"
        return f"Nothing can be concluded from {clips}; {MIN_CLIPS} are the minimum, hundreds are better."
    verdict = _all_metrics(comparison)
    return verdict if comparison.of_depth_alone else f"{_not_alone(comparison)} {verdict}"


def differences_lines(comparison: Comparison) -> list[str]:
    """Every setting beyond depth in which the arms differ, one line each."""
    first, second = comparison.first.arm, comparison.second.arm
    return [f"{name}: {before} ({first}), {now} ({second})" for name, (before, now) in comparison.differences.items()]


def _not_alone(comparison: Comparison) -> str:
    if not comparison.differences:
        return "This is not a comparison of depth: both arms use the same form of it."
    names = ", ".join(comparison.differences)
    return f"This is not a comparison of depth alone: the arms also differ in {names}."


def _all_metrics(comparison: Comparison) -> str:
    """Which metrics differ, with the number of intervals that exclude zero by chance alone."""
    first, second, total = comparison.first.arm, comparison.second.arm, len(comparison.rows)
    parts = [
        f"{word} than {first} on {len(rows)} ({', '.join(row.spec.short for row in rows)})"
        for word, rows in ((word, comparison.with_verdict(word)) for word in (BETTER, WORSE))
        if rows
    ]
    if not parts:
        return f"No difference shown: on none of {total} metrics does the 95 % interval of {second} minus {first} exclude zero."
    undecided = len(comparison.with_verdict(UNDECIDED))
    verdict = f"Of {total} metrics, {second} is {' and '.join(parts)}"
    verdict += f"; on the other {undecided} no difference is shown." if undecided else "."
    return f"{verdict} By chance alone about {0.05 * total:.1f} of {total} such intervals would exclude zero."


def verdict_of(row: MetricRow, comparison: Comparison) -> str:
    """One sentence on one metric."""
    second, first = comparison.second.arm, comparison.first.arm
    size = f"{signed(row.interval.difference)} [{signed(row.interval.low)}, {signed(row.interval.high)}]"
    if row.verdict == TOO_FEW:
        return f"Too few clips ({row.num_clips}) to conclude anything: {size}."
    if row.verdict == UNDECIDED:
        return f"No difference shown: {size} contains zero."
    return f"{second[0].upper()}{second[1:]} is {row.verdict} than {first}: {size}."


def number(value: float | None) -> str:
    """Three significant digits, without an exponent for the usual range."""
    if value is None:
        return "–"
    if abs(value) < 1e-6:
        return "0"
    if not 1e-4 <= abs(value) < 1e5:
        return f"{value:.1e}".replace("-", "−")
    decimals = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1
    return f"{value:.{4 if abs(value) < 0.1 and value else decimals}f}".replace("-", "−")


def signed(value: float) -> str:
    return number(value) if value <= 0 else f"+{number(value)}"


def table_markdown(comparison: Comparison) -> str:
    """The comparison as a Markdown table with the verdict above and the metrics that could not be computed below."""
    first, second = comparison.first.arm, comparison.second.arm
    lines = [
        f"**{overall_verdict(comparison)}**",
        "",
        f"| metric | better | {first} | {second} | ground truth | {second} − {first} (95 % interval) | clips | verdict |",
        "|---|:-:|--:|--:|--:|--:|--:|---|",
    ]
    for row in comparison.rows:
        interval = f"{signed(row.interval.difference)} [{signed(row.interval.low)}, {signed(row.interval.high)}]"
        lines.append(
            f"| {row.spec.name} | {ARROWS[row.spec.better]} | {number(row.first)} | {number(row.second)} "
            f"| {number(row.ground_truth)} | {interval} | {row.num_clips} | {row.verdict} |"
        )
    lines += ["", *(f"- {note}" for note in comparison.notes)]
    lines += [f"- The arms also differ in {line}." for line in differences_lines(comparison)]
    lines += [f"- {name} is unavailable: {reason}." for name, reason in comparison.unavailable.items()]
    return "\n".join(lines) + "\n"


def table_record(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON: the contents of table.md, in full precision."""
    return {
        "schema_version": SCHEMA_VERSION,
        "verdict": overall_verdict(comparison),
        "arms": [comparison.first.arm, comparison.second.arm],
        "reports": [comparison.first.uri, comparison.second.uri],
        "clip_ids": comparison.first.clip_ids,
        "split": comparison.first.record["split"],
        "evaluator": comparison.first.record["evaluator"],
        "bootstrap": {"num_resamples": comparison.num_resamples, "seed": comparison.seed, "level": 0.95},
        "metrics": [
            {
                "name": row.spec.name,
                "better": row.spec.better,
                "unit": row.spec.unit,
                comparison.first.arm: row.first,
                comparison.second.arm: row.second,
                "ground_truth": row.ground_truth,
                "difference": row.interval.difference,
                "low": row.interval.low,
                "high": row.interval.high,
                "num_clips": row.num_clips,
                "verdict": row.verdict,
                "sentence": verdict_of(row, comparison),
            }
            for row in comparison.rows
        ],
        "unavailable": comparison.unavailable,
        "notes": list(comparison.notes),
        "of_depth_alone": comparison.of_depth_alone,
        "differences": {name: list(pair) for name, pair in comparison.differences.items()},
        "provenance": provenance(),
    }
