"""
What an archive tells of itself, as values for a page and for JSON: its window, backups, growth, and what was found.

From the archive alone. All names of backups are looked at, and few objects are read: the newest manifests, one for
each period, the newest log's indexes and the trailers of its chunks. What cannot be read is told and passed over, and
every list has a limit, so that memory and page stay small whatever the archive holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, takewhile
from typing import TypeVar

from zbackup import __version__
from zbackup.archive import records as archive_records
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import Amendment, Counted, Manifest, Totals
from zbackup.archive.names import BackupName
from zbackup.archive.needed import Lost, is_lossy
from zbackup.archive.records import Kind, Record
from zbackup.cadence import Cadence, Pause, cadence
from zbackup.check import Check
from zbackup.condition import condition
from zbackup.counting import oldest
from zbackup.errors import ArchiveError, ObjectMissing, UsageError
from zbackup.event import parse_instant
from zbackup.growth import MOST_TRAILERS, Growth, growth
from zbackup.inspect import ListedBackup, listed
from zbackup.periods import Unit
from zbackup.plan import with_capture
from zbackup.progress import Report, Step, Warned, silent
from zbackup.source import Source

E = TypeVar("E")
T = TypeVar("T")

# How many of each are told, the newest; each backup is one object to be read.
NEWEST, GENERATIONS, AMENDMENTS, RECORDS, FINDINGS = 100, 20, 50, 40, 50

KINDS: tuple[Kind, ...] = ("verify", "drill", "prune", "run")


@dataclass(frozen=True, slots=True)
class Generation:
    """What can be restored of one generation."""

    generation: str
    newest: bool
    """the others are dead: nothing is added to them"""
    first: datetime | None
    """its first event"""
    final: datetime | None
    """up to here (the newest horizon) every answer is final"""
    last: datetime
    """the newest snapshot"""
    backups: int
    source: Source | None
    """None: no manifest that tells it can be read"""
    lost: tuple[Lost, ...]
    """instants in it that cannot be restored"""
    more_lossy: int
    """amendments that removed or changed rows, and were not looked at: there may be more that is lost"""


@dataclass(frozen=True, slots=True)
class Period:
    """The backups of a day, or whatever the unit is."""

    start: datetime
    backups: int
    full: int
    """of these, those that continue no other"""
    events: int | None
    stored_bytes: int | None
    """the log of the last backup of the newest generation in it; None: there is none, or it cannot be read"""


@dataclass(frozen=True, slots=True)
class Amended:
    """Old rows that a backup found changed, gone, or come late."""

    backup: str
    at: datetime
    lo: datetime
    hi: datetime
    added: int
    removed: int
    changed: int


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a backup warned of, a record that tells of a failure, or an object that cannot be read."""

    at: datetime
    """when last"""
    about: str
    message: str
    times: int


@dataclass(frozen=True, slots=True)
class Facts:
    archive: str
    address: str
    created: datetime
    at: datetime
    """when this was found out"""
    zbackup: str
    generations: tuple[Generation, ...]
    """newest first"""
    more_generations: int
    """that are not told"""
    total_backups: int
    usual_seconds: float | None
    """the median of the newest intervals between backups"""
    unit: Unit
    periods: tuple[Period, ...]
    """oldest first; without those that have no backup"""
    pauses: tuple[Pause, ...]
    backups: tuple[ListedBackup, ...]
    """the newest, oldest first"""
    log: Totals | None
    """of the newest backup"""
    growth: Growth | None
    amendments: tuple[Amended, ...]
    """newest first"""
    total_amendments: int
    records: tuple[Record, ...]
    """newest first"""
    checks: tuple[Check, ...]
    findings: tuple[Finding, ...]
    """newest first"""


def take_facts(
    archive: Archive,
    now: datetime,
    *,
    newest: int = NEWEST,
    trailers: int = MOST_TRAILERS,
    jobs: int = 2,
    report: Report = silent,
) -> Facts:
    """Look at an archive. What of it cannot be read is among the findings; raises StoreError where nothing can be."""
    return _Look(archive, now, newest, trailers, jobs, report).facts()


