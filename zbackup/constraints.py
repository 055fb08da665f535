"""
The unique constraints as of T, and how those of a capture compare with what the events say.

Where the capture is a base for T, its rows and what the events since changed; else the events alone. A fold over
the events tells what they change (zitadel/constraints.py says how, and what no fold can know).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import IO, Literal

from zbackup.archive import find, sound
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import CapturedTable, Manifest
from zbackup.archive.plan import RestorePlan
from zbackup.database.base import Base
from zbackup.database.computed import read_events, removed_since
from zbackup.database.target import Connection
from zbackup.errors import UsageError
from zbackup.event import unescape
from zbackup.progress import Advance, Report, Step, silent
from zbackup.source import Source
from zbackup.survey import CONSTRAINTS, captured_table, values_of
from zbackup.zitadel.constraints import (
    COLUMNS,
    EVENT_TYPES,
    Difference,
    Fold,
    Row,
    compare,
    doubts,
    line_of,
    rows_of,
)
from zbackup.zitadel.lowercase import database_lower
from zbackup.zitadel.migrations import SystemEvent
from zbackup.zitadel.migrations import constraints as of_migrations

OF_SCHEMA = frozenset({"migration_started", "migration_done"})
"""Rows that go with the events of `zitadel setup`, not with the data."""

# Lines are written to the spool together, and read from it so: a call for each costs as much as the line.
BATCH = 1000
BLOCK_BYTES = 64 << 10

Basis = Literal["capture", "capture and events since", "events"]


@dataclass(frozen=True, slots=True)
class ConstraintsAt:
    """The unique constraints as of T."""

    basis: Basis
    rows: int
    """without those that go with the events of `zitadel setup`"""
    added: int
    """by events since the capture"""
    removed: int
    difference: Difference | None
    """of the captured table and the events that its backup held; None where it was no base"""
    doubts: tuple[str, ...]
    """what the events cannot tell"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the captured table of a backup compares with its events."""

    backup: str
    captured: int
    difference: Difference
    doubts: tuple[str, ...]


def as_captured(base: Base) -> bool:
    """Tell whether the rows are those that were captured, whatever the events say of them."""
    return not base.problem and base.first_since is None


def captured_text(archive: Archive, table: CapturedTable, kept: Iterable[SystemEvent]) -> Iterator[bytes]:
    """Yield the captured rows as COPY text, those of `zitadel setup` as the events of it that are `kept` have them."""
    yield from _text(_captured(archive, table))
    yield from map(line_of, sorted(of_migrations(kept)))


def spooled_text(spool: IO[bytes], kept: Iterable[SystemEvent]) -> Iterator[bytes]:
    """Yield what `constraints_at` left in a spool, and the rows of `zitadel setup`, likewise."""
    spool.seek(0)
    while block := spool.read(BLOCK_BYTES):
        yield block
    yield from map(line_of, sorted(of_migrations(kept)))


def constraints_at(
    connection: Connection,
    archive: Archive,
    plan: RestorePlan,
    table: CapturedTable | None,
    base: Base,
    spool: IO[bytes],
) -> ConstraintsAt:
    """
    Work out the set for the events as of T, before those of `zitadel setup` are edited: they tell the versions.

    `table` is the captured one. The rows, in a fixed order, go into `spool`, unless they are `as_captured`.
    """
    if table is None or base.problem:
        fold = _fold(plan.source)
        for frame in read_events(connection, plan.table, EVENT_TYPES):
            fold.add(frame)
        rows = _write(spool, rows_of(fold.held()))
        return ConstraintsAt("events", rows, 0, 0, None, tuple(doubts(fold)))
    first = base.first_since
    fold, more = _known(connection, plan, first)
    kinds = Counter[str]()
    difference = compare(fold, _counted(_captured(archive, table), kinds))
    if first is None:
        rows = kinds.total() - sum(kinds[kind] for kind in OF_SCHEMA)
        return ConstraintsAt("capture", rows, 0, 0, difference, ())
    before = fold.held()
    # Of what was before the capture its table tells, whatever the events leave open.
    settled = set(doubts(fold))
    if more:
        fold = _fold(plan.source)
        for frame in read_events(connection, plan.table, EVENT_TYPES, hi=first):
            fold.add(frame)
    for frame in read_events(connection, plan.table, EVENT_TYPES, lo=first):
        fold.add(frame)
    left = tuple(doubt for doubt in doubts(fold) if doubt not in settled)
    gained = frozenset(row for row in _of_data(fold.table.rows()) if row[2] not in before.get(row[:2], ()))
    lost = frozenset(row for row in _of_data(rows_of(before)) if not fold.table.holds(row))
    del before
    # With an instance go all rows of it, also those that no event explains.
    gone = removed_since(connection, first)
    stay = (
        row
        for row in _captured(archive, table)
        if row not in lost and row not in gained and (row[0] not in gone or fold.table.holds(row))
    )
    rows = _write(spool, chain(stay, sorted(gained)))
    return ConstraintsAt("capture and events since", rows, len(gained), len(lost), difference, left)


