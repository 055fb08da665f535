"""
Write the rows of a captured table into objects, and read them back.

Most tables become parts: as many objects of whole rows as it takes, nearly always one. A table whose rows are
large and seldom change becomes one object per row: what was stored before is found by the digest of the row,
wherever in the table it stands by now, and costs neither compression nor a call to the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

import zstandard

from zbackup.archive import FORMAT, codec, names
from zbackup.archive.archive import Archive
from zbackup.archive.chunk import ChunkFile, ChunkWriter, Header
from zbackup.archive.frames import LIST_BYTES, RECORD_BYTES, LongRow
from zbackup.archive.manifest import Capture, CapturedTable, ObjectRef
from zbackup.archive.rows import FRAME_BYTES, is_huge, rows_in
from zbackup.errors import Damaged, NotSupported
from zbackup.progress import Advance, ObjectStored, Report, silent

# A part of a table is closed when it has this many raw bytes, so that no object grows with the table: S3 takes
# 5 GiB in one PUT, and a part waits in the spool.
PART_BYTES = 256 << 20

# New rows are stored when so many bytes of them wait, and at the end. All but large first captures then store
# them after the transaction that read them has ended.
WAITING_BYTES = 64 << 20

# Of small objects the answer takes the time, not the bytes: so many are stored or read at once. With two workers
# beside them that is below what a store must bear (store/base.py).
AT_ONCE = 8

# Rows are read at once up to this many stored bytes.
READ_BYTES = 8 << 20

# More parts than these are listed in an object of their own: each takes 64 bytes as stored, in every capture.
LISTED = 100

TEXT_LEVEL = 9


@dataclass(slots=True)
class TableSink:
    """Where the tables and the schema of one capture go. Safe for use by several threads."""

    archive: Archive
    previous: Capture | None
    """the capture whose unchanged objects are referenced again"""
    source: str
    """stands in every object: system identifier/database"""
    run: str = ""
    absent: Collection[str] = ()
    """names that the run does without: what would bear one gets a name of the run"""
    spool: str | None = None
    part_bytes: int = PART_BYTES
    waiting_bytes: int = WAITING_BYTES
    report: Report = silent
    new: dict[str, int] = field(default_factory=dict[str, int])
    """objects that were stored, and their sizes"""

    def write(
        self, schema: str, name: str, columns: tuple[str, ...], blocks: Iterable[bytes], *, by_row: bool = False
    ) -> CapturedTable:
        """
        Store the rows of a table, blocks of lines of COPY text; with `by_row` each as an object of its own.

        Raises StoreError; what was stored by then is named by nothing. May be called again.
        """
        header = Header(FORMAT, f"{schema}.{name}", columns, self.source)
        before = self._before(schema, name, columns)
        draft: _Draft = _Rows(self, header, before) if by_row else _Parts(self, header)
        digest, rows, raw_bytes = hashlib.sha256(), 0, 0
        try:
            for frame in rows_in(blocks) if by_row else _frames(blocks):
                digest.update(frame)
                count = frame.count(b"\n")
                rows += count
                raw_bytes += len(frame)
                draft.add(frame, count)
                self.report(Advance(0, len(frame)))
                del frame
            if not by_row and before is not None and before.raw_sha256 == digest.hexdigest():
                return before
            parts = draft.store()
        finally:
            draft.discard()
        listed = self._list(parts, before) if len(parts) > LISTED else None
        return CapturedTable(schema, name, columns, rows, raw_bytes, digest.hexdigest(), parts, listed)

    def put_text(self, text: bytes, most: int = RECORD_BYTES) -> ObjectRef:
        """Store a text, such as that of a schema, compressed."""
        if len(text) > most:
            raise NotSupported(f"a text of {len(text)} bytes, {most} is the most", hint="Report this.")
        body = zstandard.ZstdCompressor(level=TEXT_LEVEL, write_checksum=True).compress(text)
        digest = hashlib.sha256(body).hexdigest()
        ref = ObjectRef(self.own(names.table_object(digest)), digest, len(body))
        if not self._there(ref):
            self.archive.put(ref.name, body)
            self._stored(ref)
        return ref

    def put_part(self, file: ChunkFile) -> ObjectRef:
        with file.body:
            ref = ObjectRef(self.own(names.table_object(file.sha256)), file.sha256, file.stored_bytes)
            if not self._there(ref):
                self.archive.put_chunk(ref.name, file)
                self._stored(ref)
        return ref

    def put_row(self, row: str, file: ChunkFile) -> ObjectRef:
        with file.body:
            ref = ObjectRef(self.own(names.row_object(row, file.sha256)), file.sha256, file.stored_bytes)
            self.archive.put_chunk(ref.name, file)
        self._stored(ref)
        return ref

    def own(self, name: str) -> str:
        """Return the name to store content under that has this name of its own."""
        return names.of_run(name, self.run) if name in self.absent else name

    def _list(self, parts: tuple[ObjectRef, ...], before: CapturedTable | None) -> ObjectRef:
        if before is not None and before.listed is not None and before.parts == parts:
            return before.listed
        return self.put_text(codec.dump(parts, tuple[ObjectRef, ...]), LIST_BYTES)

    def _before(self, schema: str, name: str, columns: tuple[str, ...]) -> CapturedTable | None:
        for one in self.previous.tables if self.previous else ():
            if (one.schema, one.name, one.columns) == (schema, name, columns):
                return one
        return None

    def _there(self, ref: ObjectRef) -> bool:
        stat = self.archive.store.stat(ref.name)
        return stat is not None and stat.size == ref.stored_bytes

    def _stored(self, ref: ObjectRef) -> None:
        self.new[ref.name] = ref.stored_bytes
        self.report(ObjectStored(ref.name, ref.stored_bytes))


def read_table(archive: Archive, table: CapturedTable) -> Iterator[bytes]:
    """Yield the rows of a captured table in blocks, proven when the iteration has ended. Raises Damaged."""

    def whole(part: ObjectRef) -> bytes | None:
        """Read an object beside others; None when it is too large for that."""
        blocks: list[bytes] = []
        try:
            for block in archive.read_object(part, row_bytes=READ_BYTES):
                blocks.append(block)
                if sum(map(len, blocks)) > READ_BYTES:
                    return None
        except LongRow:
            return None
        return b"".join(blocks)

    def blocks_of(batch: list[ObjectRef]) -> Iterator[bytes]:
        if len(batch) == 1:
            yield from archive.read_object(batch[0])
            return
        for part, block in zip(batch, pool.map(whole, batch), strict=True):
            yield from archive.read_object(part) if block is None else [block]

    digest, rows, raw_bytes = hashlib.sha256(), 0, 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for batch in _batches(table.parts):
            for block in blocks_of(batch):
                digest.update(block)
                rows += block.count(b"\n")
                raw_bytes += len(block)
                yield block
                del block
    if (rows, raw_bytes, digest.hexdigest()) != (table.rows, table.raw_bytes, table.raw_sha256):
        raise Damaged(
            f"{table.schema}.{table.name}: {rows} rows, {raw_bytes} bytes are not those of its capture",
            hint="Run `zbackup verify --full`, and restore from another backup.",
        )


class _Draft(Protocol):
    """The objects of one table while it is read; `discard` ends it."""

    def add(self, block: bytes, rows: int) -> None: ...

    def store(self) -> tuple[ObjectRef, ...]: ...

    def discard(self) -> None: ...


class _Parts:
    """
    Parts of whole rows.

    The last one is not stored before `store`: by then the digest of all rows is known, and a table of one part,
    as nearly all are, is stored only if it changed, whatever the version of zstd.
    """

    def __init__(self, sink: TableSink, header: Header) -> None:
        self._sink, self._header = sink, header
        self._parts: list[ObjectRef] = []
        self._writer: ChunkWriter | None = None

    def add(self, block: bytes, rows: int) -> None:
        if self._writer is not None and self._writer.raw_bytes + len(block) > self._sink.part_bytes:
            self._close(self._writer)
        self._writer = self._writer or ChunkWriter(self._header, spool=self._sink.spool)
        self._writer.add_rows(block, rows)

    def store(self) -> tuple[ObjectRef, ...]:
        if self._writer is not None:
            self._close(self._writer)
        return tuple(self._parts)

    def discard(self) -> None:
        if self._writer is not None:
            self._writer.discard()

    def _close(self, writer: ChunkWriter) -> None:
        self._parts.append(self._sink.put_part(writer.close()))
        self._writer = None


class _Rows:
    """One object per row, in the order of the rows; equal rows share one."""

    def __init__(self, sink: TableSink, header: Header, before: CapturedTable | None) -> None:
        self._sink, self._header = sink, header
        self._prefix = hashlib.sha256(codec.dump(header))
        self._order: list[str] = []
        self._waiting: dict[str, ChunkFile] = {}
        self._waiting_bytes = 0
        self._refs = {found[0]: part for part in before.parts if (found := names.row_of(part.name))} if before else {}

    def add(self, block: bytes, rows: int) -> None:
        if not self._refs and not self._order:
            self._refs = self._listed()
        digest = self._prefix.copy()
        digest.update(block)
        row = digest.hexdigest()[:32]
        self._order.append(row)
        if row not in self._refs and row not in self._waiting:
            writer = ChunkWriter(self._header, spool=self._sink.spool)
            try:
                writer.add_rows(block, rows)
                self._waiting[row] = writer.close()
            except BaseException:
                writer.discard()
                raise
            self._waiting_bytes += self._waiting[row].stored_bytes
            if self._waiting_bytes > self._sink.waiting_bytes:
                self._put()

    def store(self) -> tuple[ObjectRef, ...]:
        self._put()
        return tuple(self._refs[row] for row in self._order)

    def discard(self) -> None:
        for file in self._waiting.values():
            file.body.close()

    def _put(self) -> None:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            self._refs.update(
                zip(self._waiting, pool.map(self._sink.put_row, self._waiting, self._waiting.values()), strict=True)
            )
        self._waiting.clear()
        self._waiting_bytes = 0

    def _listed(self) -> dict[str, ObjectRef]:
        """Look for rows of older captures, of which the previous one, if any, says nothing."""
        return {
            found[0]: ObjectRef(stat.name, found[1], stat.size)
            for stat in self._sink.archive.store.list(names.ROWS)
            if (found := names.row_of(stat.name)) and stat.name not in self._sink.absent
        }


def _frames(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Make frames of as many rows as fit into `FRAME_BYTES`, wherever blocks end; a longer row stands alone."""
    held: list[bytes] = []
    size = 0
    for block in blocks:
        if is_huge(block):
            yield from filter(None, _full(b"".join(held), 0))
            held, size = [], 0
            yield block
            # Let go before the next one comes.
            del block
            continue
        held.append(block)
        size += len(block)
        if size > FRAME_BYTES:
            *frames, rest = _full(b"".join(held), FRAME_BYTES)
            yield from frames
            held, size = [rest], len(rest)
    yield from filter(None, _full(b"".join(held), 0))


def _full(lines: bytes, rest: int) -> Iterator[bytes]:
    """Cut off frames until at most so many bytes are left; these come last."""
    start = 0
    while len(lines) - start > rest:
        end = lines.rfind(b"\n", start, start + FRAME_BYTES) + 1 or lines.index(b"\n", start) + 1
        yield lines[start:end]
        start = end
    yield lines[start:]


def _batches(parts: Iterable[ObjectRef]) -> Iterator[list[ObjectRef]]:
    """Group objects of one row each into what is read at once; others stand alone."""
    batch: list[ObjectRef] = []
    for part in parts:
        single = names.row_of(part.name) is None
        full = len(batch) == AT_ONCE or sum(one.stored_bytes for one in (*batch, part)) > READ_BYTES
        if batch and (single or full):
            yield batch
            batch = []
        if single:
            yield [part]
        else:
            batch.append(part)
    if batch:
        yield batch
