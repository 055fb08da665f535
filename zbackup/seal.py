"""Read ranges of the source into chunks, several at a time, in one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, wait
from dataclasses import replace
from datetime import datetime

from zbackup.archive.chunk import FrameFacts
from zbackup.archive.manifest import ChunkRef, Slice
from zbackup.archive.sink import Sink
from zbackup.database.portions import read_range
from zbackup.database.snapshot import Workers
from zbackup.source import EventTable
from zbackup.zitadel.events import UPGRADE_EVENTS


def seal(
    sink: Sink,
    workers: Workers,
    pool: Executor,
    table: EventTable,
    slices: Sequence[Slice],
) -> list[ChunkRef]:
    """
    Store the rows of every slice; return their chunks in order.

    When one fails the others are cancelled, on the server too.
    """

    def one(part: Slice) -> list[ChunkRef]:
        with workers.borrow() as worker:
            draft = sink.read(part.name, read_range(worker, table, part.lo, part.hi), part.lo, part.hi)
        return draft.store()

    futures: list[Future[list[ChunkRef]]] = [pool.submit(one, part) for part in slices]
    try:
        for ended in wait(futures, return_when=FIRST_EXCEPTION).done:
            ended.result()
        return [chunk for future in futures for chunk in future.result()]
    except BaseException:
        for future in futures:
            future.cancel()
        workers.cancel()
        raise


def tiled(chunks: Sequence[ChunkRef], lo: datetime) -> list[ChunkRef]:
    """Let each chunk begin where the one before ends, the first at `lo`: between them were no rows."""
    result: list[ChunkRef] = []
    for chunk in chunks:
        result.append(replace(chunk, lo=lo))
        lo = chunk.hi
    return result


class UpgradeWatch:
    """Notices events after which old rows may have been rewritten."""

    def __init__(self) -> None:
        self.seen = False

    def __call__(self, rows: list[bytes], facts: FrameFacts) -> None:
        if not self.seen and b"system" in facts.aggregate_types:
            self.seen = any(row.split(b"\t", 8)[7].startswith(UPGRADE_EVENTS) for row in rows if b"\tsystem.m" in row)