def _known(connection: Connection, plan: RestorePlan, first: datetime | None) -> tuple[Fold, bool]:
    """Fold what the capture's backup held; tell whether some of that came after the first event that it did not."""
    fold, more = _fold(plan.source), False
    for frame in read_events(connection, plan.table, EVENT_TYPES, hi=first):
        fold.add(frame)
    if first is not None:
        for frame in read_events(connection, plan.table, EVENT_TYPES, lo=first, known=True):
            fold.add(frame)
            more = True
    return fold, more


def _write(spool: IO[bytes], rows: Iterable[Row]) -> int:
    """Write rows of data as lines; return their number."""
    number = 0
    for block in _text(rows):
        spool.write(block)
        number += block.count(b"\n")
    return number


def _text(rows: Iterable[Row]) -> Iterator[bytes]:
    """Yield rows of data as COPY text."""
    lines = map(line_of, _of_data(rows))
    while batch := list(islice(lines, BATCH)):
        yield b"".join(batch)


def _counted(rows: Iterable[Row], kinds: Counter[str]) -> Iterator[Row]:
    """Hand rows on, and count them by their type."""
    for row in rows:
        kinds[row[1]] += 1
        yield row


def compare_backup(archive: Archive, manifest: Manifest, *, report: Report = silent) -> Comparison:
    """
    Compare the captured table of a backup with the fold over its events.

    Raises UsageError when the backup captured no such table.
    """
    record = archive.capture(manifest.capture) if manifest.capture is not None else None
    table = captured_table(record, CONSTRAINTS) if record is not None else None
    if table is None:
        raise UsageError(
            f"backup {manifest.backup} has not captured {'.'.join(CONSTRAINTS)}",
            hint="Choose a backup with a capture; `zbackup list` marks them.",
        )
    chunks = find.chunks_of(archive, manifest)
    total = sum(chunk.rows for chunk in chunks), sum(chunk.raw_bytes for chunk in chunks)
    report(Step("constraints", f"{total[0]} events"))
    fold = _fold(manifest.source)
    for chunk in chunks:
        for frame in archive.read(chunk):
            fold.add(frame)
            report(Advance(frame.count(b"\n"), len(frame), *total))
            del frame
    difference = compare(fold, _captured(archive, table))
    return Comparison(manifest.backup, table.rows, difference, tuple(doubts(fold)))


def _captured(archive: Archive, table: CapturedTable) -> Iterator[Row]:
    with sound.rows_of(f"{table.schema}.{table.name}"):
        for instance, kind, field in values_of(archive, table, COLUMNS):
            yield unescape(instance).decode(), unescape(kind).decode(), unescape(field).decode()


def _fold(source: Source) -> Fold:
    return Fold(database_lower(source.locale_provider, source.collation, source.ctype, source.icu_locale))


def _of_data(rows: Iterable[Row]) -> Iterator[Row]:
    return (row for row in rows if row[1] not in OF_SCHEMA)
