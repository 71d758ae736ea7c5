import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dmma_core.errors import ConfigError, IncompleteError, MediaError, SchemaError
from dmma_core.evaluation.embed import TinyTaggerNetwork
from dmma_core.evaluation.evaluate import evaluate, known_scenes, open_generated
from dmma_core.evaluation.evaluator_config import EvaluatorConfig
from dmma_core.evaluation.metric_specs import METRIC_SPECS
from dmma_core.evaluation.metrics.frechet import frechet_distance
from dmma_core.evaluation.report_file import Report, read_report
from dmma_core.storage import media
from helpers.generated import GeneratedPair


def _report(generated_uri: str, report_uri: Path, config: EvaluatorConfig | None = None) -> Report:
    generated = open_generated(generated_uri)
    *waiting, report = evaluate(generated, config or EvaluatorConfig(), TinyTaggerNetwork(), str(report_uri))
    assert waiting == [None] * len(generated.clips)
    return report


@pytest.fixture(scope="module")
def depth_report(generated_pair: GeneratedPair, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return _report(generated_pair.depth, tmp_path_factory.mktemp("reports") / "depth.json")


def test_every_metric_has_a_value_or_a_reason(depth_report: Report) -> None:
    record = read_report(depth_report.uri).record
    names = {spec.name for spec in METRIC_SPECS}
    assert set(record["aggregates"]) | set(record["unavailable"]) == names
    assert not set(record["aggregates"]) & set(record["unavailable"])
    assert all("_vs_detected" in name for name in record["unavailable"])
    for row in record["rows"]:
        per_clip = {spec.name for spec in METRIC_SPECS if spec.per_clip}
        assert per_clip <= set(row["generated"]) | set(row["missing"])


def test_ground_truth_is_the_upper_bound(depth_report: Report) -> None:
    aggregates = depth_report.record["aggregates"]
    for name in ("FD_tinytagger", "KL_tinytagger", "envelope_l1", "log_mel_distance_db"):
        assert aggregates[name]["ground_truth"] == pytest.approx(0, abs=1e-6)
        assert aggregates[name]["generated"] > 0
    assert aggregates["onset_f1"]["ground_truth"] > 0.8
    assert aggregates["distance_slope_sign"]["ground_truth"] >= 0.75


def test_set_metrics_equal_the_metric_on_the_stored_arrays(depth_report: Report) -> None:
    arrays = depth_report.set_arrays()
    expected = frechet_distance(arrays.embedding_BD, arrays.true_embedding_BD)
    assert depth_report.record["aggregates"]["FD_tinytagger"]["generated"] == pytest.approx(expected, rel=1e-6)


def test_aggregates_are_means_over_the_rows_that_have_a_value(depth_report: Report) -> None:
    values = depth_report.values("distance_spearman")
    aggregate = depth_report.record["aggregates"]["distance_spearman"]
    assert 0 < aggregate["num_clips"] == np.isfinite(values).sum() < len(values)
    assert aggregate["generated"] == pytest.approx(np.nanmean(values))


def test_real_clips_are_measured_against_detected_onsets_and_without_distance(
    generated_pair: GeneratedPair, tmp_path: Path
) -> None:
    generated = open_generated(generated_pair.depth)
    copies = []
    for clip in generated.clips[:3]:
        (tmp_path / "real").mkdir(exist_ok=True)
        copy = shutil.copy(clip.source_uri, tmp_path / "real")
        copies.append(dataclasses.replace(clip, source_uri=copy))
    real = dataclasses.replace(generated, clips=tuple(copies))
    assert known_scenes(real.clips) == {}
    *_, report = evaluate(real, EvaluatorConfig(), TinyTaggerNetwork(), str(tmp_path / "real.json"))
    assert report.record["aggregates"]["onset_f1_vs_detected"]["ground_truth"] == 1
    assert "unknown" in report.record["unavailable"]["distance_spearman"]
    assert "onset_f1" in report.record["unavailable"]
    assert "distance_spearman_across_clips" in report.record["unavailable"]


def _copied(generated_pair: GeneratedPair, folder: Path, **changes: object) -> str:
    shutil.copytree(generated_pair.depth, folder)
    marker = folder / "GENERATION.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), **changes}))
    return str(folder)


def test_bad_folders_are_reported(generated_pair: GeneratedPair, tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="dmma generate"):
        open_generated(str(tmp_path / "nothing"))
    with pytest.raises(SchemaError, match="version 99"):
        open_generated(_copied(generated_pair, tmp_path / "version", schema_version=99))
    with pytest.raises(SchemaError, match="changed since"):
        open_generated(_copied(generated_pair, tmp_path / "other", features_fingerprint="f" * 64))
    with pytest.raises(ConfigError, match="every clip failed"):
        open_generated(_copied(generated_pair, tmp_path / "empty", clips=[]))


def test_a_damaged_sound_is_named(generated_pair: GeneratedPair, tmp_path: Path) -> None:
    uri = _copied(generated_pair, tmp_path / "damaged")
    generated = open_generated(uri)
    Path(generated.sound_uri(generated.clips[0])).write_bytes(b"not a sound")
    with pytest.raises(MediaError, match=generated.clips[0].clip_id):
        _report(uri, tmp_path / "damaged.json")
    assert not (tmp_path / "damaged.json").exists()


def test_arrays_of_another_report_are_refused(depth_report: Report, tmp_path: Path) -> None:
    shutil.copy(depth_report.uri, tmp_path / "depth.json")
    (tmp_path / "depth.safetensors").write_bytes(b"other bytes")
    with pytest.raises(SchemaError, match="does not belong"):
        read_report(str(tmp_path / "depth.json")).set_arrays()


def test_a_silent_sound_is_measured_too(generated_pair: GeneratedPair, tmp_path: Path) -> None:
    uri = _copied(generated_pair, tmp_path / "silent")
    generated = open_generated(uri)
    for clip in generated.clips:
        media.write_audio(generated.sound_uri(clip), np.zeros(32_000, np.float32), 16_000)
    report = _report(uri, tmp_path / "silent.json")
    assert report.record["aggregates"]["distance_slope_sign"]["generated"] == 0
    assert report.record["aggregates"]["onset_accuracy"]["generated"] == 0
    assert np.isfinite(report.record["aggregates"]["FD_tinytagger"]["generated"])


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="onset_threshold is 2"):
        EvaluatorConfig(onset_threshold=2)
    with pytest.raises(ConfigError, match="level_window_s is 0"):
        EvaluatorConfig(level_window_s=0)
