"""
Read what of a chunk was created within ranges of time, and as little else as can be.

A chunk that is wanted whole is read in one go and proved as a restore proves it. Of any other the frames that the
ranges need are read; each proves itself by its checksum and by what the trailer says of it. The trailer stands
alone then, without a digest: it must agree with the manifest where that says the same, and a frame is only passed
over when two of its times say so, so that no single flipped byte hides events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from itertools import chain, pairwise
from typing import TypeVar

from zbackup.archive.archive import Archive
from zbackup.archive.chunk import Frame, Trailer
from zbackup.archive.facts import count_rows
from zbackup.archive.manifest import ChunkRef
from zbackup.archive.plan import first_of, last_of
from zbackup.archive.rows import split_rows
from zbackup.archive.sound import rows_of
from zbackup.errors import Damaged
from zbackup.event import BEGINNING, END, parse_instant

T = TypeVar("T")


class Order(Enum):
    """How rows come. A block has its earliest row first in any order."""

    FORWARDS = "forwards"
    BACKWARDS = "backwards"
    """the last block first, frame by frame: for who stops soon"""
    HELD = "held"
    """the last block first; a chunk that is wanted whole is read and proved as one, and held meanwhile"""


Range = tuple[datetime, datetime]
"""both ends belong to it"""

ALWAYS: tuple[Range, ...] = ((BEGINNING, END),)

_HINT = "Run `zbackup verify --full` to see what else is damaged, and restore this object from another copy."


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive rows of a chunk, the earliest first."""

    chunk: str
    rows: bytes


def between(
    archive: Archive, chunk: ChunkRef, ranges: Sequence[Range], order: Order = Order.FORWARDS
) -> Iterator[Block]:
    """
    Yield the rows created within any of the ranges, which are in order and do not touch.

    Raises Damaged, StoreError; what came before may have been of a chunk that is damaged further on.
    """
    if not chunk.rows:
        return
    whole = first_of(chunk), last_of(chunk)
    wanted = [part for part in ranges if _meet(part, whole)]
    if not wanted:
        return
    if order is not Order.BACKWARDS and _covered(whole, wanted):
        for rows in _ordered(archive.read(chunk), order):
            yield Block(chunk.name, rows)
            del rows
        return
    frames = [(frame, span) for frame, span, reach in _frames(archive, chunk) if any(_meet(r, reach) for r in wanted)]
    for frame, span in _ordered(frames, order):
        for piece in _ordered(_pieces(archive, chunk, frame), order):
            rows = piece if _covered(span, wanted) else _trimmed(piece, wanted, chunk.name)
            if rows:
                yield Block(chunk.name, rows)
            del piece, rows


def _ordered(items: Iterable[T], order: Order) -> Iterable[T]:
    return items if order is Order.FORWARDS else reversed(list(items))


def edges(block: Block) -> Range:
    """Return when the first and the last row of a block were created."""
    rows = block.rows
    last = rows.rfind(b"\n", 0, len(rows) - 1) + 1
    with rows_of(block.chunk):
        return _created(rows), _created(rows[last : last + 64])


def _frames(archive: Archive, chunk: ChunkRef) -> list[tuple[Frame, Range, Range]]:
    """
    Return the frames with their times, and with the times that they are only passed over for.

    These reach from one neighbour to the other: from the end of the one before to the beginning of the one after.
    """
    trailer = archive.trailer(chunk)
    with rows_of(chunk.name):
        spans = [(parse_instant(frame.first), parse_instant(frame.last)) for frame in trailer.frames]
    times = list(chain.from_iterable(spans))
    ascending = all(
        earlier <= later if at % 2 == 0 else earlier < later for at, (earlier, later) in enumerate(pairwise(times))
    )
    if not ascending or not _fits(trailer, chunk) or times[:1] != [first_of(chunk)] or times[-1:] != [last_of(chunk)]:
        raise Damaged(f"{chunk.name}: its trailer does not agree with the manifest", hint=_HINT)
    starts = [times[0], *(last for _, last in spans[:-1])]
    ends = [*(first for first, _ in spans[1:]), times[-1]]
    return list(zip(trailer.frames, spans, zip(starts, ends, strict=True), strict=True))


def _fits(trailer: Trailer, chunk: ChunkRef) -> bool:
    frames = trailer.frames
    return (
        (trailer.rows, trailer.raw_bytes, trailer.raw_sha256) == (chunk.rows, chunk.raw_bytes, chunk.raw_sha256)
        and (trailer.first, trailer.last) == (chunk.first, chunk.last)
        and sum(frame.rows for frame in frames) == chunk.rows
        and sum(frame.raw_bytes for frame in frames) == chunk.raw_bytes
        and all(one.offset + one.stored_bytes == other.offset for one, other in pairwise(frames))
    )


def _pieces(archive: Archive, chunk: ChunkRef, frame: Frame) -> Iterator[bytes]:
    """Read a frame; proved to be what the trailer says when the iteration has ended."""
    rows, first, last = 0, b"", b""
    for piece in archive.frame(chunk, frame):
        rows += count_rows(piece)
        first = first or piece[:64]
        at = piece.rfind(b"\n", 0, len(piece) - 1) + 1
        last = piece[at : at + 64] if piece.endswith(b"\n") else b""
        yield piece
        del piece
    if rows != frame.rows or [_stamp(first), _stamp(last)] != [frame.first.encode(), frame.last.encode()]:
        raise Damaged(f"{chunk.name}: the frame at byte {frame.offset} is not what its trailer says", hint=_HINT)


def _trimmed(piece: bytes, wanted: Sequence[Range], name: str) -> bytes:
    with rows_of(name):
        return b"".join(
            row for row in split_rows(piece) if any(_meet(part, (at, at)) for at in [_created(row)] for part in wanted)
        )


def _created(row: bytes) -> datetime:
    return parse_instant(_stamp(row).decode())


def _stamp(row: bytes) -> bytes:
    return row[: max(row.find(b"\t"), 0)]


def _meet(one: Range, other: Range) -> bool:
    return one[0] <= other[1] and other[0] <= one[1]


def _covered(span: Range, ranges: Sequence[Range]) -> bool:
    return any(lo <= span[0] and span[1] <= hi for lo, hi in ranges)