class _Look:
    def __init__(self, archive: Archive, now: datetime, newest: int, trailers: int, jobs: int, report: Report) -> None:
        self.archive, self.now = archive, now
        self.newest, self.trailers, self.jobs, self.report = newest, trailers, jobs, report
        self.catalog = archive.catalog()
        self.unreadable: dict[str, str] = {}
        self.looks = AMENDMENTS
        """so many lossy amendments of all generations are looked at still: each is an object to be read"""

    def facts(self) -> Facts:
        self.report(Step("read", "names of backups"))
        seen = cadence(self.catalog.newest(), self.newest)
        heads = self.catalog.heads()
        head = self._newest_of(heads)
        dead = heads[1:GENERATIONS]
        manifests = dict(zip(heads, (head, *map(self._manifest, dead)), strict=False))
        self.report(Step("read", "manifests"))
        backups = self._backups(seen.newest, heads)
        periods = self._periods(seen)
        found = self._trying(lambda: self._growth(head)) if head else None
        amendments = _newest_first(head.amendments if head else ())
        records = self._records()
        checks = condition(
            head, now=self.now, usual=seen.usual, captured=self._captured(heads), counted=_longest_ago(head),
            records=records, unreadable=len(self.unreadable),
        )  # fmt: skip
        return Facts(
            archive=self.archive.record.archive,
            address=self.archive.store.address,
            created=self.archive.record.created,
            at=self.now,
            zbackup=__version__,
            generations=tuple(
                self._generation(entry, manifest, seen, newest=entry == heads[0])
                for entry, manifest in manifests.items()
            ),
            more_generations=len(heads) - len(manifests),
            total_backups=seen.total,
            usual_seconds=seen.usual.total_seconds() if seen.usual else None,
            unit=seen.unit,
            periods=periods,
            pauses=seen.pauses,
            backups=backups,
            log=head.sealed if head else None,
            growth=found,
            amendments=tuple(map(_amended, amendments[:AMENDMENTS])),
            total_amendments=len(amendments),
            records=records,
            checks=tuple(checks),
            findings=self._findings(backups, records),
        )

    def _newest_of(self, heads: Sequence[BackupName]) -> Manifest | None:
        """Return the newest backup of the newest generation that can be read."""
        line = islice(self.catalog.line(heads[0]), self.newest) if heads else ()
        return next(filter(None, map(self._manifest, line)), None)

    def _captured(self, heads: Sequence[BackupName]) -> Manifest | None:
        return self._trying(lambda: next(with_capture(self.archive, self.catalog, heads[0]), None)) if heads else None

    def _generation(self, head: BackupName, manifest: Manifest | None, seen: Cadence, *, newest: bool) -> Generation:
        lossy = _newest_first(filter(is_lossy, manifest.amendments)) if manifest else []
        looked, self.looks = lossy[: self.looks], max(self.looks - len(lossy), 0)
        return Generation(
            generation=head.generation,
            newest=newest,
            first=self._trying(lambda: _first(self.archive, manifest)) if manifest else None,
            final=head.horizon,
            last=head.snapshot,
            backups=seen.backups[head.generation],
            source=manifest.source if manifest else None,
            lost=tuple(filter(None, map(self._lost, looked))),
            more_lossy=len(lossy) - len(looked),
        )

    def _backups(self, entries: tuple[BackupName, ...], heads: tuple[BackupName, ...]) -> tuple[ListedBackup, ...]:
        """Read the newest manifests, and of each keep what is told of it."""
        least = min((entry.number for entry in entries), default=0)
        lines = {
            entry
            for head in heads[:GENERATIONS]
            for entry in takewhile(lambda one: one.number >= least, self.catalog.line(head))
        }

        def told(entry: BackupName) -> ListedBackup | None:
            manifest = self._manifest(entry)
            return manifest and listed(manifest, head=entry in heads, stray=entry not in lines)

        return tuple(filter(None, self._each(told, entries)))[::-1]

    def _periods(self, seen: Cadence) -> tuple[Period, ...]:
        def sealed(entry: BackupName | None) -> Totals | None:
            manifest = self._manifest(entry) if entry else None
            return manifest and manifest.sealed

        logs = self._each(sealed, (tally.last for tally in seen.periods.values()))
        return tuple(
            Period(start, tally.backups, tally.full, log and log.rows, log and log.stored_bytes)
            for (start, tally), log in zip(seen.periods.items(), logs, strict=True)
        )

    def _growth(self, head: Manifest) -> Growth | None:
        return growth(self.archive, head, most=self.trailers, jobs=self.jobs, report=self.report, damaged=self._damaged)

    def _lost(self, found: Amendment) -> Lost | None:
        """Tell which instants an amendment made be gone for good: the backup that answered for them is pruned."""
        try:
            manifest = self._manifest(self.catalog.find(found.backup))
        except UsageError:
            return None
        before = BackupName.parse(manifest.parent) if manifest and manifest.parent else None
        if before is None or before.horizon is None or before.horizon <= found.lo or self.catalog.lists(before):
            return None
        return Lost(found.backup, found.lo, before.horizon, found.removed, found.changed)

    def _records(self) -> tuple[Record, ...]:
        found = [
            record
            for kind in KINDS
            for record in archive_records.newest(
                self.archive, kind, RECORDS, damaged=lambda name: self._damaged(name, "it is damaged")
            )
        ]
        return tuple(sorted(found, key=lambda record: record.started, reverse=True))

    def _findings(self, backups: Iterable[ListedBackup], records: Iterable[Record]) -> tuple[Finding, ...]:
        """Tell the newest of each, and how often it was said."""
        said: dict[tuple[str, str], Finding] = {}
        for at, about, message in sorted(self._said(backups, records), reverse=True):
            key = about.partition(" ")[0], message
            known = said.get(key)
            said[key] = (
                Finding(known.at, known.about, message, known.times + 1) if known else Finding(at, about, message, 1)
            )
        return tuple(islice(said.values(), FINDINGS))

    def _said(self, backups: Iterable[ListedBackup], records: Iterable[Record]) -> Iterator[tuple[datetime, str, str]]:
        for name, why in self.unreadable.items():
            yield self.now, name, why
        for backup in backups:
            for warning in backup.warnings:
                yield backup.snapshot, f"backup {backup.backup}", warning
        for record in records:
            if not record.ok:
                found = record.figures.get("findings")
                yield (
                    record.ended,
                    f"{record.kind} {record.id}",
                    f"it failed; findings: {found}" if found else "it failed",
                )

    # Reading what may not be readable

    def _manifest(self, entry: BackupName) -> Manifest | None:
        return self._trying(lambda: self.archive.manifest(entry), str(entry))

    def _each(self, read: Callable[[E], T], entries: Iterable[E]) -> list[T]:
        with ThreadPoolExecutor(self.jobs) as pool:
            return list(pool.map(read, entries))

    def _trying(self, read: Callable[[], T], name: str = "") -> T | None:
        try:
            return read()
        except (ArchiveError, ObjectMissing) as error:
            self._damaged(name or error.message.partition(":")[0], error.message)
            return None

    def _damaged(self, name: str, why: str) -> None:
        if name not in self.unreadable and len(self.unreadable) < FINDINGS:
            self.unreadable[name] = why
            self.report(Warned(f"the report is without what cannot be read: {why}", "Run `zbackup verify`."))


def _first(archive: Archive, manifest: Manifest) -> datetime | None:
    refs = (*archive.index(manifest.log.indexes[0]),) if manifest.log.indexes else manifest.log.chunks
    first = next((chunk for chunk in (*refs, *manifest.tail) if chunk.rows), None)
    return parse_instant(first.first[0]) if first else None


def _longest_ago(head: Manifest | None) -> Counted | None:
    return oldest(head.counted) if head else None


def _newest_first(found: Iterable[Amendment]) -> list[Amendment]:
    return sorted(found, key=lambda one: one.at, reverse=True)


def _amended(found: Amendment) -> Amended:
    return Amended(found.backup, found.at, found.lo, found.hi, found.added, found.removed, found.changed)
