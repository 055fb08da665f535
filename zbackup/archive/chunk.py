"""
A chunk: consecutive rows as one self-describing, self-proving object.

    skippable frame 0x184D2A50   JSON header: format, table, columns, source
    zstd frame …                 about 4 MiB of rows each, whole lines of COPY text, with checksum
    skippable frame 0x184D2A51   JSON trailer, its length as 4 bytes little-endian, b"zbk1"

`zstd -dc` skips the skippable frames (RFC 8878, 3.1.2), so a chunk piped through it is input for
`COPY … FROM STDIN`, with no zbackup near. Every frame of events ends where created_at changes; so the time
ranges of frames, and of chunks, do not touch. The end of a stream proves nothing: a chunk is good when
trailer and manifest agree with what was counted and hashed.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from io import BytesIO
from typing import BinaryIO, cast

import zstandard

from zbackup.archive import codec
from zbackup.archive.spool import Spool
from zbackup.errors import NotSupported
from zbackup.event import Cursor, cursor_of, key_of, unescape

HEADER_MAGIC = 0x184D2A50
TRAILER_MAGIC = 0x184D2A51
TRAILER_MARK = b"zbk1"

# Rows are compressed in independent frames of this size: a point in time can be found without reading the
# whole chunk, and larger frames gain nothing in ratio (docs/decisions/0001-format.md).
FRAME_BYTES = 4 << 20

# A longer row is not held while others are gathered. Its frame grows as rows come, and does not announce its size.
HUGE_BYTES = FRAME_BYTES

# Rows of such frames are compressed in blocks of this size.
BLOCK_BYTES = 1 << 20

# A chunk is closed when it has this many raw bytes: one PUT of some 5-15 MB, and a restart loses little.
CHUNK_BYTES = 64 << 20

# Real events shrink 7.3 times at level 1 and at level 3, and 7.9 times at level 6 in thrice the time
# (docs/decisions/0001-format.md).
LEVEL = 1

# No row may be longer, and a reader holds one whole: an asset of 50 MB has twice as many bytes as text.
ROW_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Header:
    format: int
    table: str
    columns: tuple[str, ...]
    source: str
    """system identifier/database/generation"""


@dataclass(frozen=True, slots=True)
class Frame:
    offset: int
    """of the frame in the object"""
    stored_bytes: int
    raw_bytes: int
    rows: int
    first: str
    last: str
    """created_at of its first and last row, as in the row; empty for captured tables"""
    least: str
    greatest: str
    """positions"""


@dataclass(frozen=True, slots=True)
class Trailer:
    rows: int
    raw_bytes: int
    raw_sha256: str
    first: tuple[str, ...]
    last: tuple[str, ...]
    """cursors; empty for captured tables"""
    frames: tuple[Frame, ...]
    instances: dict[str, int]
    """rows per instance_id"""
    aggregate_types: dict[str, int]


@dataclass(frozen=True, slots=True)
class ChunkFile:
    """A finished chunk, not stored yet; `body` is at its start and belongs to whoever holds this."""

    body: BinaryIO
    stored_bytes: int
    sha256: str
    trailer: Trailer


class ChunkWriter:
    """Compress rows into a spooled chunk; `close` gives it away, `discard` drops it."""

    def __init__(self, header: Header, *, spool: str | None = None, level: int = LEVEL) -> None:
        self._spool = Spool(spool)
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        self._stored, self._raw = hashlib.sha256(), hashlib.sha256()
        self._offset = 0
        self._frames: list[Frame] = []
        self._open: zstandard.ZstdCompressionObj | None = None
        """compresses the last frame, where rows to come may belong to it"""
        self._instances: Counter[bytes] = Counter()
        self._types: Counter[bytes] = Counter()
        self._first: Cursor | None = None
        self._last: Cursor | None = None
        self._write(_skippable(HEADER_MAGIC, codec.dump(header)))

    @property
    def raw_bytes(self) -> int:
        return sum(frame.raw_bytes for frame in self._frames)

    def add_events(self, facts: FrameFacts, rows: list[bytes]) -> None:
        """Append event rows that `inspect_frame` has seen: a frame, or more of the last one (see `event_frames`)."""
        self._instances.update(facts.instances)
        self._types.update(facts.aggregate_types)
        if self._open is not None and self._last is not None and self._last.created_at != facts.first.created_at:
            self._end()
        self._first = self._first or facts.first
        self._last = facts.last
        marks = _created(rows[0]), _created(rows[-1]), str(facts.least), str(facts.greatest)
        _check(rows)
        if self._open is not None:
            self._extend(rows, len(rows), marks)
        else:
            self._begin(rows, len(rows), marks, whole=not _is_huge(rows[-1]))
        if not _is_huge(rows[-1]):
            self._end()

    def add_rows(self, block: bytes, rows: int) -> None:
        """Append one frame of rows of a captured table."""
        _check([block] if rows == 1 or len(block) <= ROW_BYTES else split_rows(block))
        self._begin([block], rows, ("", "", "", ""), whole=True)
        self._end()

    def close(self) -> ChunkFile:
        self._end()
        trailer = Trailer(
            rows=sum(frame.rows for frame in self._frames),
            raw_bytes=self.raw_bytes,
            raw_sha256=self._raw.hexdigest(),
            first=self._first.texts() if self._first else (),
            last=self._last.texts() if self._last else (),
            frames=tuple(self._frames),
            instances={unescape(key).decode(): count for key, count in sorted(self._instances.items())},
            aggregate_types={unescape(key).decode(): count for key, count in sorted(self._types.items())},
        )
        body = codec.dump(trailer)
        self._write(_skippable(TRAILER_MAGIC, body + struct.pack("<I", len(body)) + TRAILER_MARK))
        self._spool.seek(0)
        return ChunkFile(cast("BinaryIO", self._spool), self._offset, self._stored.hexdigest(), trailer)

    def discard(self) -> None:
        self._spool.close()

    def _begin(self, parts: list[bytes], rows: int, marks: tuple[str, str, str, str], *, whole: bool) -> None:
        """Begin a frame; where these are all of its rows, it announces its size."""
        self._open = self._compressor.compressobj(size=sum(map(len, parts)) if whole else -1)
        self._frames.append(Frame(self._offset, 0, 0, 0, *marks))
        self._extend(parts, rows, marks)

    def _extend(self, parts: list[bytes], rows: int, marks: tuple[str, str, str, str]) -> None:
        """Append to the frame that is open."""
        assert self._open is not None
        size = sum(map(len, parts))
        for block in [b"".join(parts)] if size <= BLOCK_BYTES << 3 else _blocks(parts):
            self._raw.update(block)
            self._write(self._open.compress(block))
        frame, (_, last, least, greatest) = self._frames[-1], marks
        self._frames[-1] = replace(
            frame,
            raw_bytes=frame.raw_bytes + size,
            rows=frame.rows + rows,
            last=last,
            least=min(frame.least, least, key=_decimal),
            greatest=max(frame.greatest, greatest, key=_decimal),
        )

    def _end(self) -> None:
        if self._open is not None:
            self._write(self._open.flush())
            self._open = None
            self._frames[-1] = replace(self._frames[-1], stored_bytes=self._offset - self._frames[-1].offset)

    def _write(self, data: bytes) -> None:
        self._spool.write(data)
        self._stored.update(data)
        self._offset += len(data)


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """What the key columns of one frame's rows say."""

    first: Cursor
    last: Cursor
    least: Decimal
    greatest: Decimal
    instances: Counter[bytes]
    aggregate_types: Counter[bytes]


