"""Read ranges of the source into chunks, several at a time, in one snapshot."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from datetime import datetime
from threading import BoundedSemaphore

from zbackup.archive.chunk import FrameFacts
from zbackup.archive.manifest import ChunkRef, Slice
from zbackup.archive.rows import split_rows
from zbackup.archive.sink import Draft, Sink
from zbackup.database.portions import read_range
from zbackup.database.snapshot import Workers
from zbackup.source import EventTable
from zbackup.zitadel.events import UPGRADE_EVENTS

# So many chunks are stored while others are read.
AHEAD = 2


def seal(
    sink: Sink,
    workers: Workers,
    pool: Executor,
    table: EventTable,
    slices: Sequence[Slice],
) -> list[ChunkRef]:
    """
    Store the rows of every slice; return their chunks in order.

    Workers read on while the store takes what they have read, `AHEAD` chunks at most. When one fails the others are
    cancelled, on the server too, and have ended when this raises.
    """
    room = BoundedSemaphore(AHEAD)
    failed: list[BaseException] = []

    def read(part: Slice) -> Future[list[ChunkRef]]:
        if failed:
            raise failed[0]
        with workers.borrow() as worker:
            draft = sink.read(part.name, read_range(worker, table, part.lo, part.hi), part.lo, part.hi)
        room.acquire()
        return storing.submit(store, draft)

    def store(draft: Draft) -> list[ChunkRef]:
        try:
            return draft.store()
        except BaseException as error:
            failed.append(error)
            raise
        finally:
            room.release()

    with ThreadPoolExecutor(AHEAD, "store") as storing:
        reading = [pool.submit(read, part) for part in slices]
        try:
            for ended in wait(reading, return_when=FIRST_EXCEPTION).done:
                ended.result()
            return [chunk for stored in reading for chunk in stored.result().result()]
        except BaseException:
            for future in reading:
                future.cancel()
            workers.cancel()
            wait(reading)
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

    def __call__(self, rows: bytes, facts: FrameFacts) -> None:
        if not self.seen and b"system" in facts.aggregate_types:
            named = (row for row in split_rows(rows) if b"\tsystem.m" in row)
            self.seen = any(row.split(b"\t", 8)[7].startswith(UPGRADE_EVENTS) for row in named)


def unseen(_rows: bytes, _facts: FrameFacts) -> None:
    """Watch for nothing: in tails and ranges that are read again."""
