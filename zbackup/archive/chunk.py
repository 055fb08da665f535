"""
A chunk: consecutive rows as one self-describing, self-proving object.

    skippable frame 0x184D2A50   JSON header: format, table, columns, source
    zstd frame …                 about 1 MiB of rows each, whole lines of COPY text, with checksum
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
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import BinaryIO, cast

import zstandard

from zbackup.archive import codec
from zbackup.archive.rows import Rows, created_at, last_created, split_rows
from zbackup.archive.spool import Spool
from zbackup.errors import Damaged, NotSupported
from zbackup.event import Cursor, unescape

HEADER_MAGIC = 0x184D2A50
TRAILER_MAGIC = 0x184D2A51
TRAILER_MARK = b"zbk1"

# Rows of frames that grow are compressed in blocks of this size.
BLOCK_BYTES = 1 << 20

# A chunk is closed when it has this many raw bytes: one PUT of some 5-15 MB, and a restart loses little.
CHUNK_BYTES = 64 << 20

# Real events shrink 7.3 times at level 1 and at level 3, and 7.9 times at level 6 in thrice the time
# (docs/decisions/0001-format.md).
LEVEL = 1

# Larger frames of captured tables, of one long row each, are compressed in blocks.
WHOLE_BYTES = 8 << 20

_UNLIKE = "what was compressed does not read back"
_CHECK = "Check this machine's memory."

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
    """
    Compress rows into a spooled chunk; `close` gives it away, `discard` drops it.

    Each frame is decoded again and compared as soon as it is made. Raises Damaged where it does not read back.
    """

    def __init__(self, header: Header, *, spool: str | None = None, level: int = LEVEL) -> None:
        self._spool = Spool(spool)
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=True)
        self._stored, self._raw = hashlib.sha256(), hashlib.sha256()
        self._offset = 0
        self._frames: list[Frame] = []
        self._decompressor = zstandard.ZstdDecompressor()
        self._open: _Growing | None = None
        """compresses the last frame, where rows to come may belong to it"""
        self._instances: Counter[bytes] = Counter()
        self._types: Counter[bytes] = Counter()
        self._first: Cursor | None = None
        self._last: Cursor | None = None
        self._write(_skippable(HEADER_MAGIC, codec.dump(header)))

    @property
    def raw_bytes(self) -> int:
        return sum(frame.raw_bytes for frame in self._frames)

    def add_events(self, facts: FrameFacts, rows: Rows) -> None:
        """Append event rows that `inspect_frame` has seen: a frame, or more of the last one (see `event_frames`)."""
        self._instances.update(facts.instances)
        self._types.update(facts.aggregate_types)
        if self._open is not None and self._last is not None and self._last.created_at != facts.first.created_at:
            self._end()
        self._first = self._first or facts.first
        self._last = facts.last
        marks = created_at(rows.lines), last_created(rows.lines), str(facts.least), str(facts.greatest)
        if facts.rows == 1:
            _check(len(rows.lines))
        if self._open is None and not rows.more:
            self._add(rows.lines, facts.rows, marks)
        else:
            self._grow(rows.lines, facts.rows, marks)
        if not rows.more:
            self._end()

    def add_rows(self, block: bytes, rows: int) -> None:
        """Append one frame of rows of a captured table."""
        _check(len(block) if rows == 1 or len(block) <= ROW_BYTES else max(map(len, split_rows(block))))
        if len(block) <= WHOLE_BYTES:
            self._add(block, rows, ("", "", "", ""))
        else:
            self._grow(block, rows, ("", "", "", ""), size=len(block))
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
            instances=texts(self._instances),
            aggregate_types=texts(self._types),
        )
        body = codec.dump(trailer)
        if codec.load(body, Trailer, "trailer") != trailer:
            raise Damaged(_UNLIKE, hint=_CHECK)
        self._write(_skippable(TRAILER_MAGIC, body + struct.pack("<I", len(body)) + TRAILER_MARK))
        self._spool.seek(0)
        return ChunkFile(cast("BinaryIO", self._spool), self._offset, self._stored.hexdigest(), trailer)

    def discard(self) -> None:
        self._spool.close()

    def _add(self, block: bytes, rows: int, marks: tuple[str, str, str, str]) -> None:
        """Append a whole frame."""
        stored = self._compressor.compress(block)
        if self._decompressor.decompress(stored) != block:
            raise Damaged(_UNLIKE, hint=_CHECK)
        self._frames.append(Frame(self._offset, len(stored), len(block), rows, *marks))
        self._raw.update(block)
        self._write(stored)

    def _grow(self, lines: bytes, rows: int, marks: tuple[str, str, str, str], size: int = -1) -> None:
        """Append to the frame that is open, or open one, which announces its size where it is known."""
        if self._open is None:
            self._open = _Growing(self._compressor.compressobj(size=size))
            self._frames.append(Frame(self._offset, 0, 0, 0, *marks))
        for block in _blocks(lines):
            self._raw.update(block)
            self._write(self._open.add(block))
        frame, (_, last, least, greatest) = self._frames[-1], marks
        self._frames[-1] = replace(
            frame,
            raw_bytes=frame.raw_bytes + len(lines),
            rows=frame.rows + rows,
            last=last,
            least=min(frame.least, least, key=_decimal),
            greatest=max(frame.greatest, greatest, key=_decimal),
        )

    def _end(self) -> None:
        if self._open is not None:
            self._write(self._open.end())
            self._open = None
            self._frames[-1] = replace(self._frames[-1], stored_bytes=self._offset - self._frames[-1].offset)

    def _write(self, data: bytes) -> None:
        self._spool.write(data)
        self._stored.update(data)
        self._offset += len(data)


class _Growing:
    """A frame that is compressed, and decoded again, as its rows come."""

    def __init__(self, compressor: zstandard.ZstdCompressionObj) -> None:
        self._compressor = compressor
        self._decoder = zstandard.ZstdDecompressor().decompressobj()
        self._given, self._decoded = hashlib.sha256(), hashlib.sha256()

    def add(self, block: memoryview) -> bytes:
        self._given.update(block)
        return self._seen(self._compressor.compress(block))

    def end(self) -> bytes:
        stored = self._seen(self._compressor.flush())
        if not self._decoder.eof or self._given.digest() != self._decoded.digest():
            raise Damaged(_UNLIKE, hint=_CHECK)
        return stored

    def _seen(self, stored: bytes) -> bytes:
        self._decoded.update(self._decoder.decompress(stored))
        return stored


@dataclass(frozen=True, slots=True)
class FrameFacts:
    """What the key columns of one frame's rows say."""

    rows: int
    first: Cursor
    last: Cursor
    least: Decimal
    greatest: Decimal
    """positions"""
    instances: Counter[bytes]
    aggregate_types: Counter[bytes]
    """rows by the fields as they stand there"""


def _blocks(lines: bytes) -> Iterator[memoryview]:
    for at in range(0, len(lines), BLOCK_BYTES):
        yield memoryview(lines)[at : at + BLOCK_BYTES]


def _decimal(text: str) -> Decimal:
    return Decimal(text or 0)


def _check(longest: int) -> None:
    if longest > ROW_BYTES:
        raise NotSupported(
            f"a row has {longest} bytes as text, {ROW_BYTES} is the most", hint="Report this with the table's name."
        )


def texts(counts: Counter[bytes]) -> dict[str, int]:
    """Return counts by what the fields say, as a trailer has them."""
    return {unescape(key).decode(): count for key, count in sorted(counts.items())}


def _skippable(magic: int, body: bytes) -> bytes:
    return struct.pack("<II", magic, len(body)) + body
