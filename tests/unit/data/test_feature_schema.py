import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from dmma_core.data.feature_schema import TENSORS, FeatureSchema, rows_to_table
from dmma_core.errors import SchemaError
from dmma_core.tensors import TensorSpec
from helpers.rows import SCHEMA, make_clip, make_features


def test_json_round_trip() -> None:
    assert FeatureSchema.from_dict(json.loads(json.dumps(SCHEMA.to_dict()))) == SCHEMA


def test_shape_and_dtype_are_in_the_columns_metadata() -> None:
    field = SCHEMA.row_schema().field("rgb")
    assert field.type == pa.binary(12) and not field.nullable
    assert field.metadata == {b"shape": b"[2, 3]", b"dtype": b"float16"}
    assert SCHEMA.caption_schema().names == ["caption_id", "caption", "text"]


def test_a_row_has_the_clip_and_its_tensors() -> None:
    row = SCHEMA.encode_row(make_clip(5), make_features(5))
    table = rows_to_table([row], SCHEMA.row_schema())
    assert table["clip_id"].to_pylist() == ["clip-0005"] and table["has_video"].to_pylist() == [True]
    np.testing.assert_array_equal(SCHEMA.spec("depth").from_bytes(row["depth"]), np.full((2, 3), 5.375, np.float16))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rgb", np.zeros((3, 2)), r"rgb has shape \(3, 2\), expected \(2, 3\)"),
        ("depth", np.full((2, 3), np.nan), "depth contains values that are not finite"),
        ("sync", np.full((2, 3), 1e6), "sync contains values that are not finite in float16"),
    ],
)
def test_bad_tensors_are_refused(name: str, value: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SCHEMA.encode_row(make_clip(0), {**make_features(0), name: value})


def test_a_missing_tensor_is_named() -> None:
    features = make_features(0)
    del features["sync"]
    with pytest.raises(ValueError, match=r"clip-0000 lacks the features \['sync'\]"):
        SCHEMA.encode_row(make_clip(0), features)


def test_tensors_have_one_order() -> None:
    with pytest.raises(SchemaError, match="has the tensors"):
        replace(SCHEMA, tensors=tuple(TensorSpec(name, (1,)) for name in reversed(TENSORS)))


def test_differences_are_named() -> None:
    SCHEMA.require_equal(replace(SCHEMA), "here")
    other = replace(SCHEMA, encoders={"clip": "c1", "depth": "d0"}, sample_rate_hz=44_100)
    with pytest.raises(SchemaError, match=r"at there .*encoders, sample_rate_hz differ"):
        SCHEMA.require_equal(other, "there")
