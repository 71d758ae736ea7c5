"""Parquet without Arrow's threads, which sometimes abort a process that exits soon after reading."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import NativeFile

from dmma_core.storage import paths


def open_parquet(source: bytes | NativeFile) -> pq.ParquetFile:
    """Open a file for partial reads; pass `use_threads=False` to its read methods. Raises pa.ArrowException."""
    return pq.ParquetFile(io.BytesIO(source) if isinstance(source, bytes) else source, pre_buffer=False)


def read_table(source: bytes | NativeFile) -> pa.Table:
    """The full table. Raises pa.ArrowException for damaged data."""
    return open_parquet(source).read(use_threads=False)


def read_table_at(uri: str) -> pa.Table:
    """`read_table` of the file `uri`, local or in a bucket."""
    return read_table(paths.read_bytes(uri))
