"""
The unique constraints as of T, and how those of a capture compare with what the events say.

Where the capture is a base for T, its rows and what the events since changed; else the events alone. A fold over
the events tells what they change (zitadel/constraints.py says how, and what no fold can know).
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

from zbackup.archive import find
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import CapturedTable, Manifest
from zbackup.archive.plan import RestorePlan
from zbackup.archive.sound import rows_of
from zbackup.database.base import Base
from zbackup.database.computed import read_events, removed_since
from zbackup.database.target import Connection
from zbackup.errors import UsageError
from zbackup.event import unescape
from zbackup.progress import Advance, Report, Step, silent
from zbackup.source import Source
from zbackup.survey import CONSTRAINTS, captured_table, values_of
from zbackup.zitadel.constraints import COLUMNS, EVENT_TYPES, Difference, Fold, Row, compare, doubts, line_of
from zbackup.zitadel.lowercase import database_lower
from zbackup.zitadel.migrations import SystemEvent
from zbackup.zitadel.migrations import constraints as of_migrations

OF_SCHEMA = frozenset({"migration_started", "migration_done"})
"""Rows that go with the events of `zitadel setup`, not with the data."""

Basis = Literal["capture", "capture and events since", "events"]


@dataclass(frozen=True, slots=True)
class ConstraintsAt:
    """The unique constraints as of T."""

    basis: Basis
    rows: frozenset[Row]
    """without those that go with the events of `zitadel setup`"""
    added: int
    """by events since the capture"""
    removed: int
    difference: Difference | None
    """of the captured table and the events that its backup held; None where it was no base"""
    doubts: tuple[str, ...]
    """what the events cannot tell"""

    def lines(self, kept: Iterable[SystemEvent]) -> list[bytes]:
        """Return all rows as lines of COPY text, in a fixed order; `kept` are the events of `zitadel setup`."""
        return [line_of(row) for row in sorted(self.rows | of_migrations(kept))]


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the captured table of a backup compares with its events."""

    backup: str
    captured: int
    difference: Difference
    doubts: tuple[str, ...]


def constraints_at(
    connection: Connection,
    archive: Archive,
    plan: RestorePlan,
    table: CapturedTable | None,
    base: Base,
) -> ConstraintsAt:
    """
    Work out the set for the events as of T, before those of `zitadel setup` are edited: they tell the versions.

    `table` is the captured one.
    """
    fold = _fold(plan.source)
    if table is None or base.problem:
        for frame in read_events(connection, plan.table, EVENT_TYPES):
            fold.add(frame)
        return ConstraintsAt("events", _of_data(fold.rows()), 0, 0, None, tuple(doubts(fold)))
    first = base.first_since
    for frame in read_events(connection, plan.table, EVENT_TYPES, hi=first):
        fold.add(frame)
    known = fold
    if first is not None:
        known = deepcopy(fold)
        for frame in read_events(connection, plan.table, EVENT_TYPES, lo=first, known=True):
            known.add(frame)
        for frame in read_events(connection, plan.table, EVENT_TYPES, lo=first):
            fold.add(frame)
    captured = _captured(archive, table)
    before, after = known.rows(), fold.rows()
    lost, gained = _of_data(before - after), _of_data(after - before)
    # With an instance go all rows of it, also those that no event explains.
    gone = removed_since(connection, first) if first is not None else frozenset[str]()
    stay = (row for row in captured if row not in lost and (row[0] not in gone or row in after))
    # Of what was before the capture its table tells, whatever the events leave open.
    settled = set(doubts(known))
    return ConstraintsAt(
        basis="capture and events since" if base.since else "capture",
        rows=_of_data(stay) | gained,
        added=len(gained),
        removed=len(lost),
        difference=compare(known, captured),
        doubts=tuple(doubt for doubt in doubts(fold) if doubt not in settled),
    )


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
    captured = _captured(archive, table)
    return Comparison(manifest.backup, len(captured), compare(fold, captured), tuple(doubts(fold)))


def _captured(archive: Archive, table: CapturedTable) -> frozenset[Row]:
    with rows_of(f"{table.schema}.{table.name}"):
        rows = (tuple(unescape(value).decode() for value in values) for values in values_of(archive, table, COLUMNS))
        return frozenset((instance, kind, field) for instance, kind, field in rows)


def _fold(source: Source) -> Fold:
    return Fold(database_lower(source.locale_provider, source.collation, source.ctype, source.icu_locale))


def _of_data(rows: Iterable[Row]) -> frozenset[Row]:
    return frozenset(row for row in rows if row[1] not in OF_SCHEMA)
