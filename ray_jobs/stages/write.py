"""Stage 3 of extraction, in the driver: encoded clips, in any order, become finished shards.

INPUT   the output of `stages.encode`.
OUTPUT  part files with their markers, through `ShardCollector`.
SIZE    a clip's features take 0.1 to 1 MB; the few unfinished shards are held in memory.
"""

from collections.abc import Generator
from contextlib import closing

import pyarrow as pa

from dmma_core.data.extraction import ShardCollector
from dmma_core.data.manifest import Rejected
from dmma_core.errors import StorageError
from dmma_core.log import Progress
from ray_jobs.stages.decode import STORAGE_FAILED

_STAGE_COLUMNS = ("shard", "reason", "detail")


def write_encoded(tables: Generator[pa.Table], collector: ShardCollector, progress: Progress) -> int:
    """Add every row to the collector; returns the number of rejected clips.

    Raises StorageError, and ends the work behind `tables`, where a clip's file could not be read from the storage.
    """
    num_rejected = 0
    with closing(tables):
        for table in tables:
            for row in table.to_pylist():
                shard, reason, detail = (row.pop(name) for name in _STAGE_COLUMNS)
                if reason == STORAGE_FAILED:
                    raise StorageError(detail, remedy="Then run the same command again; finished shards are kept.")
                if reason:
                    num_rejected += 1
                    collector.add(shard, Rejected(row["clip_id"], row["source_uri"], reason, detail))
                else:
                    collector.add(shard, row)
            progress.advance(table.num_rows, f"{num_rejected} rejected" if num_rejected else "")
    return num_rejected
