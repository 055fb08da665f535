"""
An archive as far as it can be read, for a restore that is told to go on without what is damaged.

Nothing is taken that does not prove itself. Records that cannot be read are passed over, so that an older one
answers; of a damaged chunk whole frames are left; a damaged captured table counts as not captured. What is missing
is listed, and for that everything that a restore needs is read once before anything is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TypeVar

from zbackup.archive import FORMAT, names
from zbackup.archive.archive import Archive
from zbackup.archive.catalog import Catalog
from zbackup.archive.chunk import Trailer
from zbackup.archive.folders import Folders
from zbackup.archive.log import totals_of
from zbackup.archive.manifest import (
    ArchiveRecord,
    Capture,
    CapturedTable,
    CaptureRef,
    ChunkRef,
    IndexRef,
    Log,
    Manifest,
    ObjectRef,
)
from zbackup.archive.names import COMPACTED, BackupName, ChunkName
from zbackup.archive.plan import RestorePlan
from zbackup.archive.rescue import Rescued, Span, rescue
from zbackup.archive.table import AT_ONCE
from zbackup.errors import ArchiveError, Damaged, ObjectMissing, TargetRefused, UsageError
from zbackup.missing import Kind, Missing, warnings
from zbackup.progress import Report, Step, Warned
from zbackup.store.base import Store

T = TypeVar("T")


@dataclass(slots=True)
class _Notes:
    records: dict[str, Missing] = field(default_factory=dict[str, Missing])
    chunks: dict[str, Missing] = field(default_factory=dict[str, Missing])
    """what the plan of the last `fit` lacks"""
    told: int = 0
    """records that `learned` has told of"""


class Salvage(Archive):
    """Reads what can be read. Safe for use by several threads."""

    def __init__(self, store: Store, record: ArchiveRecord) -> None:
        super().__init__(store, record)
        self._notes = _Notes()
        self._chunks: dict[str, Rescued | None] = {}
        self._captures: dict[str, Capture] = {}
        self._schemaless: set[str] = set()
        """captures whose text of the schema cannot be read"""

    @classmethod
    def open(cls, store: Store) -> Salvage:
        """Open an archive whose own record may be damaged: nothing else depends on it."""
        try:
            return cls(store, Archive.open(store).record)
        except Damaged as error:
            found = next(stat.name for stat in store.list(names.ARCHIVES))
            ident = found.removeprefix(names.ARCHIVES).rpartition("-")[0]
            made = cls(store, ArchiveRecord(FORMAT, ident, datetime.now(UTC), "unknown"))
            made._note(found, "record", error)
            return made

    @classmethod
    def of(cls, archive: Archive) -> Salvage:
        return archive if isinstance(archive, cls) else cls(archive.store, archive.record)

    @property
    def missing(self) -> tuple[Missing, ...]:
        """What is known to be missing, events first."""
        notes = self._notes
        return (*(notes.chunks[name] for name in sorted(notes.chunks)), *notes.records.values())

    def learned(self) -> bool:
        """Tell whether there is something new to pass over since this was last asked."""
        told, self._notes.told = self._notes.told, len(self._notes.records)
        return told < self._notes.told

    # Records

    def catalog(self) -> Catalog:
        return Catalog(Folders(self._inside), self._lineage, self._notes.records.keys())

    def manifest(self, entry: BackupName) -> Manifest:
        """Read a manifest without a capture that cannot be read. Raises as it does elsewhere, once passed over."""
        try:
            made = super().manifest(entry)
        except (Damaged, ObjectMissing) as error:
            self._note(str(entry), "manifest", error)
            raise
        if made.capture is not None and made.capture.name in self._notes.records:
            return replace(made, capture=None)
        if made.capture is not None and made.capture.name in self._schemaless:
            return replace(made, capture=replace(made.capture, schema=False))
        return made

    def index(self, ref: IndexRef) -> tuple[ChunkRef, ...]:
        """Read an index; of one that cannot be read, the chunks that older backups name themselves."""
        try:
            return super().index(ref)
        except (Damaged, ObjectMissing) as error:
            made = tuple(self._tiled(ref))
            lost = ref.rows - sum(chunk.rows for chunk in made)
            spans = tuple(Span(chunk.lo, chunk.hi, 0) for chunk in made if not chunk.rows)
            self._note(ref.name, "index", error, rows=lost, spans=spans)
            return made

    def capture(self, ref: CaptureRef) -> Capture:
        """Read a capture without the tables that cannot be read. Raises as it does elsewhere, once passed over."""
        if ref.name in self._captures:
            return self._captures[ref.name]
        try:
            record = super().capture(ref)
        except (Damaged, ObjectMissing) as error:
            self._note(ref.name, "capture", error)
            raise
        bad = {name: why for table in record.tables for name, why in self._unreadable(table)}
        made = replace(
            record,
            tables=tuple(table for table in record.tables if f"{table.schema}.{table.name}" not in bad),
            missing={**record.missing, **bad},
        )
        return self._captures.setdefault(ref.name, made)

    def text(self, ref: ObjectRef) -> bytes:
        """Read a text; the captures that name one that cannot be read have no schema from then on."""
        try:
            return super().text(ref)
        except (Damaged, ObjectMissing) as error:
            for name, capture in self._captures.items():
                if ref in (capture.pre_data, capture.post_data):
                    self._schemaless.add(name)
            self._note(ref.name, "schema", error)
            raise

    def parts(self, table: CapturedTable) -> tuple[ObjectRef, ...]:
        try:
            return super().parts(table)
        except (Damaged, ObjectMissing):
            return ()

    def _unreadable(self, table: CapturedTable) -> Iterator[tuple[str, str]]:
        """Yield the table's name and why it cannot be read, if it cannot; every object of it is looked at."""
        listed = (table.listed,) if table.listed is not None and not table.parts else ()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            bad = [found for found in pool.map(self._try_object, (*listed, *table.parts)) if found is not None]
        for name, error in bad[:1]:
            self._note(name, "table", error, rows=table.rows)
            yield f"{table.schema}.{table.name}", error.message

    def _try_object(self, ref: ObjectRef) -> tuple[str, Damaged | ObjectMissing] | None:
        try:
            for _ in self.read_object(ref):
                pass
        except (Damaged, ObjectMissing) as error:
            return ref.name, error
        return None

    def _tiled(self, ref: IndexRef) -> Iterator[ChunkRef]:
        """Yield what older backups of the line name in an index's range, and empty chunks for what is lost."""
        end = ref.lo
        for chunk in sorted(self._named_before(ref), key=lambda chunk: chunk.lo):
            if chunk.lo > end:
                yield _empty(ref, end, chunk.lo)
            yield chunk
            end = chunk.hi
        if end < ref.hi:
            yield _empty(ref, end, ref.hi)

    def _named_before(self, ref: IndexRef | ChunkRef) -> list[ChunkRef]:
        """Return the chunks within the range of an index, or of a merged chunk, that the line had before it."""
        catalog, found = self.catalog(), list[ChunkRef]()
        try:
            entry = catalog.find(names.backup_in(ref.name))
        except UsageError:
            return found
        for older in catalog.line(entry):
            for chunk in self._log_of(older):
                within = chunk.name != ref.name and ref.lo <= chunk.lo and chunk.hi <= ref.hi
                if within and all(chunk.hi <= one.lo or one.hi <= chunk.lo for one in found):
                    found.append(chunk)
            if sum(chunk.rows for chunk in found) >= ref.rows:
                break
        return found

    def _log_of(self, entry: BackupName) -> tuple[ChunkRef, ...]:
        try:
            return self.manifest(entry).log.chunks
        except (Damaged, ObjectMissing):
            return ()

    # Chunks

    def chunks(self, log: Log) -> Iterator[ChunkRef]:
        """Yield the chunks of a log; for a merged one that is damaged those that it was made of, if they are whole."""
        for chunk in super().chunks(log):
            yield from self._unmerged(chunk)

    def _unmerged(self, ref: ChunkRef) -> tuple[ChunkRef, ...]:
        parsed = ChunkName.parse(ref.name)
        if parsed is None or parsed.slice != COMPACTED or self._look(ref) is None:
            return (ref,)
        parts = tuple(sorted(self._named_before(ref), key=lambda chunk: chunk.lo))
        digest, end = hashlib.sha256(), ref.lo
        for part in parts:
            if part.lo != end:
                return (ref,)
            for rows in self.read(part):
                digest.update(rows)
            end = part.hi
        if (end, digest.hexdigest()) != (ref.hi, ref.raw_sha256):
            return (ref,)
        self._note(ref.name, "events", Damaged(f"{ref.name}: damaged; {len(parts)} older objects hold all its events"))
        return parts

    def read(self, ref: ChunkRef) -> Iterator[bytes]:
        rescued = self._look(ref)
        if rescued is None:
            yield from super().read(ref)
            return
        digest = hashlib.sha256()
        for frame in rescued.trailer.frames:
            for piece in self.frame(ref, frame):
                digest.update(piece)
                yield piece
        if digest.hexdigest() != rescued.trailer.raw_sha256:
            raise Damaged(f"{ref.name}: it changed while it was read", hint="Run the same again.")

    def trailer(self, ref: ChunkRef) -> Trailer:
        rescued = self._look(ref)
        return super().trailer(ref) if rescued is None else rescued.trailer

    def fit(self, plan: RestorePlan, jobs: int) -> RestorePlan:
        """Return the plan with what is left of the chunks that it reads, and note what is missing for it."""
        capture = plan.capture
        own = capture.own if capture else ()
        since = capture.since if capture else ()
        planned = tuple(chunk.ref for chunk in (*plan.chunks, *since))
        with ThreadPoolExecutor(jobs) as pool:
            for _ in pool.map(
                self._look, {ref.name: ref for ref in (*planned, *plan.added, *plan.after, *own)}.values()
            ):
                pass
        self._notes.chunks.clear()
        for ref in (*plan.after, *own):
            self._miss(ref, None)
        for ref in (*(chunk.ref for chunk in plan.chunks), *plan.added):
            self._miss(ref, plan.cut_at)
        later = {chunk.ref.name for chunk in since}
        held = {ref.name for ref in (*planned, *own)} - later
        lost = sum(sum(span.rows for span in found.missing) for name in held if (found := self._chunks.get(name)))
        lost += sum(note.rows for note in self._notes.records.values() if note.kind == "index")
        chunks = tuple(left for chunk in plan.chunks if (left := replace(chunk, ref=self._left(chunk.ref))).ref.rows)
        return replace(
            plan,
            chunks=chunks,
            added=self._all_left(plan.added),
            after=self._all_left(plan.after),
            totals=totals_of([chunk.ref for chunk in chunks]),
            capture=capture
            and replace(
                capture,
                own=self._all_left(own),
                since=tuple(left for one in since if (left := replace(one, ref=self._left(one.ref))).ref.rows),
                lost=lost,
            ),
        )

    def _look(self, ref: ChunkRef) -> Rescued | None:
        """Read a chunk as a whole, once; return what is left of it, None where nothing is wrong."""
        if ref.name not in self._chunks:
            try:
                for _ in super().read(ref):
                    pass
                self._chunks[ref.name] = None
            except ObjectMissing:
                self._chunks[ref.name] = rescue(b"", ref)
            except Damaged:
                self._chunks[ref.name] = rescue(self.store.get(ref.name), ref)
        return self._chunks[ref.name]

    def _left(self, ref: ChunkRef) -> ChunkRef:
        rescued = self._chunks[ref.name]
        return ref if rescued is None else rescued.ref

    def _all_left(self, refs: Iterable[ChunkRef]) -> tuple[ChunkRef, ...]:
        return tuple(left for ref in refs if (left := self._left(ref)).rows)

    def _miss(self, ref: ChunkRef, at: datetime | None) -> None:
        """Note what is missing of a chunk at or before an instant; without one it is only looked at."""
        found = self._chunks[ref.name]
        if found is None:
            return
        spans = tuple(span for span in found.missing if at is not None and span.first <= at)
        rows = sum(span.rows for span in spans)
        problem = f"{ref.name}: {found.trailer.rows} of {ref.rows} events can be read"
        if at is None:
            problem += "; it holds nothing that would come back, and tells what to leave out"
        keys = tuple(
            dict.fromkeys(
                key for key, left in ((ref.first, found.ref.first), (ref.last, found.ref.last)) if key != left and rows
            )
        )
        self._notes.chunks[ref.name] = Missing(
            ref.name, "events", problem, rows, spans, found.instances if rows else None,
            found.aggregate_types if rows else None, keys,
        )  # fmt: skip

    def _note(
        self, name: str, kind: Kind, error: ArchiveError | ObjectMissing, *, rows: int = 0, spans: tuple[Span, ...] = ()
    ) -> None:
        self._notes.records.setdefault(name, Missing(name, kind, error.message, rows, spans))


def _empty(ref: IndexRef, lo: datetime, hi: datetime) -> ChunkRef:
    """Stand for chunks that nobody names any more, so that the ranges tile."""
    return ChunkRef(ref.name, "", 0, "", 0, 0, lo, hi, (), (), (Decimal(0), Decimal(0)))


def persist(archive: Archive, call: Callable[[], T]) -> T:
    """Call again for as long as a failure tells a salvage something more to pass over."""
    while True:
        try:
            return call()
        except (Damaged, ObjectMissing, TargetRefused):
            if not isinstance(archive, Salvage) or not archive.learned():
                raise


def fit(archive: Archive, plan: RestorePlan, jobs: int, report: Report) -> RestorePlan:
    """Fit a plan to what a salvage can read; any other archive is taken to be whole."""
    if not isinstance(archive, Salvage):
        return plan
    report(Step("salvage", f"{plan.totals.chunks} chunks are read once before they are loaded"))
    return archive.fit(plan, jobs)


def missing_of(archive: Archive) -> tuple[Missing, ...]:
    return archive.missing if isinstance(archive, Salvage) else ()


def warn(archive: Archive, report: Report) -> None:
    for text in warnings(missing_of(archive)):
        report(Warned(text))
