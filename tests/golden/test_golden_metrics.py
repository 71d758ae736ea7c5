"""Metrics against the values of the published evaluation code (av-benchmark, onset evaluation)."""

import json

import numpy as np
import pytest

from dmma_core.evaluation.metrics import divergence, frechet, inception, onset_detection, onset_scores
from helpers.golden import golden_path


def _load(name):
    with np.load(golden_path(name), allow_pickle=False) as data:
        arrays = {key: data[key] for key in data.files if key != "__meta__"}
        return arrays, json.loads(str(data["__meta__"]))


@pytest.fixture(scope="module")
def bench():
    return _load("av_bench.npz")


@pytest.fixture(scope="module")
def onsets():
    return _load("onsets.npz")


def _predicted(arrays, meta):
    """Rows of the predictions in the reference's order, without the sample that only the ground truth has."""
    absent = meta["names"].index(meta["gt_only_sample"])
    return [row for row in arrays["in.pred_order"].tolist() if row != absent]


def assert_distance(generated_BD, reference_BD, expected):
    """The reference data allow 1e-3 where embeddings are too few for covariances of full rank."""
    rank_is_full = min(len(generated_BD), len(reference_BD)) > generated_BD.shape[1]
    distance = frechet.frechet_distance(generated_BD, reference_BD)
    assert distance == pytest.approx(expected, rel=2e-5 if rank_is_full else 1e-3)


def test_frechet_distance_of_every_pair(bench):
    arrays, meta = bench
    pairs = {
        "pann": ("in.gt_pann_2048", "in.pred_pann_2048"),
        "passt": ("in.gt_passt_embed", "in.pred_passt_embed"),
        "vgg": ("in.gt_vggish", "in.pred_vggish"),
        "singular": ("in.fd_singular_a", "in.fd_singular_b"),
    }
    for name, expected in meta["extra"]["fd_pairs"].items():
        reference, generated = (arrays[key].reshape(-1, arrays[key].shape[-1]) for key in pairs[name])
        assert_distance(generated, reference, expected)


def test_frechet_distance_of_the_evaluated_set(bench):
    arrays, meta = bench
    rows = _predicted(arrays, meta)
    paired_reference = arrays["in.gt_passt_embed"][sorted(rows)]
    assert_distance(arrays["in.pred_passt_embed"][rows], paired_reference, meta["paired"]["FD-PASST"])
    assert_distance(arrays["in.pred_pann_2048"][rows], arrays["in.gt_pann_2048"], meta["paired"]["FD-PANN"])


def test_kl(bench):
    arrays, meta = bench
    rows = _predicted(arrays, meta)
    for network, key in (("pann", "KL-PANNS-softmax"), ("passt", "KL-PASST-softmax")):
        values = divergence.kl_divergences(
            arrays[f"in.pred_{network}_logits"][rows], arrays[f"in.gt_{network}_logits"][rows]
        )
        assert values.mean() == pytest.approx(meta["paired"][key], rel=2e-5)


def test_inception_score(bench):
    arrays, meta = bench
    rows = _predicted(arrays, meta)
    for network, key in (("pann", "ISC-PANNS"), ("passt", "ISC-PASST")):
        mean, deviation = inception.inception_score(arrays[f"in.pred_{network}_logits"][rows])
        assert mean == pytest.approx(meta["paired"][f"{key}-mean"], rel=2e-5)
        assert deviation == pytest.approx(meta["paired"][f"{key}-std"], rel=2e-5)


def test_onset_suppression(onsets):
    arrays, meta = onsets
    kept = onset_scores.suppress_neighbours(np.array(meta["nms_toy"]["in_onsets"]), arrays["in.nms_wav_norm"])
    assert kept.tolist() == meta["nms_toy"]["out"]


def test_onsets_and_their_scores(onsets):
    arrays, meta = onsets
    for delta, result in meta["results"].items():
        overall = []
        for clip in result["per_clip"]:
            audio_A = arrays[f"in.{clip['name']}.int16"].astype(np.float32) / 32768
            times_s = meta["clips"][clip["name"]]["gt_times_file"]
            known_s = [time_s for time_s in times_s if time_s < 8]
            if f"raw_onsets_delta{delta}" in meta["clips"][clip["name"]]:
                raw = onset_detection.detect_onsets(audio_A, float(delta))
                assert raw.tolist() == meta["clips"][clip["name"]][f"raw_onsets_delta{delta}"]
            scores = onset_scores.score_onsets(audio_A, known_s, float(delta), float(delta), stop_when_exhausted=True)
            assert list(scores.expected) == clip["y_gt"]
            np.testing.assert_allclose(scores.confidence, clip["y_pred"], atol=1e-6)
            overall.append((scores.accuracy, scores.average_precision, scores.f1))
            assert overall[-1] == pytest.approx((clip["acc"], clip["ap"], clip["f1"]), abs=1e-6)
        means = np.mean(overall, axis=0)
        expected = result["overall"]
        assert tuple(means) == pytest.approx((expected["accuracy"], expected["ap"], expected["f1"]), abs=1e-6)
