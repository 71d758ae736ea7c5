import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dmma_core.config_loading import config_to_dict
from dmma_core.evaluation.compare import (
    BETTER,
    MIN_CLIPS,
    TOO_FEW,
    UNDECIDED,
    ComparisonError,
    compare,
    require_comparable,
)
from dmma_core.evaluation.embed import TinyTaggerNetwork
from dmma_core.evaluation.evaluate import evaluate, open_generated
from dmma_core.evaluation.evaluator_config import EvaluatorConfig
from dmma_core.evaluation.report_file import Report
from dmma_core.evaluation.verdict import number, overall_verdict, signed, table_markdown, table_record, verdict_of
from dmma_core.recipe import DropoutConfig, LoopConfig, OptimConfig, Recipe
from helpers.generated import GeneratedPair


@pytest.fixture
def reports(measured_pair: tuple[Report, Report]) -> tuple[Report, Report]:
    return measured_pair


def _changed(report: Report, **changes: object) -> Report:
    return Report(report.uri, {**copy.deepcopy(report.record), **changes})


def test_differences_are_those_of_the_reports(reports: tuple[Report, Report]) -> None:
    comparison = compare(*reports, num_resamples=500)
    assert {row.spec.name for row in comparison.rows} == set(reports[0].record["aggregates"])
    for row in comparison.rows:
        assert row.interval.difference == pytest.approx(row.second - row.first, abs=1e-9)
        assert row.interval.low <= row.interval.high


def test_sound_that_follows_distance_wins_the_distance_test_only(
    reports: tuple[Report, Report],
) -> None:
    rows = {row.spec.name: row for row in compare(*reports, num_resamples=2000).rows}
    assert rows["distance_spearman_across_clips"].verdict == BETTER
    assert rows["KL_tinytagger"].verdict == UNDECIDED


def test_an_arm_compared_with_itself_shows_no_difference(reports: tuple[Report, Report]) -> None:
    comparison = compare(reports[0], _changed(reports[0], arm="again"), num_resamples=200)
    assert {row.verdict for row in comparison.rows if row.num_clips >= MIN_CLIPS} == {UNDECIDED}
    assert all(row.interval.low == row.interval.high == 0 for row in comparison.rows)
    assert overall_verdict(comparison).startswith(
        "This is not a comparison of depth: both arms use the same form of it. No "
    )
    assert all(
        "No difference shown" in verdict_of(row, comparison) for row in comparison.rows if row.num_clips >= MIN_CLIPS
    )


def test_swapping_the_arms_inverts_the_verdict(reports: tuple[Report, Report]) -> None:
    forth, back = compare(*reports, num_resamples=500), compare(*reversed(reports), num_resamples=500)
    for one, other in zip(forth.rows, back.rows, strict=True):
        assert one.interval.difference == pytest.approx(-other.interval.difference)
        assert one.interval.low == pytest.approx(-other.interval.high)
        assert (one.verdict == UNDECIDED) == (other.verdict == UNDECIDED)


def test_one_arm_twice_is_refused(reports: tuple[Report, Report]) -> None:
    with pytest.raises(ComparisonError, match="both of an arm named 'baseline'"):
        require_comparable(reports[0], reports[0])


def test_other_clips_split_features_or_evaluator_are_refused(reports: tuple[Report, Report]) -> None:
    first, second = reports
    ids = second.record["clip_ids"]
    with pytest.raises(ComparisonError, match=f"different clips: 1 .{ids[0]}. only in the first, none only"):
        require_comparable(first, _changed(second, clip_ids=ids[1:]))
    with pytest.raises(ComparisonError, match="'test'.*'val'"):
        require_comparable(first, _changed(second, split="val"))
    with pytest.raises(ComparisonError, match="different feature sets"):
        require_comparable(first, _changed(second, features_fingerprint="0"))
    evaluator = {**second.record["evaluator"], "networks": {"tinytagger": "0" * 64}, "fingerprint": "0"}
    with pytest.raises(ComparisonError, match="networks differ"):
        require_comparable(first, _changed(second, evaluator=evaluator))


def test_other_settings_of_the_evaluator_give_another_fingerprint(
    generated_pair: GeneratedPair, reports: tuple[Report, Report], tmp_path: Path
) -> None:
    config = EvaluatorConfig(onset_tolerance_s=0.3)
    generated = open_generated(generated_pair.depth)
    *_, report = evaluate(generated, config, TinyTaggerNetwork(), str(tmp_path / "x.json"))
    with pytest.raises(ComparisonError, match="settings differ"):
        require_comparable(reports[0], report)


def _trained(report: Report, **changes: object) -> Report:
    return _changed(report, training={**report.record["training"], **changes})


def test_arms_that_differ_in_depth_alone(reports: tuple[Report, Report]) -> None:
    comparison = compare(*reports, num_resamples=100)
    assert comparison.of_depth_alone
    assert "not a comparison" not in overall_verdict(comparison)


