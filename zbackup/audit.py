"""
Compare the sealed log with the source, and amend it where old rows changed, vanished or came late.

Counting a range is cheap (an index serves it) and sees rows that vanished or came late; only comparing its
rows sees those that were rewritten. So counts run at every backup, within a budget, and all rows are compared
when something says that they may have been rewritten.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain
from typing import IO

from zbackup.archive.archive import Archive
from zbackup.archive.log import LogEdit
from zbackup.archive.manifest import Amendment, ChunkRef, Counted
from zbackup.archive.rows import rows_in
from zbackup.archive.sink import Sink
from zbackup.archive.spool import Spool
from zbackup.counting import counted_at, mark
from zbackup.database.export import count, digest_of
from zbackup.database.portions import read_range
from zbackup.database.snapshot import Workers
from zbackup.event import BEGINNING
from zbackup.merge import Change, merge
from zbackup.progress import Step
from zbackup.source import Counters, EventTable

LAST_DAYS = timedelta(days=1)
"""
This much below the horizon, or below the source's clock where that went back, is counted at every backup, but for the
increments in between that `follow` makes: late rows are nearly always young.
"""


@dataclass(frozen=True, slots=True)
class Reasons:
    """Why an audit is due. Empty texts mean it is not."""

    rows: str = ""
    """compare all rows"""
    counts: str = ""
    """count all ranges"""
    surplus: bool = False
    """more rows were inserted than were read: count the newest ranges first"""


@dataclass(slots=True)
class Audit:
    """One audit in one snapshot. Ranges are those of the parent's log, before anything new is appended."""

    archive: Archive
    workers: Workers
    pool: Executor
    sink: Sink
    table: EventTable
    edit: LogEdit
    horizon: datetime
    """end of the parent's log; rows between its last chunk and here would be late ones"""
    snapshot: datetime
    counted: tuple[Counted, ...]
    recent: timedelta = LAST_DAYS
    amendments: list[Amendment] = field(default_factory=list[Amendment])

    def run(self, reasons: Reasons, budget: timedelta) -> None:
        """Do what the reasons ask for; afterwards `edit`, `amendments` and `counted` tell the result."""
        if reasons.rows or reasons.counts:
            self.sink.report(Step("audit", reasons.rows or reasons.counts))
            differs = self._rows_differ if reasons.rows else self._count_differs
            differing = self._differing(list(self._newest())[::-1], differs)
        else:
            differing = self._routine(reasons, budget)
        for number, chunk in enumerate(differing):
            self._amend(number, chunk)

    def _newest(self) -> Iterator[_Range]:
        """Yield the ranges, the newest first; an index of the log is read when it is come to."""
        if self.edit.end() < self.horizon:
            yield _Range(self.edit.end(), self.horizon, 0, None)
        yield from map(_range_of, self.edit.newest())

    def _differing(self, ranges: list[_Range], differs: Callable[[_Range], bool]) -> list[_Range]:
        found = [part for part, wrong in zip(ranges, self.pool.map(differs, ranges), strict=True) if wrong]
        for part in ranges:
            self.counted = mark(self.counted, part.lo, part.hi, self.snapshot)
        return found

    def _routine(self, reasons: Reasons, budget: timedelta) -> list[_Range]:
        until = min(self.horizon, self.snapshot)
        since = max(until, BEGINNING + self.recent) - self.recent
        newest = self._newest()
        young: list[_Range] = []
        for part in newest:
            if len(young) >= 2 and part.hi <= since:
                newest = chain((part,), newest)
                break
            young.append(part)
        found = self._differing(young[::-1], self._count_differs)
        if reasons.surplus:
            found += self._within(newest, budget / 2)
            budget /= 2
        return found + self._within(self._in_turn(), budget)

    def _in_turn(self) -> Iterator[_Range]:
        """
        Yield the ranges that were not counted yet in this run, those of longest ago first.

        An index goes as a whole, by what in it was counted longest ago, so that one is read where all would be.
        """

        def turn(lo: datetime, hi: datetime) -> tuple[datetime, timedelta]:
            return counted_at(self.counted, lo, hi), self.horizon - lo

        for _, _, held in sorted(self.edit.parts(), key=lambda part: turn(*part[:2])):
            for part in sorted(map(_range_of, held()), key=lambda part: turn(part.lo, part.hi)):
                if counted_at(self.counted, part.lo, part.hi) < self.snapshot:
                    yield part

    def _within(self, ranges: Iterator[_Range], budget: timedelta) -> list[_Range]:
        end = time.monotonic() + budget.total_seconds()
        found: list[_Range] = []
        for part in ranges:
            if time.monotonic() >= end:
                break
            if self._count_differs(part):
                found.append(part)
            self.counted = mark(self.counted, part.lo, part.hi, self.snapshot)
        return found

    def _count_differs(self, part: _Range) -> bool:
        with self.workers.borrow() as worker, worker.transaction() as connection:
            return count(connection, self.table, part.lo, part.hi) != part.rows

    def _rows_differ(self, part: _Range) -> bool:
        with self.workers.borrow() as worker:
            digest, rows = digest_of(read_range(worker, self.table, part.lo, part.hi))
        return rows != part.rows or (part.chunk is not None and digest != part.chunk.raw_sha256)

    def _amend(self, number: int, part: _Range) -> None:
        with self.workers.borrow() as worker, Spool(self.sink.spool) as added:
            tally: Counter[Change] = Counter()
            rows = self._merged(part, read_range(worker, self.table, part.lo, part.hi), tally, added)
            chunks = self.sink.write(f"amend{number:04d}", rows, part.lo, part.hi)
            added.seek(0)
            late = self.sink.write(f"added{number:04d}", added, part.lo, part.hi)
        if part.chunk is not None:
            self.edit.replace(part.chunk, chunks)
        elif chunks:
            self.edit.append(chunks)
        self.amendments.append(
            Amendment(
                backup=self.sink.backup,
                at=self.snapshot,
                lo=part.lo,
                hi=part.hi,
                added=tally[Change.ADDED],
                removed=tally[Change.REMOVED],
                changed=tally[Change.CHANGED],
                rows=tuple(late),
            )
        )

    def _merged(
        self, part: _Range, there: Iterator[bytes], tally: Counter[Change], added: IO[bytes]
    ) -> Iterator[bytes]:
        """Yield the rows as they are now; count the changes, and keep a copy of what was added."""
        for change, row in merge(self._archived(part), rows_in(there)):
            tally[change] += 1
            if change is Change.ADDED:
                added.write(row)
            if change is not Change.REMOVED:
                yield row

    def _archived(self, part: _Range) -> Iterator[bytes]:
        if part.chunk is not None:
            yield from rows_in(self.archive.read(part.chunk))


