"""
Read chunks, whoever wrote them: in bounded memory, and nothing is believed before it was counted and hashed.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

import zstandard

from zbackup.archive import codec, sound
from zbackup.archive.chunk import HEADER_MAGIC, ROW_BYTES, TRAILER_MAGIC, TRAILER_MARK, Header, Trailer
from zbackup.archive.facts import count_rows
from zbackup.archive.frames import HINT, RECORD_BYTES, decoded, pieces
from zbackup.archive.manifest import ChunkRef
from zbackup.errors import Damaged
from zbackup.event import parse_instant, parse_position

READ_BYTES = 1 << 20

# A header has the names of columns and an address.
HEADER_BYTES = 1 << 20


class ChunkReader:
    """
    The rows of a stored chunk, a frame at a time; one of more than `frames.PIECE_BYTES` in pieces of whole rows.

    Nothing is proven before the iteration has ended by itself: then header, trailer, counts and digests
    agreed with one another and, where `ref` was given, with the manifest. `trailer` and `header` are there
    from then on.
    """

    header: Header
    trailer: Trailer

    def __init__(
        self,
        stream: BinaryIO,
        name: str,
        ref: ChunkRef | None = None,
        *,
        row_bytes: int = ROW_BYTES,
    ) -> None:
        self._stream, self._name, self._ref = stream, name, ref
        self._row_bytes = row_bytes
        self._stored, self._raw = hashlib.sha256(), hashlib.sha256()
        self._buffer, self._at = b"", 0
        self._size = 0
        self._raw_bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._frames()
        except (zstandard.ZstdError, struct.error) as error:
            raise self._damaged(str(error)) from error

    @property
    def stored_bytes(self) -> int:
        """Bytes read, as stored."""
        return self._size

    @property
    def stored_sha256(self) -> str:
        return self._stored.hexdigest()

    def expect(self, digest: str) -> None:
        """Raise Damaged unless the stored bytes' digest begins with this one."""
        if not self.stored_sha256.startswith(digest):
            raise self._damaged("its bytes do not have the digest of its name")

    def _frames(self) -> Iterator[bytes]:
        magic, body = self._skippable(HEADER_BYTES)
        if magic != HEADER_MAGIC:
            raise self._damaged("it does not begin with a header")
        self.header = codec.load(body, Header, self._name)
        found: list[tuple[int, int, int, int]] = []
        while self._magic() not in (HEADER_MAGIC, TRAILER_MAGIC):
            begin, raw, rows = self._place, 0, 0
            for piece in pieces(self._blocks(), self._name, self._row_bytes):
                self._raw.update(piece)
                raw += len(piece)
                rows += count_rows(piece)
                yield piece
                del piece
            found.append((begin, self._place - begin, raw, rows))
        magic, body = self._skippable(RECORD_BYTES)
        if magic != TRAILER_MAGIC or body[-4:] != TRAILER_MARK:
            raise self._damaged("it does not end with a trailer")
        if struct.unpack("<I", body[-8:-4])[0] != len(body) - 8:
            raise self._damaged("its trailer has another length than it says")
        if self._at < len(self._buffer) or self._fill():
            raise self._damaged("something follows its trailer")
        self.trailer = codec.load(body[:-8], Trailer, self._name)
        self._agree(found)

    def _agree(self, found: list[tuple[int, int, int, int]]) -> None:
        trailer = self.trailer
        if [(frame.offset, frame.stored_bytes, frame.raw_bytes, frame.rows) for frame in trailer.frames] != found:
            raise self._damaged("its frames are not those of its trailer")
        if (trailer.raw_bytes, trailer.rows) != (self._raw_bytes, sum(frame.rows for frame in trailer.frames)):
            raise self._damaged("its trailer does not add up")
        if self._raw.hexdigest() != trailer.raw_sha256:
            raise self._damaged("its rows do not have the digest of its trailer")
        if self._ref is None:
            return
        ref = self._ref
        held = (self._stored.hexdigest(), self._size, trailer.raw_sha256, trailer.raw_bytes, trailer.rows)
        wanted = (ref.sha256, ref.stored_bytes, ref.raw_sha256, ref.raw_bytes, ref.rows)
        if held != wanted or trailer.first != ref.first or trailer.last != ref.last:
            raise self._damaged(f"{trailer.rows} rows, {self._size} bytes are not those of the manifest")

    def _blocks(self) -> Iterator[bytes]:
        """Decode one frame."""
        for block in decoded(self._peek, self._take):
            self._raw_bytes += len(block)
            if self._ref is not None and self._raw_bytes > self._ref.raw_bytes:
                raise self._damaged(f"it holds more than the {self._ref.raw_bytes} bytes of the manifest")
            yield block

    def _skippable(self, most: int) -> tuple[int, bytes]:
        magic, length = struct.unpack("<II", self._take(8))
        if magic not in (HEADER_MAGIC, TRAILER_MAGIC):
            raise self._damaged("a header or trailer is missing")
        if length > most:
            raise self._damaged(f"a header or trailer is said to have {length} bytes, {most} is the most")
        return magic, self._take(length)

    @property
    def _place(self) -> int:
        return self._size - len(self._buffer) + self._at

    def _magic(self) -> int:
        start = self._peek(4)
        if len(start) < 4:
            raise self._damaged("it ends without a trailer")
        return struct.unpack("<I", start)[0]

    def _peek(self, count: int) -> bytes:
        while len(self._buffer) - self._at < count and self._fill():
            pass
        return self._buffer[self._at : self._at + count]

    def _take(self, count: int) -> bytes:
        taken = self._peek(count)
        if len(taken) < count:
            raise self._damaged(f"{count - len(taken)} bytes are missing at its end")
        self._at += count
        return taken

    def _fill(self) -> bool:
        data = self._stream.read(READ_BYTES)
        self._stored.update(data)
        self._size += len(data)
        self._buffer, self._at = self._buffer[self._at :] + data, 0
        return bool(data)

    def _damaged(self, problem: str) -> Damaged:
        return Damaged(f"{self._name}: {problem}", hint=HINT)


def check_trailer(trailer: Trailer, name: str, stored_bytes: int) -> Trailer:
    """Return a trailer that was read alone, if its frames follow one another within the object. Raises Damaged."""
    try:
        for number, frame in enumerate(trailer.frames):
            follows = trailer.frames[number + 1].offset if number + 1 < len(trailer.frames) else stored_bytes
            if frame.offset + frame.stored_bytes > follows:
                raise ValueError("frames reach beyond one another, or beyond the object")
            if frame.first or frame.last:
                parse_instant(frame.first)
                parse_instant(frame.last)
            for text in filter(None, (frame.least, frame.greatest)):
                sound.position(parse_position(text))
    except ValueError as error:
        raise Damaged(f"{name}: its trailer cannot be read: {str(error)[:200]}", hint=HINT) from error
    return trailer
