"""The feature row (schema version 1): its columns and checks.

One row per clip, keyed by `clip_id`, contains all features of that clip. Tensors are fixed-size binary values without
compression or dictionary (about 8,000 MiB/s to read, against under 500 for Arrow tensor columns); their shape and
dtype are in the column's metadata. Text features are stored once per distinct caption, in a separate table.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from dmma_core.data.manifest import Clip, arrow_schema_of
from dmma_core.errors import SchemaError
from dmma_core.tensors import TensorSpec

SCHEMA_VERSION = 1
TENSORS = ("latent_mean", "latent_std", "rgb", "depth", "depth_scalars", "sync")


@dataclass(frozen=True)
class FeatureSchema:
    """Columns of a feature set. `tensors` follow `TENSORS`; `text` is the caption table's only tensor.

    `encoders` maps each encoder's role to its fingerprint (architecture and weights), so that features of different
    encoders can never be mixed. `depth_scalar_names` are the K columns of `depth_scalars`.
    """

    bundle: str
    tensors: tuple[TensorSpec, ...]
    text: TensorSpec
    encoders: Mapping[str, str]
    depth_scalar_names: tuple[str, ...]
    sample_rate_hz: int
    num_samples: int
    duration_s: float

    def __post_init__(self) -> None:
        names = tuple(spec.name for spec in self.tensors)
        if names != TENSORS:
            raise SchemaError(f"A feature schema has the tensors {names}, expected {TENSORS}.")

    def spec(self, name: str) -> TensorSpec:
        """Shape and dtype of the tensor `name`."""
        return next(spec for spec in (*self.tensors, self.text) if spec.name == name)

    def row_schema(self) -> pa.Schema:
        return pa.schema([*arrow_schema_of(Clip), *(_tensor_field(spec) for spec in self.tensors)])

    def caption_schema(self) -> pa.Schema:
        text_columns = [pa.field(name, pa.string(), nullable=False) for name in ("caption_id", "caption")]
        return pa.schema([*text_columns, _tensor_field(self.text)])

    def encode_row(self, clip: Clip, features: Mapping[str, Any]) -> dict[str, Any]:
        """One Parquet row. Raises ValueError for a missing, misshapen or non-finite tensor."""
        if missing := set(TENSORS) - set(features):
            raise ValueError(f"{clip.clip_id} lacks the features {sorted(missing)}.")
        return {**asdict(clip), **{spec.name: spec.to_bytes(features[spec.name]) for spec in self.tensors}}

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "encoders": dict(self.encoders)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "FeatureSchema":
        def spec(value: Mapping[str, Any]) -> TensorSpec:
            return TensorSpec(value["name"], tuple(value["shape"]), value["dtype"])

        return cls(
            **{
                **values,
                "tensors": tuple(spec(value) for value in values["tensors"]),
                "text": spec(values["text"]),
                "depth_scalar_names": tuple(values["depth_scalar_names"]),
            }
        )

    def require_equal(self, other: "FeatureSchema", where: str) -> None:
        """Raise SchemaError that lists every field in which `other` (found at `where`) differs."""
        mine, others = self.to_dict(), other.to_dict()
        if differing := sorted(key for key in mine if mine[key] != others[key]):
            raise SchemaError(
                f"The features at {where} are of another encoder bundle: {', '.join(differing)} differ.",
                remedy="Use the same bundle with the same encoder_weights.",
            )


def _tensor_field(spec: TensorSpec) -> pa.Field:
    metadata = {"shape": json.dumps(spec.shape), "dtype": spec.dtype}
    return pa.field(spec.name, pa.binary(spec.num_bytes), nullable=False, metadata=metadata)


def rows_to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Rows of `FeatureSchema.encode_row`, or of captions, as an Arrow table."""
    return pa.Table.from_pylist(list(rows), schema=schema)
