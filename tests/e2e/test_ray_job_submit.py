"""The full chain on a separately started head node, every job submitted over HTTP."""

import json
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from dmma_core.data.feature_store import FeatureStore
from dmma_core.provenance import git_commit
from dmma_core.storage import media
from helpers.head_node import HeadNode, head_node
from helpers.password_proxy import password_proxy
from helpers.tracked import write_comparison

PASSWORD = secrets.token_hex(16)  # not in this file, which Ray copies


@pytest.fixture(scope="module")
def node():
    """Started with what its jobs need for a tracking server, as the SkyPilot task does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", "anna")
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        with password_proxy("anna", PASSWORD) as server:
            patch.setenv("MLFLOW_TRACKING_URI", f"http://{server.host}")
            with head_node() as started:
                yield started


def submitted_without(node: HeadNode, *names: str) -> HeadNode:
    """The same node for a person who has none of these variables."""
    return replace(node, environment={key: value for key, value in node.environment.items() if key not in names})


def test_a_submitted_job_has_the_nodes_password_and_no_file_contains_it(node: HeadNode, tmp_path: Path) -> None:
    comparison = write_comparison(tmp_path)
    person = submitted_without(node, "MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    done = person.submit("ray_jobs.tools.sync_metrics", comparison.uri, "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    files = [path for path in (*node.folder.rglob("*"), *tmp_path.rglob("*")) if path.is_file()]
    assert len(files) > 20
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]


def jobs_of_the_chain(work: Path) -> list[list[str]]:
    """Twelve clips and a few steps: small, but every job runs its real parts."""
    at = {
        folder: f"{work}/{folder}"
        for folder in ("videos", "manifest", "features", "runs", "generated", "reports", "comparison")
    }
    training = [
        "recipe.loop.num_steps=6",
        "recipe.loop.batch_size=4",
        "recipe.loop.validate_every=3",
        "recipe.loop.checkpoint_every=3",
        "mlflow=false",
    ]
    chain = [
        ["ray_jobs.render", f"out_uri={at['videos']}", "scenes.num_clips=12"],
        [
            "ray_jobs.clean",
            *(f"videos_uri={at['videos']}", f"captions_uri={at['videos']}/captions.tsv", f"out_uri={at['manifest']}"),
            *("cleaning.val_fraction=0.25", "cleaning.test_fraction=0.25"),
        ],
        ["ray_jobs.extract", f"manifest_uri={at['manifest']}", f"out_uri={at['features']}"],
        ["ray_jobs.train", f"features_uri={at['features']}", f"comparison_uri={at['runs']}", *training],
    ]
    for arm in ("baseline", "depth"):
        chain += [
            [
                "ray_jobs.generate",
                *(f"run_uri={at['runs']}/{arm}", f"features_uri={at['features']}", "sampling.num_steps=2"),
                f"out_uri={at['generated']}/{arm}",
            ],
            [
                "ray_jobs.evaluate",
                *(f"generated_uri={at['generated']}/{arm}", f"report_uri={at['reports']}/{arm}.json", "mlflow=false"),
            ],
        ]
    reports = [f"{arm}_report_uri={at['reports']}/{arm}.json" for arm in ("baseline", "depth")]
    return [*chain, ["ray_jobs.compare", *reports, f"out_uri={at['comparison']}", "num_resamples=200", "mlflow=false"]]


def test_every_job_runs_on_a_cluster_it_was_submitted_to(node: HeadNode, tmp_path: Path) -> None:
    for module, *settings in jobs_of_the_chain(tmp_path):
        done = node.submit(module, "--config", "tiny", *settings)
        assert done.returncode == 0, f"{module}:\n{done.stdout}\n{done.stderr}"
    store = FeatureStore(str(tmp_path / "features"))
    assert len(store) == 12
    for record in (
        "features/FEATURES.json",
        "runs/depth/checkpoints/step=000000006/COMPLETE.json",
    ):  # driver and worker
        assert json.loads((tmp_path / record).read_text())["provenance"]["git_commit"] == git_commit(), record
    record = json.loads((tmp_path / "generated" / "depth" / "GENERATION.json").read_text())
    assert record["clips"] == [store.clips[row].clip_id for row in store.rows_of_split("test")]
    sound_A = media.decode_audio(str(tmp_path / "generated" / "depth" / f"{record['clips'][0]}.flac"), 16_000)
    assert sound_A.shape == (64_000,)
    assert abs(sound_A).max() > 0
    assert "<html" in (tmp_path / "comparison" / "report.html").read_text()


def test_a_submitted_job_that_fails_prints_the_reason(node: HeadNode, tmp_path: Path) -> None:
    out = f"out_uri={tmp_path}/features"
    done = node.submit("ray_jobs.extract", "--config", "tiny", f"manifest_uri={tmp_path}/absent", out)
    assert done.returncode != 0
    assert "has no MANIFEST.json" in done.stdout + done.stderr
