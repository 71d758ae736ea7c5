"""Captions and splits from tables as they are published."""

from pathlib import Path

import pytest

from dmma_core.data.labels import caption_from_name, clip_id_of, read_labels, split_by_hash
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
def test_tables_of_every_style_give_the_same_captions(tmp_path: Path, name: str, text: str) -> None:
    captions = dict(read_labels(table(tmp_path, text, name)).captions)
    assert captions.pop("-Qowmc0P9ic_000034") == "playing bass drum"
    assert list(captions.values()) == ["a, b"]
    assert next(iter(captions)).startswith("x_1")


def test_splits_are_read_and_named_alike(tmp_path: Path) -> None:
    labels = read_labels(table(tmp_path, "id,label,split\na,dog,train\nb,cat,valid\nc,cow,\n"))
    assert labels.splits == {"a": "train", "b": "val"}
    assert read_labels(table(tmp_path, "a.mp4,test\nb.mp4,validation\n")).splits == {"a": "test", "b": "val"}
    with pytest.raises(ConfigError, match="row 1: unknown split 'holdout'"):
        read_labels(table(tmp_path, "id,split\na,holdout\n"))


def test_the_first_of_several_captions_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels = read_labels(table(tmp_path, "id,label\na,dog\na,cat\na,dog\n"))
    assert labels.captions == {"a": "dog"}
    assert "1 further captions" in caplog.text


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


def test_clip_ids_and_captions_from_names() -> None:
    assert clip_id_of("/data/-x.y.MP4") == "-x.y"
    assert clip_id_of("v1.2") == "v1.2"
    assert caption_from_name("dog_barking-02") == "dog barking"
    assert caption_from_name("-Qowmc0P9ic_000034") == ""


def test_splits_by_hash_are_stable_and_have_their_shares() -> None:
    ids = [f"clip-{index}" for index in range(20_000)]
    splits = [split_by_hash(clip_id, 0.1, 0.2) for clip_id in ids]
    assert abs(splits.count("val") / len(ids) - 0.1) < 0.01
    assert abs(splits.count("test") / len(ids) - 0.2) < 0.01
    assert [split_by_hash(clip_id, 0.1, 0.2) for clip_id in ids[:50]] == splits[:50]
    assert [split_by_hash(clip_id, 0.1, 0.2, seed=1) for clip_id in ids] != splits
