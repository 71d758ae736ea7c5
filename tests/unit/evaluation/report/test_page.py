import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from dmma_core.errors import IncompleteError
from dmma_core.evaluation.compare import compare
from dmma_core.evaluation.report.curves import read_curves
from dmma_core.evaluation.report.examples import choose_examples, make_examples
from dmma_core.evaluation.report.page import report_page
from dmma_core.evaluation.report_file import Report
from helpers.generated import NUM_CLIPS

HOSTILE = '<script>alert("x")</script> & "quoted"'


def _inverse_depth_by_height(frames_THWC: np.ndarray) -> np.ndarray:
    """Nearer towards the lower edge, as on a plane; in place of a depth network, whose maps other tests check."""
    height = frames_THWC.shape[1]
    return np.broadcast_to(np.linspace(0, 1, height)[None, :, None], frames_THWC.shape[:3])


@pytest.fixture(scope="module")
def reports(measured_pair: tuple[Report, Report]) -> list[Report]:
    return [
        Report(report.uri, {**report.record, "rows": [{**row, "caption": HOSTILE} for row in report.record["rows"]]})
        for report in measured_pair
    ]


@pytest.fixture(scope="module")
def page(reports: list[Report], tmp_path_factory: pytest.TempPathFactory) -> str:
    curves = {}
    for arm in ("baseline", "depth"):
        run = tmp_path_factory.mktemp(arm)
        points = [{"step": s, "samples": 16 * s, "train/loss": 2 / s, "val/loss": 3 / s} for s in range(1, 30)]
        (run / "metrics.jsonl").write_text("\n".join(json.dumps(point) for point in points) + "\n")
        curves[arm] = read_curves(str(run))
    comparison = compare(*reports, num_resamples=200)
    examples = make_examples(*reports, choose_examples(reports[0], 2), _inverse_depth_by_height)
    return report_page("a & b", comparison, curves, examples)


class _Reader(HTMLParser):
    """Collects tags with their attributes, and whether every opened element is closed in order."""

    void = frozenset({"meta", "link", "br", "img", "hr", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def _read(page: str) -> _Reader:
    reader = _Reader()
    reader.feed(page)
    return reader


def test_the_page_is_well_formed_and_has_no_external_references(page: str) -> None:
    reader = _read(page)
    assert reader.open == []
    for tag, attributes in reader.tags:
        assert tag not in {"script", "iframe", "object"}
        for name in ("src", "href", "xlink:href", "poster"):
            if address := attributes.get(name):
                assert address.startswith(("data:", "#")), f"<{tag} {name}={address[:60]}>"
    assert not re.search(r"url\((?!#)", page)
    assert "@import" not in page


def test_texts_are_escaped(page: str) -> None:
    assert "<script>" not in page
    assert "&lt;script&gt;alert" in page
    assert "a &amp; b" in page


def test_every_image_and_video_has_a_text_alternative_and_ids_are_unique(page: str) -> None:
    tags = _read(page).tags
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in tags if tag in {"video", "svg"})
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_both_examples_have_three_videos_with_sound_and_charts_follow_the_theme(page: str) -> None:
    tags = _read(page).tags
    videos = [attributes["src"] or "" for tag, attributes in tags if tag == "video"]
    assert len(videos) == 6
    assert all(video.startswith("data:video/mp4;base64,") for video in videos)
    assert "prefers-color-scheme: dark" in page
    assert "var(--second)" in page
    assert "#0101" not in page, "a placeholder colour was left in a chart"


def test_verdict_and_every_number_of_the_table_are_on_the_page(page: str, reports: list[Report]) -> None:
    for name in reports[0].record["aggregates"]:
        assert f"<code>{name}" in page
    assert "By chance alone" in page or "No difference shown" in page


def test_a_run_without_losses_is_reported(tmp_path: Path) -> None:
    with pytest.raises(IncompleteError, match="contains no losses"):
        read_curves(str(tmp_path))


def test_examples_are_spread_over_the_clips_whose_distance_changes(reports: list[Report]) -> None:
    rows = choose_examples(reports[0], 2)
    moving = np.flatnonzero(np.isfinite(reports[0].values("distance_spearman")))
    assert rows == [moving[0], moving[-1]]
    assert choose_examples(reports[0], 100) == list(range(NUM_CLIPS))
    assert choose_examples(reports[0], 0) == []
