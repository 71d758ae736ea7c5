"""The comparison as one HTML page. The template escapes all text; only the charts' SVG is inserted unescaped."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dmma_core.evaluation.compare import Comparison, MetricRow
from dmma_core.evaluation.report.charts import forest_chart, loss_chart
from dmma_core.evaluation.report.curves import Curve
from dmma_core.evaluation.report.examples import Example
from dmma_core.evaluation.verdict import ARROWS, differences_lines, number, overall_verdict, signed, verdict_of

_TEMPLATE = Path(__file__).with_name("page.html.j2")


def report_page(
    name: str,
    comparison: Comparison,
    curves: Mapping[str, Mapping[str, Curve]],
    examples: Sequence[Example],
    loss_missing: str = "",
) -> str:
    """HTML of the report. `curves` are those of both arms by name, or empty with the reason `loss_missing`."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    record = comparison.first.record
    return template.render(
        name=name,
        first=comparison.first.arm,
        second=comparison.second.arm,
        num_clips=len(comparison.first.clip_ids),
        split=record["split"],
        verdict=overall_verdict(comparison),
        num_resamples=f"{comparison.num_resamples:,}",
        groups=_groups(comparison),
        forest=_trusted(forest_chart(comparison)) if comparison.rows else "",
        loss=_trusted(loss_chart(curves)) if curves else "",
        loss_missing=loss_missing,
        notes=[*comparison.notes, *(f"The arms also differ in {line}." for line in differences_lines(comparison))],
        unavailable=_by_reason(comparison.unavailable),
        examples=[_example(example) for example in examples],
        facts=_facts(comparison),
        meanings=[(row.spec.label, row.spec.meaning) for row in comparison.rows],
        footer=f"Made by DMMA at commit {record['provenance']['git_commit'][:12]}, {record['provenance']['created_utc']}.",
    )


def _by_reason(unavailable: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    reasons: dict[str, list[str]] = {}
    for name, reason in unavailable.items():
        reasons.setdefault(reason, []).append(name)
    return list(reasons.items())


def _groups(comparison: Comparison) -> list[tuple[str, list[dict[str, Any]]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in comparison.rows:
        groups.setdefault(row.spec.group, []).append(_cells(row, comparison))
    return list(groups.items())


def _cells(row: MetricRow, comparison: Comparison) -> dict[str, Any]:
    return {
        **asdict(row.spec),
        "arrow": ARROWS[row.spec.better],
        "first": number(row.first),
        "second": number(row.second),
        "ground_truth": number(row.ground_truth),
        "difference": signed(row.interval.difference),
        "low": signed(row.interval.low),
        "high": signed(row.interval.high),
        "num_clips": row.num_clips,
        "verdict": row.verdict,
        "sentence": verdict_of(row, comparison),
    }


def _example(example: Example) -> dict[str, Any]:
    panels = [
        {
            "label": panel.label,
            "kind": panel.kind,
            "video": panel.video,
            "spectrogram": _trusted(panel.spectrogram),
            "shown": [(label, number(value)) for label, value in panel.values],
        }
        for panel in example.panels
    ]
    return {**vars(example), "panels": panels, "levels": _trusted(example.levels)}


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    record = comparison.first.record
    facts = [
        (report.arm, f"{report.record['run_uri']}, step {report.record['step']}, {report.record['weights']} weights")
        for report in (comparison.first, comparison.second)
    ]
    sampling = ", ".join(f"{key} {value}" for key, value in record["sampling"].items() if value != "")
    rendered = record["rendered_clips"]
    return [
        *facts,
        ("sampling", sampling),
        (
            "clips",
            f"{len(record['clip_ids'])} of {record['features_uri']}, split {record['split']}; {rendered} rendered",
        ),
        ("features", record["features_fingerprint"][:16]),
        ("evaluator", record["evaluator"]["fingerprint"][:16]),
        ("bootstrap", f"paired over clips, percentile, {comparison.num_resamples:,} resamples, seed {comparison.seed}"),
    ]


def _trusted(svg: str) -> Markup:
    """SVG of the charts of this package; matplotlib and `svg_of` have escaped its text."""
    return Markup(svg)  # noqa: S704
