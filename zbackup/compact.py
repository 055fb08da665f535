"""
Merge the small chunks that many increments leave, so that a log stays short however often it grows.

Increments leave chunks of their own size. As soon as so many of a size class stand at the end of the log, they
become one of the next class: a log has at most this many chunks of each class, and a row is written once per class.
The rows are read from the source again, and each old chunk's digest must come out; where it does not, nothing is
merged, and the caller has something to audit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, takewhile

from zbackup.archive.log import LogEdit
from zbackup.archive.manifest import ChunkRef
from zbackup.archive.names import COMPACTED
from zbackup.archive.sink import Sink
from zbackup.database.portions import read_range
from zbackup.database.snapshot import Holder, Worker, Workers
from zbackup.progress import Step
from zbackup.source import EventTable

FACTOR = 16

SMALLEST_BYTES = 16 << 10
"""Raw bytes; what is smaller is of one class."""


def compact(edit: LogEdit, sink: Sink, workers: Workers, table: EventTable) -> ChunkRef | None:
    """Merge the newest chunks of a log where that is due; return one whose rows are not the source's any more."""
    limit = sink.chunk_bytes // FACTOR
    newest = takewhile(lambda chunk: chunk.raw_bytes < limit, edit.newest())
    small = due(tuple(newest)[::-1], sink.chunk_bytes)
    if not small:
        return None
    sink.report(Step("compact", f"{len(small)} chunks up to {small[-1].hi}"))
    try:
        with workers.borrow() as worker:
            draft = sink.read(COMPACTED, _proven(worker, table, small), small[0].lo, small[-1].hi)
    except _Differs as found:
        return found.chunk
    edit.replace(small[0], draft.store())
    for old in small[1:]:
        edit.replace(old, ())
    return None


def due(chunks: Sequence[ChunkRef], chunk_bytes: int) -> tuple[ChunkRef, ...]:
    """
    Choose from the chunks at a log's end those to merge, at most `chunk_bytes` of rows.

    They are `FACTOR` or more of a class, and what is smaller behind them; of several classes the greatest.
    """
    limit = chunk_bytes // FACTOR
    while limit:
        least = limit // FACTOR if limit > SMALLEST_BYTES else 0
        first = len(chunks)
        while first and chunks[first - 1].raw_bytes < limit:
            first -= 1
        if sum(chunk.raw_bytes >= least for chunk in chunks[first:]) >= FACTOR:
            return _fitting(chunks[first:], chunk_bytes)
        limit = least
    return ()


def _fitting(chunks: Sequence[ChunkRef], most_bytes: int) -> tuple[ChunkRef, ...]:
    """Take chunks from the first on, as many as make one."""
    sizes = accumulate(chunk.raw_bytes for chunk in chunks)
    return tuple(chunk for chunk, held in zip(chunks, sizes, strict=True) if held <= most_bytes)


class _Differs(Exception):
    def __init__(self, chunk: ChunkRef) -> None:
        self.chunk = chunk


def _proven(worker: Worker | Holder, table: EventTable, chunks: Sequence[ChunkRef]) -> Iterator[bytes]:
    """Yield the rows of consecutive chunks as the source has them. Raises _Differs where they are not the same."""
    for chunk in chunks:
        digest, rows = hashlib.sha256(), 0
        for block in read_range(worker, table, chunk.lo, chunk.hi):
            digest.update(block)
            rows += block.count(b"\n")
            yield block
            del block
        if (digest.hexdigest(), rows) != (chunk.raw_sha256, chunk.rows):
            raise _Differs(chunk)