def inspect_frame(rows: list[bytes], after: Cursor | None) -> FrameFacts:
    """
    Check that every row comes strictly after the one before it, the first after `after`.

    Raises ValueError naming both rows. PostgreSQL writes instants in UTC so that their text sorts like their
    time (`+` and `.` sort before digits), which lets all rows be compared in bulk and only ties one by one.
    """
    keys = [key_of(row) for row in rows]
    created = [key[0] for key in keys]
    first, last = cursor_of(rows[0]), cursor_of(rows[-1])
    if after is not None and not after < first:
        raise ValueError(f"{first.texts()} does not come after {after.texts()}")
    if created != sorted(created):
        at = next(index for index in range(1, len(rows)) if created[index] < created[index - 1])
        raise ValueError(f"{cursor_of(rows[at]).texts()} does not come after {cursor_of(rows[at - 1]).texts()}")
    for at, (this, before) in enumerate(zip(created[1:], created, strict=False), 1):
        if this == before and not _ascends(keys[at - 1], keys[at]):
            one, other = cursor_of(rows[at - 1]), cursor_of(rows[at])
            if not one < other:
                raise ValueError(f"{other.texts()} does not come after {one.texts()}")
    positions = [key[1] for key in keys]
    alike = len({len(value) for value in positions}) == 1 and {value[-7:-6] for value in positions} == {b"."}
    if alike and not min(positions).startswith(b"-"):
        least, greatest = Decimal(min(positions).decode()), Decimal(max(positions).decode())
    else:
        decimals = [Decimal(value.decode()) for value in set(positions)]
        if not all(value.is_finite() for value in decimals):
            odd = next(row for row, key in zip(rows, keys, strict=True) if not Decimal(key[1].decode()).is_finite())
            raise ValueError(f"the position of {cursor_of(odd).texts()} is not a number")
        least, greatest = min(decimals), max(decimals)
    return FrameFacts(first, last, least, greatest, Counter(key[3] for key in keys), Counter(key[4] for key in keys))


