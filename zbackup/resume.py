"""
Go on where a run died: adopt the chunks of its finished slices.

A run that did not commit leaves a run record and chunks. Rows below its horizon were final, so a run that
continues the same backup may use them. Every chunk is read and proved first; whether its rows still are those
of the source the caller asks the source itself, because counters may be late, lost or silent.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime

from zbackup.archive import names
from zbackup.archive.archive import Archive
from zbackup.archive.chunk import ChunkFile, FrameFacts
from zbackup.archive.facts import inspect_frame
from zbackup.archive.manifest import ChunkRef, RunRecord, Slice
from zbackup.archive.names import BackupName, ChunkName
from zbackup.archive.reader import ChunkReader
from zbackup.archive.sink import reference
from zbackup.errors import ArchiveError, ObjectMissing
from zbackup.event import Cursor
from zbackup.source import EventTable, FileIdentity, Source

Look = Callable[[bytes, FrameFacts], None]


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
    below: datetime,
    look: Look,
    absent: Collection[str] = (),
) -> Adopted | None:
    """Find what runs that continued `parent` and died have sealed, but for `absent`; None when there is nothing."""
    records = [
        record
        for record in _records(archive, parent.backup if parent else None)
        if record.parent == (str(parent) if parent else None)
        and record.slices
        and record.horizon.at is not None
        and record.horizon.at <= below
        and _same(record.source, source)
        and (record.table, record.files) == (table, files)
    ]
    if not records:
        return None
    newest = records[-1]
    records = [record for record in records if record.generation == newest.generation]
    chunks = {key: found for record in records for key, found in _finished(archive, record, look, absent).items()}
    assert newest.horizon.at is not None
    return Adopted(newest.generation, newest.horizon.at, newest.slices, chunks) if chunks else None


def _finished(
    archive: Archive, record: RunRecord, look: Look, absent: Collection[str]
) -> dict[tuple[datetime, datetime], list[ChunkRef]]:
    """Prove the chunks of a run; return those of slices that are there to their ends."""
    stored: dict[str, list[ChunkName]] = {}
    for stat in archive.store.list(f"{names.EVENTS}{record.backup}/"):
        name = ChunkName.parse(stat.name)
        if name is not None and stat.name not in absent:
            stored.setdefault(name.slice, []).append(name)
    finished: dict[tuple[datetime, datetime], list[ChunkRef]] = {}
    for part in record.slices:
        found = sorted(stored.get(part.name, []), key=lambda name: name.part)
        if [name.part for name in found] != list(range(len(found))) or not found or not found[-1].last:
            continue
        try:
            finished[part.lo, part.hi] = _proved(archive, part, found, look)
        except (ArchiveError, ObjectMissing, ValueError):
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
                facts = inspect_frame(frame, last)
                look(frame, facts)
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


def _records(archive: Archive, parent: str | None) -> Iterator[RunRecord]:
    """Read run records; one that cannot be read is no reason to stop, for nothing needs it."""
    for name in archive.run_records(parent):
        try:
            yield archive.run_record(name)
        except (ArchiveError, ObjectMissing):
            continue
