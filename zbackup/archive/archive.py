"""An archive: the objects of names.py in a store. The only module of the format that does I/O."""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import zstandard

from zbackup.archive import codec, names
from zbackup.archive.catalog import Catalog
from zbackup.archive.chunk import ROW_BYTES, TRAILER_MARK, ChunkFile, Frame, Trailer
from zbackup.archive.folders import Folders
from zbackup.archive.frames import LIST_BYTES, RECORD_BYTES, decoded, pieces, unpack
from zbackup.archive.manifest import (
    ArchiveRecord,
    Capture,
    CapturedTable,
    CaptureRef,
    ChunkRef,
    IndexRef,
    Lease,
    Lineage,
    Log,
    Manifest,
    ObjectRef,
    RunRecord,
)
from zbackup.archive.names import BackupName, LeaseName
from zbackup.archive.reader import ChunkReader, check_trailer
from zbackup.errors import ArchiveError, Damaged, NotSupported, ObjectMissing, StoreError, StoreUnreachable
from zbackup.store.base import Stat, Store

# Most frames are read in one step.
READ_BYTES = 4 << 20

_RESTORE_COPY = "Restore this object from another copy; `zbackup verify` shows what else is damaged."


class Archive:
    """Reads and writes the objects of one archive. Safe for use by several threads."""

    def __init__(self, store: Store, record: ArchiveRecord) -> None:
        self.store = store
        self.record = record

    @classmethod
    def create(cls, store: Store, record: ArchiveRecord) -> Archive:
        """Make an archive. Raises ArchiveError when there is one already."""
        cls.refuse_existing(store)
        archive = cls(store, record)
        body = codec.dump(record)
        archive.put(names.archive_record(record.archive, hashlib.sha256(body).hexdigest()), body)
        return archive

    @staticmethod
    def refuse_existing(store: Store) -> None:
        """Raise ArchiveError when the store holds an archive, or anything else."""
        for stat in store.list(names.ARCHIVES):
            raise ArchiveError(
                f"{store.address} is an archive already ({stat.name})", hint="Use it, or choose another place."
            )
        for stat in store.list(""):
            if not stat.name.startswith(names.PROBES):
                raise ArchiveError(
                    f"{store.address} is not empty: it holds {stat.name}", hint="Choose an empty folder or prefix."
                )

    @classmethod
    def open(cls, store: Store) -> Archive:
        """Open an archive; of two made at the same time the first by name counts. Raises ArchiveError."""
        for stat in store.list(names.ARCHIVES):
            return cls(store, codec.load(_proved(store, stat.name), ArchiveRecord, stat.name))
        raise ArchiveError(
            f"{store.address} is not an archive of zbackup",
            hint=f"Run `zbackup init --archive {store.address}` once, or check the address.",
        )

    def put(self, name: str, body: bytes) -> ObjectRef:
        """Store a small object under a name that is its own. Raises NotSupported when no reader would take it."""
        if len(body) > RECORD_BYTES:
            raise NotSupported(f"{name} would have {len(body)} bytes, {RECORD_BYTES} is the most", hint="Report this.")
        digest = hashlib.sha256(body).hexdigest()
        self.store.put(name, io.BytesIO(body), size=len(body), sha256=digest)
        return ObjectRef(name, digest, len(body))

    def get(self, ref: ObjectRef) -> bytes:
        """Read a small object and prove it. Raises ObjectMissing, Damaged."""
        body = _small(self.store, ref.name)
        if hashlib.sha256(body).hexdigest() != ref.sha256:
            raise Damaged(f"{ref.name}: its bytes do not have their digest", hint=_RESTORE_COPY)
        return body

    # Backups

    def catalog(self) -> Catalog:
        """Look at the backups. What others put beside the manifests is passed over; `verify` names it."""
        return Catalog(Folders(self._inside), self._lineage)

    def whole_catalog(self) -> Catalog:
        """List all backups that there are now, at once: what a prune may believe."""
        return Catalog.of(stat.name for stat in self.store.list(names.MANIFESTS) if names.is_manifest(stat.name))

    def _inside(self, folder: str) -> Iterator[str]:
        return (stat.name for stat in self.store.list(folder, fold=True))

    def _lineage(self, entry: BackupName) -> Lineage:
        """Read of a manifest what it tells of its line, and prove it. Raises as `manifest` does."""
        return codec.load(self._manifest_body(entry), Lineage, str(entry))

    def manifest(self, entry: BackupName) -> Manifest:
        """Read a manifest and prove it. Raises ObjectMissing, Damaged, ArchiveError (newer format)."""
        name = str(entry)
        manifest = codec.load(self._manifest_body(entry), Manifest, name)
        if name_of(manifest, entry.sha256) != entry:
            raise Damaged(f"{name}: its name does not tell what it says", hint=_RESTORE_COPY)
        return manifest

    def _manifest_body(self, entry: BackupName) -> bytes:
        body = _small(self.store, str(entry))
        if hashlib.sha256(body).hexdigest() != entry.sha256:
            raise Damaged(f"{entry}: its bytes do not have the digest of its name", hint=_RESTORE_COPY)
        return body

    def commit(self, manifest: Manifest) -> BackupName:
        """
        Make the manifest a backup. All objects it names must already be stored.

        Safe to repeat with the same manifest; another run may commit beside it.

        Raises:
            CommitUnknown: the store did not answer; nothing may be removed.

        """
        body = codec.dump(manifest)
        if codec.load(body, Manifest, manifest.backup) != manifest:
            raise Damaged(f"the manifest of {manifest.backup} does not read back", hint="This is a bug; report it.")
        entry = name_of(manifest, hashlib.sha256(body).hexdigest())
        self.put(str(entry), body)
        return entry

    def start_run(self, record: RunRecord) -> None:
        body = codec.dump(record)
        parent = BackupName.parse(record.parent).backup if record.parent else None
        self.put(names.run_record(parent, record.backup, hashlib.sha256(body).hexdigest()), body)

    def run_records(self, parent: str | None) -> Iterator[str]:
        """Yield the names of the records of runs that set out to continue a backup, by its id."""
        for stat in self.store.list(names.runs_of(parent)):
            yield stat.name

    def run_record(self, name: str) -> RunRecord:
        """Read a run record and prove it. Raises Damaged."""
        return codec.load(_proved(self.store, name), RunRecord, name)

    # Leases

    def put_lease(self, lease: Lease) -> LeaseName:
        body = codec.dump(lease)
        name = LeaseName(lease.run, lease.until, hashlib.sha256(body).hexdigest())
        self.put(str(name), body)
        return name

    def release(self, lease: LeaseName) -> None:
        """End the newest lease of a run. Nothing is removed."""
        self.put(str(replace(lease, sha256=None)), b"{}\n")

    def leases(self, first: datetime, last: datetime) -> list[LeaseName]:
        """Return the newest lease of each run that did not release it, of those that end between two instants."""
        hours = dict.fromkeys(map(names.leases_of, (first, last)))
        found = [LeaseName.parse(stat.name) for hour in hours for stat in self.store.list(hour)]
        newest = {lease.run: lease for lease in sorted(filter(None, found), key=lambda lease: lease.until)}
        released = {lease.run for lease in found if lease and lease.sha256 is None}
        return [lease for run, lease in newest.items() if run not in released and first < lease.until <= last]

    def lease(self, name: LeaseName) -> Lease:
        """Read a lease and prove it. Raises ObjectMissing, Damaged."""
        return codec.load(_proved(self.store, str(name)), Lease, str(name))

    # Logs

    def chunks(self, log: Log) -> Iterator[ChunkRef]:
        """Yield the chunks of a log in order, reading each index object once."""
        for index in log.indexes:
            yield from self.index(index)
        yield from log.chunks

    def index(self, ref: IndexRef) -> tuple[ChunkRef, ...]:
        body = unpacked(self.get(ObjectRef(ref.name, ref.sha256, ref.stored_bytes)), ref.name)
        return codec.load(body, tuple[ChunkRef, ...], ref.name)

    def put_index(self, backup: str, chunks: Iterable[ChunkRef]) -> IndexRef:
        held = tuple(chunks)
        body = zstandard.ZstdCompressor(level=9).compress(codec.dump(held, tuple[ChunkRef, ...]))
        digest = hashlib.sha256(body).hexdigest()
        stored = self.put(names.index_object(backup, digest), body)
        return IndexRef(
            name=stored.name,
            sha256=digest,
            stored_bytes=stored.stored_bytes,
            chunks=len(held),
            rows=sum(chunk.rows for chunk in held),
            raw_bytes=sum(chunk.raw_bytes for chunk in held),
            chunk_bytes=sum(chunk.stored_bytes for chunk in held),
            lo=held[0].lo,
            hi=held[-1].hi,
        )

    # Chunks

    def put_chunk(self, name: str, file: ChunkFile) -> None:
        """Store a finished chunk, which its writer has decoded again."""
        self.store.put(name, file.body, size=file.stored_bytes, sha256=file.sha256)

    def read(self, ref: ChunkRef) -> Iterator[bytes]:
        """Yield the rows of a chunk, a frame at a time; proven when the iteration has ended. Raises Damaged."""
        try:
            with closing(self.store.open(ref.name)) as stream, self._believed(ref):
                yield from ChunkReader(stream, ref.name, ref)
        except ObjectMissing as error:
            raise ObjectMissing(error.message, hint=_RESTORE_COPY) from error

    def read_object(self, ref: ObjectRef, *, row_bytes: int = ROW_BYTES) -> Iterator[bytes]:
        """Yield the rows of a captured table's object, proven when the iteration has ended. Raises Damaged."""
        with closing(self.store.open(ref.name)) as stream, self._believed(ref):
            reader = ChunkReader(stream, ref.name, row_bytes=row_bytes)
            yield from reader
        if (reader.stored_sha256, reader.stored_bytes) != (ref.sha256, ref.stored_bytes):
            raise Damaged(f"{ref.name}: its bytes do not have their digest", hint=_RESTORE_COPY)

    @contextmanager
    def _believed(self, ref: ChunkRef | ObjectRef) -> Generator[None]:
        """A newer format is one only where the object has its digest: a flipped bit may say so, too."""
        try:
            yield
        except Damaged:
            raise
        except ArchiveError as error:
            if hashlib.sha256(self.store.get(ref.name)).hexdigest() != ref.sha256:
                raise Damaged(f"{ref.name}: its bytes do not have their digest", hint=_RESTORE_COPY) from error
            raise

    def trailer(self, ref: ChunkRef) -> Trailer:
        """Read a chunk's trailer alone: two short reads. Raises Damaged."""
        end = self.store.read(ref.name, ref.stored_bytes - 8, 8)
        length = struct.unpack("<I", end[:4])[0]
        if end[4:] != TRAILER_MARK or length > min(ref.stored_bytes - 8, RECORD_BYTES):
            raise Damaged(f"{ref.name}: it does not end with a trailer", hint=_RESTORE_COPY)
        body = self.store.read(ref.name, ref.stored_bytes - 8 - length, length)
        return check_trailer(codec.load(body, Trailer, ref.name), ref.name, ref.stored_bytes)

    def frame(self, ref: ChunkRef, frame: Frame) -> Iterator[bytes]:
        """Read and decode one frame of a chunk, in pieces of whole rows where it is large. Raises Damaged."""
        part = _Part(self.store, ref.name, frame.offset, frame.stored_bytes)
        raw_bytes = 0
        try:
            for piece in pieces(decoded(part.peek, part.take), ref.name, ROW_BYTES):
                raw_bytes += len(piece)
                if raw_bytes > frame.raw_bytes:
                    raise Damaged(f"{ref.name}: a frame holds more than its trailer says", hint=_RESTORE_COPY)
                yield piece
                del piece
        except zstandard.ZstdError as error:
            raise Damaged(f"{ref.name}: {error}", hint=_RESTORE_COPY) from error
        if raw_bytes < frame.raw_bytes:
            raise Damaged(f"{ref.name}: a frame holds less than its trailer says", hint=_RESTORE_COPY)

    # Captures

    def capture(self, ref: CaptureRef) -> Capture:
        """Read a capture's record, and what lists parts for it. Raises ObjectMissing, Damaged."""
        capture = self.capture_record(ref)
        tables = tuple(replace(table, parts=self.parts(table)) for table in capture.tables)
        return replace(capture, tables=tables)

    def capture_record(self, ref: CaptureRef) -> Capture:
        """Read a capture's record alone: parts that are listed in objects of their own are left out."""
        body = unpacked(self.get(ObjectRef(ref.name, ref.sha256, ref.stored_bytes)), ref.name)
        return codec.load(body, Capture, ref.name)

    def parts(self, table: CapturedTable) -> tuple[ObjectRef, ...]:
        """Return the objects of a table in a capture's record."""
        if table.listed is None:
            return table.parts
        body = unpacked(self.get(table.listed), table.listed.name, LIST_BYTES)
        return codec.load(body, tuple[ObjectRef, ...], table.listed.name)

    def put_capture(self, capture: Capture, rename: Callable[[str], str] = str) -> ObjectRef:
        """Store a capture's record. All objects it names must already be stored."""
        tables = tuple(replace(table, parts=()) if table.listed else table for table in capture.tables)
        body = zstandard.ZstdCompressor(level=9).compress(codec.dump(replace(capture, tables=tables)))
        digest = hashlib.sha256(body).hexdigest()
        name = rename(names.capture_record(digest))
        # Where nothing changed it is there: a store that refuses every second write is not asked.
        if self.store.stat(name) == Stat(name, len(body)):
            return ObjectRef(name, digest, len(body))
        return self.put(name, body)

    def text(self, ref: ObjectRef) -> bytes:
        """Read the text of a captured schema and prove it. Raises Damaged."""
        return unpacked(self.get(ref), ref.name)

    def objects(self) -> Iterator[Stat]:
        """Yield every object of the archive."""
        return self.store.list("")

    def now(self) -> datetime:
        """Return the store's time; of a server that tells none, this machine's."""
        try:
            return self.store.clock()
        except StoreUnreachable:
            raise
        except StoreError:
            return datetime.now(UTC)


