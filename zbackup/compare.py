"""Compare the log of a backup, or what was restored of it, with a live database, row for row below the horizon."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ChunkRef, Manifest
from zbackup.archive.rows import rows_in
from zbackup.database.connection import connect, source_errors
from zbackup.database.export import digest_of, read_rows
from zbackup.database.kept import Sessions
from zbackup.database.pace import Pace
from zbackup.database.portions import read_range
from zbackup.database.shape import find_events_table
from zbackup.database.snapshot import Snapshot, Workers
from zbackup.event import BEGINNING, Cursor, cursor_of
from zbackup.merge import Change, merge
from zbackup.progress import Advance, Report, Step, silent

MOST = 20
"""Differences named per chunk; more would only be noise."""

LOCK_TIMEOUT = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Difference:
    chunk: str
    """name of the chunk, or `(no chunk)` for a range in which the archive has no rows"""
    text: str


def compare(
    archive: Archive, manifest: Manifest, source: str, pace: Pace, *, jobs: int = 2, report: Report = silent
) -> Iterator[Difference]:
    """Yield the first differences of every range that differs."""
    report(Step("verify", "comparing with the source"))
    with source_errors(source):
        with connect(source) as control:
            table = find_events_table(control).table
        chunks = list(archive.chunks(manifest.log))
        ranges: list[tuple[datetime, datetime, ChunkRef | None]] = [(c.lo, c.hi, c) for c in chunks]
        end = chunks[-1].hi if chunks else BEGINNING
        if manifest.horizon.at is not None and end < manifest.horizon.at:
            ranges.append((end, manifest.horizon.at, None))
        total = sum(chunk.raw_bytes for chunk in chunks)
        sessions = Sessions(source)
        with Snapshot(sessions) as snapshot, Workers(sessions, snapshot, jobs, LOCK_TIMEOUT, pace) as workers:

            def differences(part: tuple[datetime, datetime, ChunkRef | None]) -> list[Difference]:
                lo, hi, chunk = part
                with workers.borrow() as worker:
                    there = digest_of(read_range(worker, table, lo, hi))
                    report(Advance(there[1], chunk.raw_bytes if chunk else 0, total_bytes=total))
                    if there == ((chunk.raw_sha256, chunk.rows) if chunk else (there[0], 0)):
                        return []
                    rows = list(_differences(archive, chunk, read_range(worker, table, lo, hi)))
                name = chunk.name if chunk else "(no chunk)"
                return [Difference(name, text) for text in rows]

            with ThreadPoolExecutor(jobs) as pool:
                try:
                    for found in pool.map(differences, ranges):
                        yield from found
                except BaseException:
                    workers.cancel()
                    raise


@dataclass(frozen=True, slots=True)
class Compared:
    rows: int
    """that are the same on both sides"""
    missing: int
    """that only the source has, and that are not known to be withheld"""
    wrong: int
    """that differ, or that the source does not have"""
    named: tuple[str, ...]
    """the first of what is wrong, then of what is missing"""


def compare_restored(
    restored: str, source: str, until: datetime, withheld: Collection[tuple[str, ...]], pace: Pace, report: Report
) -> Compared:
    """
    Compare the events of two databases that were created before an instant.

    Left out are those of `zitadel setup`, which a restore puts in order, and those withheld, by their cursors.
    """
    report(Step("compare", "with the source"))
    rows = 0
    counted: Counter[Change] = Counter()
    named: dict[bool, list[str]] = {True: [], False: []}
    words = {Change.CHANGED: "differs", Change.ADDED: "not restored", Change.REMOVED: "not in the source"}
    sessions = Sessions(source)
    with (
        source_errors(source),
        Snapshot(sessions) as snapshot,
        Workers(sessions, snapshot, 1, LOCK_TIMEOUT, pace) as pool,
    ):
        table = find_events_table(snapshot.catalog).table
        with connect(restored) as ours, ours.transaction(), pool.borrow() as worker:
            here = read_rows(ours, find_events_table(ours).table, BEGINNING, until)
            there = read_range(worker, table, BEGINNING, until)
            for change, row in merge(rows_in(here), rows_in(there)):
                if change is Change.SAME:
                    rows += 1
                    continue
                cursor = cursor_of(row)
                if _of_setup(cursor, row) or (change is Change.ADDED and cursor.texts() in withheld):
                    continue
                counted[change] += 1
                if len(names := named[change is Change.ADDED]) < MOST:
                    names.append(f"{words[change]}: {_name(row)}")
    missing = counted[Change.ADDED]
    return Compared(rows, missing, counted.total() - missing, tuple((named[False] + named[True])[:MOST]))


def _of_setup(cursor: Cursor, row: bytes) -> bool:
    key = cursor.instance_id, cursor.aggregate_type, cursor.aggregate_id
    return key == (b"", b"system", b"SYSTEM") and row.split(b"\t", 8)[7].startswith(b"system.migration.")


def _differences(archive: Archive, chunk: ChunkRef | None, there: Iterator[bytes]) -> Iterator[str]:
    """Name the first differences and count the rest."""
    words = {Change.CHANGED: "differs", Change.ADDED: "not in the archive", Change.REMOVED: "not in the source"}
    more = 0
    for number, (change, row) in enumerate(
        (change, row) for change, row in merge(_archived(archive, chunk), rows_in(there)) if change is not Change.SAME
    ):
        if number < MOST:
            yield f"{words[change]}: {_name(row)}"
        else:
            more += 1
    if more:
        yield f"and {more} more in this range"


def _archived(archive: Archive, chunk: ChunkRef | None) -> Iterator[bytes]:
    if chunk is not None:
        yield from rows_in(archive.read(chunk))


def _name(row: bytes) -> str:
    """Name an event without its payload."""
    cursor = cursor_of(row)
    kind = row.split(b"\t", 8)[7].decode()
    return (
        f"{cursor.instance_id.decode()}/{cursor.aggregate_type.decode()}/{cursor.aggregate_id.decode()}"
        f"/{cursor.sequence} {kind} of {cursor.created_at.isoformat()}"
    )
