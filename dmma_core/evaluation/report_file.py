"""The report of one arm: `<arm>.json` (rows, aggregates, provenance) and `<arm>.safetensors` (embeddings)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from dmma_core.errors import SchemaError
from dmma_core.evaluation.set_metrics import SetArrays
from dmma_core.storage import paths
from dmma_core.storage.overwriting import is_own_json, refuse_overwriting
from dmma_core.storage.tensor_files import read_tensors, tensor_names, write_tensors

SCHEMA_VERSION = 2
_ARRAYS = ("embedding", "logits", "true_embedding", "true_logits")


@dataclass(frozen=True)
class Report:
    """A report and its URI. `record` is its JSON."""

    uri: str
    record: dict[str, Any]

    @property
    def arm(self) -> str:
        return str(self.record["arm"])

    @property
    def clip_ids(self) -> list[str]:
        return [row["clip_id"] for row in self.record["rows"]]

    @cached_property
    def _arrays(self) -> dict[str, Any]:
        uri = arrays_uri(self.uri)
        if paths.sha256_of(uri) != self.record["arrays_sha256"]:
            raise SchemaError(f"{uri} does not belong to {self.uri}.", remedy="Run `dmma evaluate` again.")
        return {name: tensor.numpy() for name, tensor in read_tensors(uri).items()}

    def values(self, metric: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Per-clip values [B] of a metric of the generated sounds, NaN for clips without one."""
        return np.array([row["generated"].get(metric, np.nan) for row in self.record["rows"]], np.float64)

    def set_arrays(self) -> SetArrays:
        return SetArrays(
            self._arrays["embedding"],
            self._arrays["logits"],
            self._arrays["true_embedding"],
            self.values("mean_level_dbfs"),
            self.values("mean_inverse_distance_per_m"),
        )


def arrays_uri(report_uri: str) -> str:
    return report_uri.removesuffix(".json") + ".safetensors"


def check_report_uri(uri: str) -> None:
    """Raise StorageError if a report at `uri` would overwrite a file that is not a report."""
    folder, _, name = paths.absolute(uri).rpartition("/")
    is_own = is_own_json(uri, "arrays_sha256") if paths.exists(uri) else tensor_names(arrays_uri(uri)) == set(_ARRAYS)
    refuse_overwriting(folder, (name, arrays_uri(name)), is_own)


def write_report(uri: str, record: Mapping[str, Any], arrays: Mapping[str, Any]) -> Report:
    """Write the arrays, then the JSON with their sha256."""
    assert set(arrays) == set(_ARRAYS)
    write_tensors(arrays_uri(uri), {name: torch.from_numpy(value) for name, value in arrays.items()})
    complete = {**record, "schema_version": SCHEMA_VERSION, "arrays_sha256": paths.sha256_of(arrays_uri(uri))}
    paths.write_json(uri, complete)
    return Report(uri, complete)


def read_report(uri: str) -> Report:
    """Raises StorageError if it is absent, SchemaError for another schema version."""
    record = paths.read_json(uri)
    if not isinstance(record, dict) or record.get("schema_version") != SCHEMA_VERSION:
        found = record.get("schema_version") if isinstance(record, dict) else None
        raise SchemaError(
            f"{uri} has schema version {found!r}, but this version reads {SCHEMA_VERSION}.",
            remedy="Run `dmma evaluate` again.",
        )
    return Report(uri, record)
