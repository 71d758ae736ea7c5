"""Captions and splits from published tables."""

from pathlib import Path

import pytest

from dmma_core.data.labels import caption_from_name, clip_id_of, read_labels, split_by_hash, splits_by_hash
from dmma_core.errors import ConfigError


def table(tmp_path: Path, text: str, name: str = "labels.csv") -> str:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.tsv", "id\tlabel\n-Qowmc0P9ic_000034\tplaying bass drum\nx_1\ta, b\n"),
        ("a.csv", '-Qowmc0P9ic_000034.mp4,playing bass drum\nx_1.mp4,"a, b"\n'),
        ("a.csv", '-Qowmc0P9ic,34,playing bass drum,test\nx_1,1,"a, b",train\n'),
        ("a.csv", 'filename,start,desc,split\n-Qowmc0P9ic,34,playing bass drum,test\nx_1,1,"a, b",train\n'),
        (
            "a.txt",
            "\ufeffFile\tsource\tCaption\n-Qowmc0P9ic_000034.MP4\tq\tplaying bass drum\r\nsub/x_1.wav\tr\ta, b\r\n",
        ),
    ],
)
def test_tables_of_every_format_give_the_same_captions(tmp_path: Path, name: str, text: str) -> None:
    captions = dict(read_labels(table(tmp_path, text, name)).captions)
    assert captions.pop("-Qowmc0P9ic_000034") == "playing bass drum"
    assert list(captions.values()) == ["a, b"]
    assert next(iter(captions)).startswith("x_1")


def test_splits_are_read_and_names_are_unified(tmp_path: Path) -> None:
    labels = read_labels(table(tmp_path, "id,label,split\na,dog,train\nb,cat,valid\nc,cow,\n"))
    assert labels.splits == {"a": "train", "b": "val"}
    assert read_labels(table(tmp_path, "a.mp4,test\nb.mp4,validation\n")).splits == {"a": "test", "b": "val"}
    with pytest.raises(ConfigError, match="row 1: unknown split 'holdout'"):
        read_labels(table(tmp_path, "id,split\na,holdout\n"))


def test_the_first_of_several_captions_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = read_labels(table(tmp_path, "id,label\na,dog\na,cat\na,dog\n"))
    assert labels.captions == {"a": "dog"}
    assert "1 more captions" in caplog.text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", ""),
        ("a.csv", "\n\n"),
        ("a.tsv", "one\ntwo\n"),
        ("a.csv", "filename,material\na.mp4,wood\n"),
        ("a.csv", "id,start,label\na,soon,dog\n"),
    ],
)
def test_a_table_that_cannot_be_understood_is_an_error(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ConfigError):
        read_labels(table(tmp_path, text, name))


def test_clip_ids_of_names() -> None:
    assert clip_id_of("/data/-x.y.MP4") == "-x.y"
    assert clip_id_of("v1.2") == "v1.2"


@pytest.mark.parametrize(
    ("name", "caption"),
    [
        ("dog_barking-02", "dog barking"),
        ("IMG_2041 Dog barking at a car (1)", "Dog barking at a car"),
        ("a_horse_in_the_RAIN.final.1080p", "horse in the RAIN"),
        ("scene_000005_footsteps_approach", "footsteps approach"),
        ("Grüne Öltür knarrt", "Grüne Öltür knarrt"),
        ("собака_лает_02", "собака лает"),
        ("कुत्ता भौंकना", "कुत्ता भौंकना"),
        ("狗叫 下雨", "狗叫 下雨"),
    ],
)
def test_names_with_words_become_captions(name: str, caption: str) -> None:
    assert caption_from_name(name) == caption


@pytest.mark.parametrize(
    "name",
    [
        *(
            "IMG",
            "IMG_1234",
            "DSC0001",
            "DSC_0001",
            "VID_20240101_120000",
            "VID-20240101-WA0003",
            "MVI_1234",
            "GOPR0123",
        ),
        *(
            "PXL_20240101_120000123.TS",
            "DJI_0001",
            "MOV_0001_HD",
            "IMG_E0042",
            "P1000123",
            "00001",
            "20240101",
            "1920x1080",
        ),
        *("vgg 3HgbEKrbA9s", "3HgbEKrbA9s", "-Qowmc0P9ic_000034", "AbCdE-fGhIj_kLmNo", "x264 yuv420p"),
        *("screen recording 2024", "Screen Recording 2024-01-02 at 10.11.12", "final cut v2", "clip 01", "Untitled"),
        *("WhatsApp Video 2024-01-01 at 10.21.33", "qrtpl xkcd", "of a in", "dog", ""),
    ],
)
def test_names_of_cameras_editors_and_ids_are_no_captions(name: str) -> None:
    assert caption_from_name(name) == ""


def test_splits_by_hash_are_stable_and_have_their_shares() -> None:
    ids = [f"clip-{index}" for index in range(20_000)]
    splits = [split_by_hash(clip_id, 0.1, 0.2) for clip_id in ids]
    assert abs(splits.count("val") / len(ids) - 0.1) < 0.01
    assert abs(splits.count("test") / len(ids) - 0.2) < 0.01
    assert [split_by_hash(clip_id, 0.1, 0.2) for clip_id in ids[:50]] == splits[:50]
    assert [split_by_hash(clip_id, 0.1, 0.2, seed=1) for clip_id in ids] != splits


@pytest.mark.parametrize("num_clips", range(3, 41))
def test_no_requested_split_of_a_few_clips_is_empty(num_clips: int) -> None:
    for seed in range(20):
        ids = [f"clip-{index}" for index in range(num_clips)]
        splits = splits_by_hash(ids, 0.15, 0.15, seed)
        assert set(splits.values()) == {"train", "val", "test"}
        by_hash = {clip_id: split_by_hash(clip_id, 0.15, 0.15, seed) for clip_id in ids}
        if set(by_hash.values()) == {"train", "val", "test"}:
            assert splits == by_hash
        else:
            assert sum(splits[clip_id] != by_hash[clip_id] for clip_id in ids) <= 2
        assert splits == splits_by_hash(reversed(ids), 0.15, 0.15, seed)
        without_val = set(splits_by_hash(ids, 0.0, 0.15, seed).values())
        assert without_val == {"train", "test"}
        assert set(splits_by_hash(ids, 0.15, 0.0, seed).values()) == {"train", "val"}


def test_one_more_clip_moves_few_others() -> None:
    ids = [f"clip-{index}" for index in range(60)]
    for num_clips in range(3, 60):
        before, after = (splits_by_hash(ids[:count], 0.15, 0.15) for count in (num_clips, num_clips + 1))
        assert sum(after[clip_id] != split for clip_id, split in before.items()) <= 2


def test_one_or_two_clips_keep_the_split_of_their_hash() -> None:
    assert splits_by_hash(["clip-0", "clip-1"], 0.15, 0.15) == {
        clip_id: split_by_hash(clip_id, 0.15, 0.15) for clip_id in ("clip-0", "clip-1")
    }
