"""
Which events at or before T a restore leaves out, so that every aggregate keeps a prefix of its history.

Times are taken before the commit, so transactions that overlap T can leave an aggregate with sequence n+1 at
or before T and n after it. Withheld is

    1. an event at or before T whose aggregate has a lower sequence after T;
    2. with it all events with its (instance, created_at), the smallest unit certain to hold its push;
    3. with them the later events, by sequence, of their aggregates; and so on from 2.

Events from before ZITADEL's own migration to events2 are no cause in 1: their sequences were given per
instance, their times are not in that order. The aggregate system/SYSTEM of the system itself is exempt: its
events describe the schema and are kept or dropped by another rule.

Here in memory, for estimates and tests; database/cut.py does the same in SQL.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from zbackup.archive.facts import least_sequences
from zbackup.archive.rows import rows_until, split_rows
from zbackup.event import MICROSECOND, Cursor, parse_instant, unescape

Aggregate = tuple[bytes, bytes, bytes]
"""instance_id, aggregate_type, aggregate_id"""

EXEMPT: Aggregate = (b"", b"system", b"SYSTEM")

MIGRATION = "14_events_push"
"""the setup step that makes events2 of the older events; recorded when it starts"""

_STARTED = b"system.migration.started"


def withheld(before: Iterable[Cursor], after: Iterable[Cursor], migrated: datetime | None = None) -> set[Cursor]:
    """
    Return the events of `before`, those at or before T, that must go because of those of `after`.

    `migrated` is when the migration to events2 started, if it did.
    """
    least: dict[Aggregate, int] = {}
    for cursor in after:
        aggregate = aggregate_of(cursor)
        if aggregate != EXEMPT and (migrated is None or cursor.created_at >= migrated):
            least[aggregate] = min(cursor.sequence, least.get(aggregate, cursor.sequence))
    pushes: defaultdict[tuple[bytes, datetime], list[Cursor]] = defaultdict(list)
    aggregates: defaultdict[Aggregate, list[Cursor]] = defaultdict(list)
    for cursor in before:
        if aggregate_of(cursor) != EXEMPT:
            pushes[cursor.instance_id, cursor.created_at].append(cursor)
            aggregates[aggregate_of(cursor)].append(cursor)
    for events in aggregates.values():
        events.sort(key=lambda event: event.sequence)
    found: set[Cursor] = set()
    todo = [
        event
        for aggregate, sequence in least.items()
        for event in aggregates.get(aggregate, ())
        if event.sequence > sequence
    ]
    while todo:
        event = todo.pop()
        if event in found:
            continue
        found.add(event)
        # What is handed on here once need not be looked at again.
        todo += pushes.pop((event.instance_id, event.created_at), ())
        history = aggregates[aggregate_of(event)]
        while history and history[-1].sequence > event.sequence:
            todo.append(history.pop())
    return found


def aggregate_of(cursor: Cursor) -> Aggregate:
    return cursor.instance_id, cursor.aggregate_type, cursor.aggregate_id


@dataclass(slots=True)
class LeastAfter:
    """
    The least sequence after T of each aggregate, of a few frames of rows.

    Keys stay escaped as in COPY text: `instance_id TAB aggregate_type TAB aggregate_id`.
    """

    at: datetime
    until: datetime
    """rows created later do not count"""
    columns: Sequence[str]
    """of the rows"""
    migrated: datetime | None = None
    """set when the start of the migration was among the rows; all that was noted before it is void then"""
    least: dict[bytes, int] = field(default_factory=dict[bytes, int])

    def add(self, frame: bytes) -> bool:
        """Note the rows of a frame; return whether what was taken away before is void: the migration started."""
        rows = self._counted(frame)
        found = least_sequences(rows) if rows else {}
        # The migration's start is an event of that aggregate.
        started = self._migration(rows) if _EXEMPT_KEY in found else None
        if started is not None:
            self.migrated = max(started, self.migrated or started)
            self.least.clear()
            # Not without that event itself.
            found = least_sequences(self._counted(frame))
        least = self.least
        for key, sequence in found.items():
            if sequence < least.get(key, sequence + 1):
                least[key] = sequence
        least.pop(_EXEMPT_KEY, None)
        return started is not None

    def take(self) -> dict[bytes, int]:
        """Give away what was noted so far."""
        taken, self.least = self.least, {}
        return taken

    def _counted(self, frame: bytes) -> bytes:
        """Return the rows that count; rows come in order."""
        start = self.at if self.migrated is None else max(self.at, self.migrated - MICROSECOND)
        return rows_until(frame, self.until)[len(rows_until(frame, start)) :]

    def _migration(self, rows: bytes) -> datetime | None:
        if MIGRATION.encode() not in rows:
            return None
        kind, payload = self.columns.index("event_type"), self.columns.index("payload")
        found: datetime | None = None
        for row in split_rows(rows):
            fields = row.rstrip(b"\n").split(b"\t")
            if fields[4] == b"system" and fields[kind] == _STARTED and fields[payload] != b"\\N":
                said = json.loads(unescape(fields[payload]))
                instant = parse_instant(fields[0].decode())
                if isinstance(said, dict) and said.get("name") == MIGRATION:
                    found = instant
        return found


_EXEMPT_KEY = b"\t".join(EXEMPT)
