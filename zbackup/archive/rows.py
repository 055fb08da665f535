"""
Rows as they travel: blocks of whole lines of COPY text, which has no newline inside a row.

Readers of the source make blocks of any size; an archive has frames.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO

from zbackup.event import parse_instant

# Rows are compressed in independent frames of this size: a point in time can be found without reading the
# whole chunk, larger frames gain little in ratio, and what is read, hashed and compressed stays in the
# processor's cache (docs/decisions/0005-speed.md).
FRAME_BYTES = 1 << 20

# A longer row is not held while others are gathered, nor are more rows of one instant. Their frame grows as rows
# come, and does not announce its size.
HUGE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of one frame, all of them or those that are there."""

    lines: bytes
    more: bool = False
    """the next ones may belong to the same frame: to the instant of the last row"""


def is_huge(block: bytes) -> bool:
    """Tell whether a block is one huge row."""
    return len(block) >= HUGE_BYTES and block.find(b"\n") == len(block) - 1


def split_rows(frame: bytes) -> list[bytes]:
    """Cut a frame into its rows, newline kept."""
    if frame.find(b"\n") == len(frame) - 1:
        return [frame] if frame else []
    rows = BytesIO(frame).readlines()
    return rows if rows[-1].endswith(b"\n") else rows[:-1]


def rows_in(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the rows of blocks, one by one."""
    for block in blocks:
        yield from split_rows(block)
        # It may be one huge row, to be let go before the next one comes.
        del block


def event_frames(blocks: Iterable[bytes], frame_bytes: int = FRAME_BYTES) -> Iterator[Rows]:
    """
    Make frames of about `frame_bytes` that end where created_at changes, wherever blocks end.

    A huge row, which must be a block of its own, is given on as soon as it is there, and so are more rows of one
    instant than `HUGE_BYTES`; the next ones may then belong to the same frame.
    """
    held: list[bytes] = []
    size = 0
    for block in blocks:
        if is_huge(block):
            if held:
                yield Rows(b"".join(held), more=last_created(held[-1]) == created_at(block))
                held, size = [], 0
            yield Rows(block, more=True)
            del block
            continue
        if block:
            held.append(block)
            size += len(block)
        while size >= frame_bytes:
            before = size - len(held[-1])
            cut = _cut(held, frame_bytes - before, max(frame_bytes, HUGE_BYTES) - before)
            if cut is None:
                break
            at, more = cut
            begun = held.pop()
            yield Rows(b"".join([*held, begun[:at]]), more)
            held, size = [begun[at:]], len(begun) - at
    if held:
        yield Rows(b"".join(held))


def rows_until(frame: bytes, at: datetime) -> bytes:
    """Return the rows of a frame that were created at or before an instant; rows come in order."""
    low, high = 0, len(frame)
    while low < high:
        # The row in the middle begins behind the newline before it, and not before `low`, where one begins.
        start = frame.rfind(b"\n", low, (low + high) // 2) + 1 or low
        if parse_instant(created_at(frame, start)) > at:
            high = start
        else:
            low = frame.find(b"\n", start) + 1 or high
    return frame[:low]


def created_at(lines: bytes, start: int = 0) -> str:
    """Return the instant of the row that begins at `start`, as it stands there."""
    return lines[start : lines.index(b"\t", start)].decode()


def last_created(lines: bytes) -> str:
    """Return the instant of the last row, as it stands there."""
    return created_at(lines, lines.rfind(b"\n", 0, -1) + 1)


def _cut(blocks: list[bytes], least: int, most: int) -> tuple[int, bool] | None:
    """
    Return where in the last block the first row begins that belongs to the next frame, or is not waited for.

    That is from `least` on the first of another instant than the one before, and from `most` on any row; then more of
    the same frame may follow.
    """
    block = blocks[-1]
    at = block.find(b"\n", least - 1) + 1 if least > 0 else 0
    created = last_created(block[:at] if at else blocks[-2])
    while at < len(block):
        if (following := created_at(block, at)) != created:
            return at, False
        if at >= most:
            return at, True
        created = following
        at = block.index(b"\n", at) + 1
    return None