def _with_recipe(report: Report, **parts: object) -> Report:
    return _trained(report, recipe=config_to_dict(replace(Recipe(), **parts)))


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda r: _with_recipe(r, seed=1), "recipe.seed: 0 (baseline), 1 (depth)"),
        (lambda r: _with_recipe(r, optim=OptimConfig(learning_rate=1e-3)), "recipe.optim.learning_rate: 0.0001"),
        (lambda r: _with_recipe(r, dropout=DropoutConfig(video=0.2)), "recipe.dropout.video"),
        (lambda r: _trained(r, init_sha256="a"), "init_sha256"),
        (lambda r: _trained(r, features_fingerprint="a"), "features_fingerprint"),
        (lambda r: _trained(r, model={**r.record["training"]["model"], "hidden_width": 64}), "model.hidden_width: 32"),
        (lambda r: _trained(r, provenance={"git_commit": "a", "libraries": {}}), "code.git_commit"),
        (lambda r: _trained(r, recipe_changes=[{"step": 5, "changes": {"recipe.seed": [1, 0]}}]), "recipe_changes"),
        (lambda r: _changed(_trained(r, choice="step"), step=7), "checkpoint: best (baseline), 7 (depth)"),
        (lambda r: _changed(r, weights="model"), "weights: ema (baseline), model (depth)"),
        (lambda r: _changed(r, sampling={**r.record["sampling"], "guidance": 1.0}), "sampling.guidance: 4.5"),
    ],
)
def test_every_difference_beyond_depth_is_shown(
    reports: tuple[Report, Report], change: Callable[[Report], Report], name: str
) -> None:
    comparison = compare(reports[0], change(reports[1]), num_resamples=100)
    assert not comparison.of_depth_alone
    assert overall_verdict(comparison).startswith("This is not a comparison of depth alone: the arms also differ in ")
    assert f"The arms also differ in {name}" in table_markdown(comparison)
    assert name.partition(":")[0] in table_record(comparison)["differences"]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: _with_recipe(r, dropout=DropoutConfig(depth=0.0)),
        lambda r: _with_recipe(r, loop=LoopConfig(num_steps=7, log_every=3)),
        lambda r: _trained(r, recipe_changes=[{"step": 5, "changes": {"recipe.loop.num_steps": [5, 7]}}]),
        lambda r: _changed(r, sampling={**r.record["sampling"], "guidance_depth": 2.0}),
        lambda r: _changed(r, step=50),
    ],
)
def test_settings_of_depth_or_without_effect_on_weights_are_no_difference(
    reports: tuple[Report, Report], change: Callable[[Report], Report]
) -> None:
    assert compare(reports[0], change(reports[1]), num_resamples=100).of_depth_alone


def test_another_step_and_over_fitting_are_noted(reports: tuple[Report, Report]) -> None:
    other = _trained(_changed(reports[1], step=50), overfitting="The loss has risen.")
    notes = compare(reports[0], other, num_resamples=100).notes
    assert "Checkpoints: step 100 (baseline), step 50 (depth)." in notes
    assert "depth: The loss has risen. The checkpoint of step 50 is used." in notes


@pytest.mark.parametrize(("count", "clips"), [(1, "one clip"), (4, "4 clips")])
def test_few_clips_give_no_conclusion(reports: tuple[Report, Report], count: int, clips: str) -> None:
    few = [_first_clips(report, count) for report in reports]
    comparison = compare(*few, num_resamples=100)
    assert {row.verdict for row in comparison.rows} == {TOO_FEW}
    assert overall_verdict(comparison).startswith(f"Nothing can be concluded from {clips};")
    assert all("Too few clips" in verdict_of(row, comparison) for row in comparison.rows)


def _first_clips(report: Report, count: int) -> Report:
    """The report over the first clips alone, with its arrays."""
    few = _changed(report, rows=report.record["rows"][:count], clip_ids=report.record["clip_ids"][:count])
    few.__dict__["_arrays"] = {name: values[:count] for name, values in report._arrays.items()}
    return few


def test_tables_agree_and_list_unavailable_metrics(reports: tuple[Report, Report]) -> None:
    comparison = compare(*reports, num_resamples=200)
    record = json.loads(json.dumps(table_record(comparison), allow_nan=False))
    table = table_markdown(comparison)
    for metric in record["metrics"]:
        assert f"| {metric['name']} |" in table
        assert np.isfinite([metric["baseline"], metric["depth"], metric["low"], metric["high"]]).all()
    for name, reason in record["unavailable"].items():
        assert f"{name} is unavailable: {reason}." in table
    assert record["verdict"] in table


def test_numbers_are_short() -> None:
    assert [number(x) for x in (None, 0.0, 0.01234, 0.5, -12.345, 1234.5)] == [
        "–",
        "0",
        "0.0123",
        "0.500",
        "−12.35",
        "1234.5",
    ]
    assert (signed(0.5), signed(-0.5), signed(2e-5)) == ("+0.500", "−0.500", "+2.0e−05")