class _Part:
    """A range of an object, read in steps, as `frames.decoded` wants it."""

    def __init__(self, store: Store, name: str, offset: int, length: int) -> None:
        self._store, self._name, self._next, self._end = store, name, offset, offset + length
        self._buffer, self._at = b"", 0

    def peek(self, count: int) -> bytes:
        if len(self._buffer) - self._at < count and self._next < self._end:
            more = min(READ_BYTES, self._end - self._next)
            self._buffer = self._buffer[self._at :] + self._store.read(self._name, self._next, more)
            self._at, self._next = 0, self._next + more
        return self._buffer[self._at : self._at + count]

    def take(self, count: int) -> bytes:
        taken = self.peek(count)
        if len(taken) < count:
            raise zstandard.ZstdError("a frame ends in the middle")
        self._at += count
        return taken


def _proved(store: Store, name: str) -> bytes:
    """Read a record whose name carries the digest of its bytes."""
    body = _small(store, name)
    if hashlib.sha256(body).hexdigest() != names.digest_in(name):
        raise Damaged(f"{name}: its bytes do not have the digest of its name", hint=_RESTORE_COPY)
    return body


def _small(store: Store, name: str) -> bytes:
    """Read an object that is a record or a text. Raises Damaged when it is too large for one."""
    with closing(store.open(name)) as stream:
        body = stream.read(RECORD_BYTES + 1)
    if len(body) > RECORD_BYTES:
        raise Damaged(f"{name}: it has more than {RECORD_BYTES} bytes, the most for such an object", hint=_RESTORE_COPY)
    return body


def entry_of(manifest: Manifest) -> BackupName:
    """Name a manifest as `commit` does."""
    return name_of(manifest, hashlib.sha256(codec.dump(manifest)).hexdigest())


def name_of(manifest: Manifest, sha256: str) -> BackupName:
    """Name a manifest whose bytes have this digest."""
    parent = BackupName.parse(manifest.parent).random if manifest.parent else None
    return BackupName(
        manifest.number,
        manifest.backup,
        manifest.generation,
        parent,
        manifest.horizon.at,
        manifest.snapshot,
        sha256,
    )


def unpacked(body: bytes, name: str, most: int = RECORD_BYTES) -> bytes:
    """Decompress one whole zstd frame of known size, of `most` bytes at most. Raises Damaged."""
    try:
        return unpack(body, most)
    except zstandard.ZstdError as error:
        raise Damaged(f"{name}: {error}", hint=_RESTORE_COPY) from error
