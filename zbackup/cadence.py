"""How often backups were made, as their names tell it: any number of them in a memory of some thousand days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import heappush, heappushpop
from itertools import chain, islice

from zbackup.archive.names import BackupName
from zbackup.periods import Unit, start_of, unit_for

MOST_PERIODS = 120

# Of the intervals between backups, the newest of these say what is usual.
RECENT = 100

MOST_PAUSES = 8

# Where backups come every few seconds, one that takes a minute is no pause.
LEAST_PAUSE = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Pause:
    """The time from one backup to the next, where it was unusually long."""

    generation: str
    since: datetime
    until: datetime


@dataclass(slots=True)
class _Tally:
    backups: int = 0
    full: int = 0
    last: BackupName | None = None
    """the newest, of the newest generation"""

    def add(self, other: _Tally) -> None:
        self.backups += other.backups
        self.full += other.full
        self.last = self.last or other.last


@dataclass(slots=True)
class Cadence:
    """What was seen of the backups, the newest first."""

    newest: tuple[BackupName, ...] = ()
    backups: Counter[str] = field(default_factory=Counter[str])
    """per generation"""
    usual: timedelta | None = None
    """the median of the newest intervals of the newest generation; None: there are fewer than three"""
    unit: Unit = "day"
    periods: dict[datetime, _Tally] = field(default_factory=dict[datetime, _Tally])
    """by when they begin, in order; those without a backup left out"""
    pauses: tuple[Pause, ...] = ()
    """the longest, by time"""

    @property
    def total(self) -> int:
        return self.backups.total()


def cadence(entries: Iterable[BackupName], newest: int) -> Cadence:
    """Look at all backups once, the newest first."""
    left, seen = iter(entries), Cadence()
    seen.newest = tuple(islice(left, newest))
    tallies = _Tallies()
    intervals: list[timedelta] = []
    longest: list[tuple[timedelta, datetime, datetime, str]] = []
    later: dict[str, BackupName] = {}
    for entry in chain(seen.newest, left):
        head = seen.newest[0]
        seen.backups[entry.generation] += 1
        tallies.add(entry, of_newest=entry.generation == head.generation)
        after = later.get(entry.generation)
        later[entry.generation] = entry
        # What was pruned between two was no pause.
        if after is None or after.parent != entry.random or after.snapshot <= entry.snapshot:
            continue
        interval = after.snapshot - entry.snapshot
        if entry.generation == head.generation and len(intervals) < RECENT:
            intervals.append(interval)
        pause = (interval, entry.snapshot, after.snapshot, entry.generation)
        (heappush if len(longest) < MOST_PAUSES else heappushpop)(longest, pause)
    seen.usual = sorted(intervals)[len(intervals) // 2] if len(intervals) >= 2 else None
    seen.unit, seen.periods = tallies.folded()
    if seen.usual is not None:
        least = max(2 * seen.usual, LEAST_PAUSE)
        found = [Pause(generation, since, until) for length, since, until, generation in longest if length > least]
        seen.pauses = tuple(sorted(found, key=lambda pause: pause.since))
    return seen


class _Tallies:
    """Backups by day, and by hour while there are few hours."""

    def __init__(self) -> None:
        self._days: dict[datetime, _Tally] = {}
        self._hours: dict[datetime, _Tally] | None = {}

    def add(self, entry: BackupName, *, of_newest: bool) -> None:
        one = _Tally(1, int(entry.parent is None), entry if of_newest else None)
        _add(self._days, "day", entry.snapshot, one)
        if self._hours is not None:
            _add(self._hours, "hour", entry.snapshot, one)
            if len(self._hours) > MOST_PERIODS:
                self._hours = None

    def folded(self) -> tuple[Unit, dict[datetime, _Tally]]:
        """Sum up, so that the periods are few."""
        if not self._days:
            return "day", {}
        unit = unit_for(min(self._days), max(self._days), MOST_PERIODS)
        if unit == "hour" and self._hours is None:
            unit = "day"
        folded: dict[datetime, _Tally] = {}
        of_unit: dict[datetime, _Tally] = (self._hours or {}) if unit == "hour" else self._days
        for at, tally in of_unit.items():
            _add(folded, unit, at, tally)
        return unit, dict(sorted(folded.items()))


def _add(tallies: dict[datetime, _Tally], unit: Unit, at: datetime, one: _Tally) -> None:
    tallies.setdefault(start_of(unit, at), _Tally()).add(one)
