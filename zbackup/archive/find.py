"""Look into chunks without reading them whole: by position, by key, or next to an instant."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from decimal import Decimal
from itertools import islice

from zbackup.archive.archive import Archive
from zbackup.archive.chunk import Frame
from zbackup.archive.manifest import ChunkRef, Manifest
from zbackup.archive.plan import first_of, last_of
from zbackup.archive.rows import rows_in
from zbackup.archive.sound import rows_of
from zbackup.event import Cursor, cursor_of, parse_instant

# Rows of two frames (about 2 MiB) on each side of an instant are looked at for an estimate, and no more than so many:
# an instant may have millions.
NEAR_FRAMES, NEAR_EVENTS = 2, 20_000


def chunks_of(archive: Archive, manifest: Manifest) -> tuple[ChunkRef, ...]:
    """Return the chunks of a backup, log then tail, without empty ones."""
    return tuple(chunk for chunk in (*archive.chunks(manifest.log), *manifest.tail) if chunk.rows)


def counts(archive: Archive, chunk: ChunkRef) -> tuple[dict[str, int], dict[str, int]]:
    """Return a chunk's rows per instance and per aggregate type."""
    trailer = archive.trailer(chunk)
    return trailer.instances, trailer.aggregate_types


def rows_until(archive: Archive, chunks: Iterable[ChunkRef], at: datetime) -> int:
    """Count the rows at or before an instant exactly; only frames that hold both sides are decoded."""
    rows = 0
    for chunk in chunks:
        if last_of(chunk) <= at:
            rows += chunk.rows
        elif first_of(chunk) <= at:
            for frame in archive.trailer(chunk).frames:
                if parse_instant(frame.last) <= at:
                    rows += frame.rows
                elif parse_instant(frame.first) <= at:
                    rows += sum(cursor.created_at <= at for cursor in _cursors(archive, chunk, frame))
    return rows


def rows_at(archive: Archive, manifest: Manifest, at: datetime) -> int:
    """Count the rows of a backup at or before an instant exactly; of its indexes one that holds both sides is read."""
    rows = 0
    for index in manifest.log.indexes:
        if index.hi <= at:
            rows += index.rows
        elif index.lo <= at:
            rows += rows_until(archive, (chunk for chunk in archive.index(index) if chunk.rows), at)
    return rows + rows_until(archive, (chunk for chunk in (*manifest.log.chunks, *manifest.tail) if chunk.rows), at)


def with_position(archive: Archive, chunks: Iterable[ChunkRef], position: Decimal) -> set[datetime]:
    """Return the instants of the events that hold exactly this position."""
    found: set[datetime] = set()
    for chunk in chunks:
        if chunk.positions[0] <= position <= chunk.positions[1]:
            for frame in archive.trailer(chunk).frames:
                if Decimal(frame.least) <= position <= Decimal(frame.greatest):
                    found |= {
                        cursor.created_at for cursor in _cursors(archive, chunk, frame) if cursor.position == position
                    }
    return found


def with_key(
    archive: Archive, chunks: Iterable[ChunkRef], instance: str, kind: str, aggregate: str, sequence: int
) -> datetime | None:
    """Return the instant of the event with this primary key. Chunks without its instance or type are not read."""
    key = (instance.encode(), kind.encode(), aggregate.encode(), sequence)
    end = f"\t{sequence}\t".encode()
    for chunk in chunks:
        instances, types = counts(archive, chunk)
        if instance not in instances or kind not in types:
            continue
        for frame in archive.trailer(chunk).frames:
            for row in _rows(archive, chunk, frame):
                if end in row:
                    with rows_of(chunk.name):
                        cursor = cursor_of(row)
                    if (cursor.instance_id, cursor.aggregate_type, cursor.aggregate_id, cursor.sequence) == key:
                        return cursor.created_at
    return None


def near(
    archive: Archive, before: Iterable[ChunkRef], after: Iterable[ChunkRef], at: datetime
) -> tuple[list[Cursor], list[Cursor]]:
    """
    Return the events next to an instant: those at or before it, and those after it.

    `before` and `after` are chunks that hold rows on the one and on the other side, each nearest first.
    """
    return (
        _take(archive, before, lambda frame: parse_instant(frame.first) <= at, lambda when: when <= at, backwards=True),
        _take(archive, after, lambda frame: parse_instant(frame.last) > at, lambda when: when > at, backwards=False),
    )


def _take(
    archive: Archive,
    chunks: Iterable[ChunkRef],
    wanted: Callable[[Frame], bool],
    counts: Callable[[datetime], bool],
    *,
    backwards: bool,
) -> list[Cursor]:
    """Return the events that count, nearest ones, of the first frames that are wanted."""
    found: list[Cursor] = []
    left = NEAR_FRAMES
    for chunk in chunks:
        frames = archive.trailer(chunk).frames
        for frame in filter(wanted, reversed(frames) if backwards else frames):
            events = (cursor for cursor in _cursors(archive, chunk, frame) if counts(cursor.created_at))
            room = NEAR_EVENTS - len(found)
            found += deque(events, room) if backwards else islice(events, room)
            left -= 1
            if not left or len(found) == NEAR_EVENTS:
                return found
    return found


def _cursors(archive: Archive, chunk: ChunkRef, frame: Frame) -> Iterator[Cursor]:
    with rows_of(chunk.name):
        yield from map(cursor_of, _rows(archive, chunk, frame))


def _rows(archive: Archive, chunk: ChunkRef, frame: Frame) -> Iterator[bytes]:
    return rows_in(archive.frame(chunk, frame))
