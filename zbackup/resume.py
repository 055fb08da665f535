"""
Go on where a run died: adopt the chunks of its finished slices.

A run that did not commit leaves a run record and chunks. Rows below its horizon were final, so a run that
continues the same backup may use them, as long as the table is the same file and its counters say that no old
row changed since.
Every adopted chunk is read and proved first.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime

from zbackup.archive import names
from zbackup.archive.archive import Archive
from zbackup.archive.chunk import ChunkFile, ChunkReader, FrameFacts, inspect_frame, split_rows
from zbackup.archive.manifest import ChunkRef, RunRecord, Slice
from zbackup.archive.names import BackupName, ChunkName
from zbackup.archive.sink import reference
from zbackup.errors import ArchiveError, ObjectMissing
from zbackup.event import Cursor
from zbackup.source import Counters, EventTable, FileIdentity, Source

Look = Callable[[list[bytes], FrameFacts], None]


@dataclass(frozen=True, slots=True)
class Adopted:
    """What dead runs leave to a new one."""

    generation: str
    until: datetime
    """their newest horizon: slices reach up to here"""
    slices: tuple[Slice, ...]
    """of the newest of them"""
    chunks: dict[tuple[datetime, datetime], list[ChunkRef]]
    """of every finished slice, by its range"""


def adopt(
    archive: Archive,
    parent: BackupName | None,
    source: Source,
    table: EventTable,
    files: FileIdentity,
    counters: Counters | None,
    below: datetime,
    look: Look,
) -> Adopted | None:
    """Find what runs that continued `parent` and died have sealed; None when there is nothing."""
    records = [
        record
        for record in archive.run_records(parent.backup if parent else "")
        if record.parent == (str(parent) if parent else None)
        and record.slices
        and record.horizon.at is not None
        and record.horizon.at <= below
        and _same(record.source, source)
        and (record.table, record.files) == (table, files)
        and _unchanged(record.counters, counters)
    ]
    if not records:
        return None
    newest = records[-1]
    records = [record for record in records if record.generation == newest.generation]
    chunks = {key: found for record in records for key, found in _finished(archive, record, look).items()}
    assert newest.horizon.at is not None
    return Adopted(newest.generation, newest.horizon.at, newest.slices, chunks) if chunks else None


def _finished(archive: Archive, record: RunRecord, look: Look) -> dict[tuple[datetime, datetime], list[ChunkRef]]:
    """Prove the chunks of a run; return those of slices that are there to their ends."""
    stored: dict[str, list[ChunkName]] = {}
    for stat in archive.store.list(f"{names.EVENTS}{record.backup}/"):
        name = ChunkName.parse(stat.name)
        if name is not None:
            stored.setdefault(name.slice, []).append(name)
    finished: dict[tuple[datetime, datetime], list[ChunkRef]] = {}
    for part in record.slices:
        found = sorted(stored.get(part.name, []), key=lambda name: name.part)
        if [name.part for name in found] != list(range(len(found))) or not found or not found[-1].last:
            continue
        try:
            finished[part.lo, part.hi] = _proved(archive, part, found, look)
        except (ArchiveError, ObjectMissing):
            continue
    return finished


def _proved(archive: Archive, part: Slice, found: list[ChunkName], look: Look) -> list[ChunkRef]:
    refs: list[ChunkRef] = []
    last: Cursor | None = None
    for name in found:
        with closing(archive.store.open(str(name))) as stream:
            reader = ChunkReader(stream, str(name))
            begin = None
            for frame in reader:
                rows = split_rows(frame)
                facts = inspect_frame(rows, last)
                look(rows, facts)
                begin, last = begin or facts.first, facts.last
            reader.expect(name.digest)
            file = ChunkFile(stream, reader.stored_bytes, reader.stored_sha256, reader.trailer)
        if refs and begin is not None:
            refs[-1] = replace(refs[-1], hi=begin.created_at)
        refs.append(reference(str(name), file, refs[-1].hi if refs else part.lo, part.hi))
    return refs


def _same(one: Source, other: Source) -> bool:
    return (one.system_identifier, one.database_oid, one.timeline) == (
        other.system_identifier,
        other.database_oid,
        other.timeline,
    )


def _unchanged(before: Counters | None, now: Counters | None) -> bool:
    if before is None or now is None:
        return False
    return (before.updated, before.deleted, before.reset) == (now.updated, now.deleted, now.reset)