@dataclass(frozen=True, slots=True)
class _Range:
    lo: datetime
    hi: datetime
    rows: int
    chunk: ChunkRef | None


def _range_of(chunk: ChunkRef) -> _Range:
    return _Range(chunk.lo, chunk.hi, chunk.rows, chunk)


def reasons_for(
    before: Counters | None,
    now: Counters | None,
    *,
    read: int,
    upgraded: bool,
    rewritten: bool,
    asked: bool,
    compare: str,
) -> Reasons:
    """Decide what the table's counters, new system events and the operator ask for."""
    if asked:
        return Reasons(rows="asked for")
    if compare:
        return Reasons(rows=compare)
    if rewritten:
        return Reasons(rows="the table was rewritten or truncated since the last backup")
    if upgraded:
        return Reasons(rows="ZITADEL was set up, upgraded or mirrored: old rows may have been rewritten")
    if before is None or now is None:
        return Reasons(rows="the table's counters could not be read") if before is not now else Reasons()
    if (now.reset, now.started) != (before.reset, before.started) or now.inserted < before.inserted:
        return Reasons(rows="the table's counters were reset, or lost when the server crashed")
    if now.updated != before.updated:
        return Reasons(rows=f"{now.updated - before.updated} rows were updated")
    surplus = now.inserted - before.inserted > read
    if now.deleted != before.deleted:
        deleted = f"{now.deleted - before.deleted} rows were deleted"
        return Reasons(rows=f"{deleted} and others inserted") if surplus else Reasons(counts=deleted)
    return Reasons(surplus=surplus)
