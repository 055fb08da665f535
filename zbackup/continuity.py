"""
Whether a source is the one whose history an archive holds, and still goes on where it stopped.

The same system identifier and database on the same or a later timeline, with the newest sealed frame still
equal, continues its generation. A timeline that moved forward (a promoted standby) has all its rows compared
first. Anything else begins a new generation, which takes over every chunk that is proved still equal; two
histories are never mixed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import takewhile

from zbackup.archive.ancestry import ancestry_of
from zbackup.archive.archive import Archive
from zbackup.archive.catalog import Catalog
from zbackup.archive.folders import rank
from zbackup.archive.manifest import Ancestry, ChunkRef, Manifest
from zbackup.archive.names import BackupName
from zbackup.database.connection import Connection
from zbackup.database.export import digest_of, holds, read_rows
from zbackup.database.portions import read_range
from zbackup.database.snapshot import Workers
from zbackup.event import Cursor, parse_instant
from zbackup.source import EventTable, Source


@dataclass(frozen=True, slots=True)
class Continuity:
    """The backup to go on from, if any, and how."""

    entry: BackupName | None
    parent: Manifest | None
    continues: bool
    """False: a new generation begins; `parent` then only offers its chunks"""
    others: tuple[tuple[BackupName, Manifest], ...] = ()
    """more heads of this server and database, the newest first"""
    compare: str = ""
    """why all rows are to be compared with the source, if they are"""
    warnings: tuple[str, ...] = ()


def choose_parent(archive: Archive, catalog: Catalog, source: Source) -> Continuity:
    """Choose the backup that a run on this source continues, by who the source says it is."""
    heads = catalog.heads()
    if not heads:
        return Continuity(None, None, continues=False)
    manifests = [(head, archive.manifest(head)) for head in heads]
    own = [
        (head, manifest)
        for head, manifest in manifests
        if (manifest.source.system_identifier, manifest.source.database_oid)
        == (source.system_identifier, source.database_oid)
    ]
    same_line = [(head, manifest) for head, manifest in own if manifest.source.timeline == source.timeline]
    (entry, parent), *others = same_line or own or manifests
    warnings: list[str] = []
    if raced := _raced(catalog, entry, {entry.generation, *(other.generation for other, _ in others)}):
        names = ", ".join(found.backup for found in raced[-3:])
        warnings.append(f"runs raced: continuing {entry.backup}; {len(raced)} beside it stay restorable ({names})")
    if not own:
        warnings.append(
            f"this is another database than that of generation {parent.generation}: system "
            f"{source.system_identifier}, database oid {source.database_oid}; before: system "
            f"{parent.source.system_identifier}, database oid {parent.source.database_oid}"
        )
        return Continuity(entry, parent, continues=False, warnings=tuple(warnings))
    if entry is not heads[0]:
        warnings.append(
            f"another source wrote generation {heads[0].generation} into this archive; "
            f"continuing generation {entry.generation}. Give each source an archive of its own"
        )
    old, new = parent.source.timeline, source.timeline
    if old is not None and new is not None and new < old:
        warnings.append(f"the timeline went back from {old} to {new}: this server is older than the archive's")
        return Continuity(entry, parent, continues=False, warnings=tuple(warnings))
    compare = f"the timeline moved from {old} to {new}" if old is not None and new is not None and new > old else ""
    return Continuity(entry, parent, True, tuple(others), compare, tuple(warnings))


def descent(found: Continuity, catalog: Catalog) -> Ancestry:
    """Return what the next backup tells of the line that it continues, or begins."""
    number, entry, parent = catalog.next_number(), found.entry, found.parent
    if entry is None or parent is None or not found.continues:
        return ancestry_of(number, None)
    line = 0 if parent.ancestry else sum(1 for _ in catalog.line(entry))
    return ancestry_of(number, entry, parent.ancestry, captured=parent.captured, line=line)


def _raced(catalog: Catalog, entry: BackupName, generations: Collection[str]) -> list[BackupName]:
    """
    Return backups that the run of an entry may not have seen when it chose which one to continue.

    Numbers are shared by runs that raced, or that did not see each other. What is older was told of by then; one
    that began more than a thousand backups ago `verify` and `list` show.
    """
    recent = [one for generation in generations for one in catalog.recent(generation)]
    least = min(one.number for one in recent if one.generation == entry.generation)
    line = list(takewhile(lambda one: one.number >= least, catalog.line(entry)))
    last = line[:2]
    numbers = {one.number for one in last}
    found = [
        other
        for other in recent
        if (other.number in numbers or (other.generation == entry.generation and other.snapshot >= last[-1].snapshot))
        and other not in line
    ]
    return sorted(found, key=rank)


def check_newest_frame(found: Continuity, archive: Archive, connection: Connection, table: EventTable) -> Continuity:
    """
    Read the newest sealed frame from the source again, and decide by what is there.

    Of several histories that this server and database may be continuing, the first whose newest frame is equal.
    """
    if found.parent is None or not found.continues:
        return found
    for entry, parent in ((found.entry, found.parent), *found.others):
        if _frame_equal(archive, parent, connection, table):
            if parent is found.parent:
                return found
            other = (
                f"generation {found.parent.generation} holds another history of this database; continuing generation "
                f"{parent.generation}. If two copies of it are in use, give each an archive of its own"
            )
            return replace(found, entry=entry, parent=parent, warnings=(*found.warnings, other))
    newest = newest_chunk(archive, found.parent)
    assert newest is not None
    last = Cursor.of_texts(newest.last)
    key: dict[str, object] = {
        "instance_id": last.instance_id.decode(),
        "aggregate_type": last.aggregate_type.decode(),
        "aggregate_id": last.aggregate_id.decode(),
        "sequence": last.sequence,
        "created_at": last.created_at,
        "position": last.position,
    }
    if holds(connection, table, key):
        return replace(found, compare=found.compare or "the newest sealed rows differ from the source")
    return replace(
        found,
        continues=False,
        warnings=(
            *found.warnings,
            f"the newest archived event ({', '.join(newest.last)}) is not in the source any more: "
            "it went back to an older state, or lost events",
        ),
    )


def _frame_equal(archive: Archive, parent: Manifest, connection: Connection, table: EventTable) -> bool:
    newest = newest_chunk(archive, parent)
    if newest is None:
        return True
    frame = archive.trailer(newest).frames[-1]
    digest = hashlib.sha256()
    for piece in archive.frame(newest, frame):
        digest.update(piece)
        del piece
    rows = read_rows(connection, table, parse_instant(frame.first), newest.hi)
    return digest_of(rows) == (digest.hexdigest(), frame.rows)


def newest_chunk(archive: Archive, manifest: Manifest) -> ChunkRef | None:
    if manifest.log.chunks:
        return manifest.log.chunks[-1]
    if manifest.log.indexes:
        return archive.index(manifest.log.indexes[-1])[-1]
    return None


def equal_chunks(
    chunks: Iterable[ChunkRef], below: datetime, workers: Workers, pool: Executor, table: EventTable
) -> list[ChunkRef]:
    """Return those chunks that end at or below an instant and whose rows are byte for byte those of this source."""

    def equal(chunk: ChunkRef) -> bool:
        with workers.borrow() as worker:
            return digest_of(read_range(worker, table, chunk.lo, chunk.hi)) == (chunk.raw_sha256, chunk.rows)

    candidates = [chunk for chunk in chunks if chunk.hi <= below]
    return [chunk for chunk, same in zip(candidates, pool.map(equal, candidates), strict=True) if same]
