"""
Which backups of an archive are needed, and why. Pure.

A backup stays or goes as a whole: while its manifest is there, so is all that it names. Those stay that

    are the newest of their generation, unless it is forgotten or all its rows live in the newest generation;
    were the newest of their line at some moment of the window;
    hold a capture that is to be kept, with the log and the tail that it is read against;
    found rows removed or changed, or are the last before that: nothing else holds what the rows were, or knows until
    when.

So for each instant of a line the first backup that is left gives the same rows as the one that is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from zbackup.archive.catalog import Catalog
from zbackup.archive.manifest import Amendment, ChunkRef, Manifest
from zbackup.archive.names import BackupName
from zbackup.errors import UsageError

_PERIODS: dict[str, tuple[str, Callable[[datetime], object]]] = {
    "d": ("day", lambda at: at.date()),
    "w": ("week", lambda at: at.isocalendar()[:2]),
    "m": ("month", lambda at: (at.year, at.month)),
    "y": ("year", lambda at: at.year),
}


@dataclass(frozen=True, slots=True)
class KeepCaptures:
    """How many captures stay: so many of the newest, then one per period for so many periods that have one."""

    tiers: tuple[tuple[int, str], ...] = ((7, ""), (4, "w"), (12, "m"))
    """each begins where the one before ends; the unit is empty for the newest"""

    @classmethod
    def parse(cls, text: str) -> KeepCaptures:
        """Read such as `7,4w,12m`. Raises UsageError."""
        found = [re.fullmatch(r"(\d{1,6})([dwmy]?)", part.strip()) for part in text.split(",")]
        tiers = tuple((int(match[1]), match[2]) for match in found if match)
        if len(tiers) < len(found):
            raise UsageError(
                f"{text!r} does not say how many captures to keep",
                hint="7,4w,12m keeps the newest 7, then one of each of 4 weeks, then one of each of 12 months "
                "(d, w, m and y are UTC's days, ISO weeks, months and years).",
            )
        return cls(tiers)

    def choose(self, captures: Iterable[BackupName]) -> Iterator[tuple[BackupName, str]]:
        """Choose from backups with a capture, the newest first; say why. The newest is always among them."""
        left = list(captures)
        if left:
            yield left[0], "its capture is the newest"
        for most, unit in self.tiers:
            if not unit:
                yield from ((entry, f"its capture is among the newest {most}") for entry in left[:most])
                left = left[most:]
                continue
            word, period = _PERIODS[unit]
            seen: list[object] = []
            while left and (period(left[0].snapshot) in seen or len(seen) < most):
                entry = left.pop(0)
                if period(entry.snapshot) not in seen:
                    seen.append(period(entry.snapshot))
                    yield entry, f"its capture is the one of a {word}"


@dataclass(frozen=True, slots=True)
class Rules:
    window: timedelta = timedelta(days=30)
    captures: KeepCaptures = KeepCaptures()
    forget: frozenset[str] = frozenset()
    """generations that are given up"""
    forget_amended: bool = False
    """give up what amended rows were before"""


@dataclass(frozen=True, slots=True)
class Lost:
    """What rows were before a backup found them removed or changed, when nothing holds it any more."""

    backup: str
    since: datetime
    until: datetime
    """instants from `since` on and before this cannot be restored any more"""
    removed: int
    changed: int


@dataclass(frozen=True, slots=True)
class Needed:
    kept: Mapping[BackupName, str]
    """why it stays"""
    gone: Mapping[BackupName, str]
    """why it may go"""
    lost: tuple[Lost, ...]


def needed(
    catalog: Catalog, manifests: Mapping[BackupName, Manifest], rules: Rules, now: datetime, covered: Collection[str]
) -> Needed:
    """Decide about every backup; `covered` are generations all of whose rows live in the newest one."""
    kept: dict[BackupName, str] = {}
    gone: dict[BackupName, str] = {}
    lost: list[Lost] = []
    border = now - rules.window
    for head in catalog.heads():
        line = tuple(catalog.line(head))
        dead = _given_up(catalog, head, rules, covered)
        reasons = {} if dead else {head: "the newest of its generation"}
        stays = [_window(catalog, head, border)]
        if not dead:
            stays += [_captures(line, manifests, rules), _witnesses(line, manifests, rules)]
        for entry, why in chain.from_iterable(stays):
            reasons.setdefault(entry, why)
        kept |= reasons
        of_line = frozenset(line)
        for entry in catalog.entries:
            if entry.generation == head.generation and entry not in reasons:
                gone[entry] = dead or ("superseded" if entry in of_line else "raced by another run")
        if head in reasons:
            lost += _lost(line, manifests, reasons)
    return Needed(kept, gone, tuple(lost))


def covered(
    catalog: Catalog,
    manifests: Mapping[BackupName, Manifest],
    rules: Rules,
    chunks: Callable[[Manifest], Iterable[ChunkRef]],
) -> frozenset[str]:
    """Name the dead generations all of whose rows live in the newest one; `chunks` yields log and tail of a backup."""
    heads = catalog.heads()
    there = {(chunk.raw_sha256, chunk.rows) for head in heads[:1] for chunk in chunks(manifests[head])}
    return frozenset(
        head.generation
        for head in heads[1:]
        if (rules.forget_amended or not any(map(is_lossy, manifests[head].amendments)))
        and all((chunk.raw_sha256, chunk.rows) in there for chunk in chunks(manifests[head]))
    )


def is_lossy(found: Amendment) -> bool:
    return found.removed + found.changed > 0


def identity(found: Amendment) -> tuple[object, ...]:
    """Tell one amendment from another: its rows may be stored again under other names."""
    return found.backup, found.at, found.lo, found.hi, found.added, found.removed, found.changed


def _given_up(catalog: Catalog, head: BackupName, rules: Rules, covered: Collection[str]) -> str:
    if head == catalog.head():
        return ""
    if head.generation in rules.forget:
        return "its generation is forgotten"
    return "its generation is dead, all its rows live in the newest" if head.generation in covered else ""


def _window(catalog: Catalog, head: BackupName, border: datetime) -> Iterator[tuple[BackupName, str]]:
    """Yield what was the newest at some moment of the window, and what raced it."""
    if head.snapshot < border:
        return
    before = next((entry for entry in catalog.line(head) if entry.snapshot < border), None)
    for entry in catalog.entries:
        if entry.generation == head.generation and (entry.snapshot >= border or entry == before):
            yield entry, "in the window"


def _captures(
    line: tuple[BackupName, ...], manifests: Mapping[BackupName, Manifest], rules: Rules
) -> Iterator[tuple[BackupName, str]]:
    return rules.captures.choose(entry for entry in line if manifests[entry].captured)


def _witnesses(
    line: tuple[BackupName, ...], manifests: Mapping[BackupName, Manifest], rules: Rules
) -> Iterator[tuple[BackupName, str]]:
    """Yield what amended rows that nobody else holds, and what holds them."""
    for entry, before in _amending(line, manifests):
        yield entry, "found rows removed or changed"
        if before in manifests and not rules.forget_amended:
            yield before, f"holds rows that backup {entry.backup} found removed or changed"


def _amending(
    line: tuple[BackupName, ...], manifests: Mapping[BackupName, Manifest]
) -> Iterator[tuple[BackupName, BackupName]]:
    """Yield the backups of a line that found rows removed or changed, and what each continues."""
    found = {one.backup for one in manifests[line[0]].amendments if is_lossy(one)}
    for entry in reversed(line):
        parent = manifests[entry].parent
        if entry.backup in found and parent is not None:
            yield entry, BackupName.parse(parent)


def _lost(
    line: tuple[BackupName, ...], manifests: Mapping[BackupName, Manifest], kept: Collection[BackupName]
) -> Iterator[Lost]:
    for entry, before in _amending(line, manifests):
        for found in manifests[entry].amendments:
            if found.backup == entry.backup and is_lossy(found) and before in manifests and before not in kept:
                yield Lost(found.backup, found.lo, before.horizon or found.lo, found.removed, found.changed)


def missing_parents(
    catalog: Catalog, parents: Mapping[BackupName, str | None], border: datetime | None
) -> Iterator[tuple[BackupName, BackupName]]:
    """Yield backups, and what they continue, where this is not there although no prune may have taken it."""
    known = {*map(str, catalog.entries), *catalog.unread}
    for entry, parent in parents.items():
        if parent is not None and parent not in known:
            name = BackupName.parse(parent)
            if border is None or name.snapshot >= border:
                yield entry, name