def event_frames(rows: Iterable[bytes], frame_bytes: int = FRAME_BYTES) -> Iterator[list[bytes]]:
    """
    Group rows into frames of about `frame_bytes` that end where created_at changes.

    A huge row is given on as soon as it is there, with those of its instant before it; the next ones may then
    belong to the same frame.
    """
    frame: list[bytes] = []
    size = 0
    for row in rows:
        if frame and (size >= frame_bytes or _is_huge(row)) and _created(row) != _created(frame[-1]):
            yield frame
            frame, size = [], 0
        frame.append(row)
        size += len(row)
        if _is_huge(row):
            del row
            yield frame
            frame, size = [], 0
    if frame:
        yield frame


def _is_huge(row: bytes) -> bool:
    return len(row) >= HUGE_BYTES


def _blocks(parts: Iterable[bytes]) -> Iterator[memoryview]:
    for part in parts:
        for at in range(0, len(part), BLOCK_BYTES):
            yield memoryview(part)[at : at + BLOCK_BYTES]


def _decimal(text: str) -> Decimal:
    return Decimal(text or 0)


def _check(rows: list[bytes]) -> None:
    if (longest := max(map(len, rows))) > ROW_BYTES:
        raise NotSupported(
            f"a row has {longest} bytes as text, {ROW_BYTES} is the most", hint="Report this with the table's name."
        )


def _ascends(before: list[bytes], this: list[bytes]) -> bool:
    """Whether two keys of one instant ascend, as far as that is seen cheaply: within one push."""
    return before[1] == this[1] and int(before[2]) < int(this[2])


def split_rows(frame: bytes) -> list[bytes]:
    """Cut a frame into its rows, newline kept. COPY text has no newline inside a row."""
    if frame.find(b"\n") == len(frame) - 1:
        return [frame] if frame else []
    rows = BytesIO(frame).readlines()
    return rows if rows[-1].endswith(b"\n") else rows[:-1]


def _created(row: bytes) -> str:
    return row[: row.index(b"\t")].decode()


def _skippable(magic: int, body: bytes) -> bytes:
    return struct.pack("<II", magic, len(body)) + body
