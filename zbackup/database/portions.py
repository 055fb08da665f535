"""Read a range of events as a worker: at once, or in portions where its pace wants short statements."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from zbackup.database.export import read_rows
from zbackup.database.snapshot import Holder, Worker
from zbackup.event import Cursor, cursor_of
from zbackup.source import EventTable

FIRST_ROWS = 100


def read_range(worker: Worker | Holder, table: EventTable, lo: datetime, hi: datetime) -> Iterator[bytes]:
    """
    Yield the rows of a range as blocks of lines of COPY text, in one transaction, or one per portion.

    All portions see the worker's snapshot, and each begins after the last row of the one before. Raises as
    `read_rows`.
    """
    pace = worker.pace
    if pace.portion_bytes is None:
        with worker.transaction() as connection:
            yield from read_rows(connection, table, lo, hi)
        return
    # Without an index in their order each portion would read the whole table.
    most = FIRST_ROWS if table.indexed_by_time else None
    after: Cursor | None = None
    while True:
        rows = read_bytes = 0
        with worker.transaction() as connection:
            for block in read_rows(connection, table, lo, hi, after=after, most=most):
                rows += block.count(b"\n")
                read_bytes += len(block)
                if rows == most:
                    after = cursor_of(block[block.rfind(b"\n", 0, -1) + 1 :])
                yield block
                del block
            pace.count(read_bytes)
        if most is None or rows < most:
            return
        most = pace.next_portion(most, read_bytes)
