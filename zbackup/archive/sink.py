"""Write a range of event rows into as many chunks as it takes, and store each as soon as it is full."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from zbackup.archive.archive import Archive
from zbackup.archive.chunk import CHUNK_BYTES, ChunkFile, ChunkWriter, FrameFacts, Header
from zbackup.archive.facts import inspect_frame
from zbackup.archive.manifest import ChunkRef
from zbackup.archive.names import ChunkName
from zbackup.archive.rows import Rows, event_frames
from zbackup.errors import Damaged, SourceError
from zbackup.event import Cursor
from zbackup.progress import Advance, ObjectStored, Report, silent


class Written:
    """Counts what a run has stored, from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.raw_bytes = 0
        self.stored_bytes = 0

    def add(self, chunk: ChunkRef) -> None:
        with self._lock:
            self.raw_bytes += chunk.raw_bytes
            self.stored_bytes += chunk.stored_bytes


@dataclass(frozen=True, slots=True)
class Sink:
    """Where the chunks of one run go."""

    archive: Archive
    backup: str
    header: Header
    chunk_bytes: int = CHUNK_BYTES
    spool: str | None = None
    report: Report = silent
    look: Callable[[bytes, FrameFacts], None] = lambda _rows, _facts: None
    """Sees every frame that is written."""
    expected_rows: int = 0
    """told with the progress; 0: unknown"""
    written: Written = field(default_factory=Written)

    def write(self, slice_name: str, blocks: Iterable[bytes], lo: datetime, hi: datetime) -> list[ChunkRef]:
        """
        Store the rows of the range [lo, hi); return chunks that tile it, none when there are no rows.

        Raises SourceError when the rows do not come in the archive's order or lie outside the range.
        """
        return self.read(slice_name, blocks, lo, hi).store()

    def read(self, slice_name: str, blocks: Iterable[bytes], lo: datetime, hi: datetime) -> Draft:
        """
        Do as `write`, but leave the last chunk to be stored.

        So the transaction that the rows come from need not wait for the store.
        """
        draft = Draft(self, slice_name, lo, hi)
        last: Cursor | None = None
        try:
            for rows in event_frames(blocks):
                facts = self._inspect(rows.lines, last, lo, hi)
                self.look(rows.lines, facts)
                draft.add(rows, facts)
                last = facts.last
                self.report(Advance(facts.rows, len(rows.lines), total_rows=self.expected_rows))
                del rows
        except BaseException:
            draft.discard()
            raise
        return draft

    def _inspect(self, lines: bytes, last: Cursor | None, lo: datetime, hi: datetime) -> FrameFacts:
        try:
            facts = inspect_frame(lines, last)
        except ValueError as error:
            raise SourceError(
                f"rows of {self.header.table} do not come in order: {error}",
                hint="A created_at outside the years 1 to 9999, or a bug: report it with this message.",
            ) from error
        if not lo <= facts.first.created_at <= facts.last.created_at < hi:
            raise SourceError(f"the source sent rows outside [{lo}, {hi})", hint="This is a bug; report it.")
        return facts


class Draft:
    """The chunks of one slice while it is read; `store` or `discard` ends it."""

    def __init__(self, sink: Sink, slice_name: str, lo: datetime, hi: datetime) -> None:
        self._sink, self._name, self._lo, self._hi = sink, slice_name, lo, hi
        self._chunks: list[ChunkRef] = []
        self._writer: ChunkWriter | None = None
        self._last: datetime | None = None

    def add(self, rows: Rows, facts: FrameFacts) -> None:
        """Append rows; a chunk that is full is stored when the next one begins."""
        full = self._writer is not None and self._writer.raw_bytes >= self._sink.chunk_bytes
        # But not within an instant, whose rows a huge one divides.
        if full and self._last != facts.first.created_at:
            self._close(facts.first.created_at)
        self._last = facts.last.created_at
        self._writer = self._writer or ChunkWriter(self._sink.header, spool=self._sink.spool)
        self._writer.add_events(facts, rows)

    def store(self) -> list[ChunkRef]:
        """Store what is left and return all chunks. A draft that cannot be stored is discarded."""
        try:
            if self._writer is not None:
                self._close(self._hi, last=True)
        except BaseException:
            self.discard()
            raise
        return self._chunks

    def discard(self) -> None:
        if self._writer is not None:
            self._writer.discard()

    def _close(self, hi: datetime, *, last: bool = False) -> None:
        assert self._writer is not None
        lo = self._chunks[-1].hi if self._chunks else self._lo
        file = self._writer.close()
        self._writer = None
        with file.body:
            name = str(ChunkName(self._sink.backup, self._name, len(self._chunks), last, file.sha256[:32]))
            self._sink.archive.put_chunk(name, file)
        self._sink.report(ObjectStored(name, file.stored_bytes))
        self._chunks.append(reference(name, file, lo, hi))
        self._sink.written.add(self._chunks[-1])


def reference(name: str, file: ChunkFile, lo: datetime, hi: datetime) -> ChunkRef:
    """Describe a chunk that answers for the range [lo, hi)."""
    trailer = file.trailer
    if not trailer.frames:
        raise Damaged(f"{name} holds no rows", hint="This is a bug; report it.")
    return ChunkRef(
        name=name,
        sha256=file.sha256,
        stored_bytes=file.stored_bytes,
        raw_sha256=trailer.raw_sha256,
        raw_bytes=trailer.raw_bytes,
        rows=trailer.rows,
        lo=lo,
        hi=hi,
        first=trailer.first,
        last=trailer.last,
        positions=(
            min(Decimal(frame.least) for frame in trailer.frames),
            max(Decimal(frame.greatest) for frame in trailer.frames),
        ),
    )
