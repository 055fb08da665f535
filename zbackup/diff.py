"""
What changed between two points in time: the events that a restore of one would have and that of the other would not.

Chunks that both states have, by the digest of their rows, are read only where the states part: beyond the earlier
instant, and where one withholds what the other does not. An event is told by its place, so one whose time, position
or order was rewritten counts as removed and added.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from zbackup.archive.archive import Archive
from zbackup.archive.between import ALWAYS, Range
from zbackup.archive.manifest import ChunkRef
from zbackup.archive.plan import RestorePlan
from zbackup.archive.rows import split_rows
from zbackup.archive.sound import rows_of
from zbackup.event import COLUMNS, END, MICROSECOND, parse_instant, unescape
from zbackup.merge import Change, merge
from zbackup.progress import Advance, Report, Step, silent
from zbackup.state import State

_OWNER = COLUMNS.index("owner")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two states."""

    plan: RestorePlan
    withheld: int
    """events that a restore of it would withhold"""


@dataclass(frozen=True, slots=True)
class Changes:
    """Of all events, or of those of one group."""

    added: int
    """only in the second state"""
    removed: int
    """only in the first state"""
    changed: int
    """in both, with other values"""
    aggregates: int
    """that these events are of"""
    first: datetime | None
    last: datetime | None
    """when the first and the last of these events were created"""

    @property
    def events(self) -> int:
        return self.added + self.removed + self.changed


@dataclass(frozen=True, slots=True)
class Group:
    """Events that have these values in common; None where that does not matter."""

    instance_id: str | None
    owner: str | None
    """the organisation, or what else the events belong to"""
    aggregate_type: str | None
    changes: Changes


@dataclass(frozen=True, slots=True)
class Groups:
    total: int
    largest: tuple[Group, ...]
    """those with the most events, the largest first"""


@dataclass(frozen=True, slots=True)
class Difference:
    first: Side
    second: Side
    changes: Changes
    instances: Groups
    organisations: Groups
    aggregate_types: Groups


def diff(
    archive: Archive, first: RestorePlan, second: RestorePlan, *, largest: int = 20, report: Report = silent
) -> Difference:
    """Compare what two plans would bring back; `largest` groups of each kind are told of (0: all)."""
    one, other = State.of(archive, first, report), State.of(archive, second, report)
    tally = _Tally()
    report(Step("read"))
    with rows_of(f"backup {one.plan.backup} or {other.plan.backup}"):
        for change, row in _changes(one, other, report):
            tally.add(change, row)
            del row
        return Difference(
            Side(first, len(one.withheld)),
            Side(second, len(other.withheld)),
            tally.all.changes(),
            _groups(tally.instances, ("instance_id",), largest),
            _groups(tally.owners, ("instance_id", "owner"), largest),
            _groups(tally.types, ("aggregate_type",), largest),
        )


def _changes(one: State, other: State, report: Report) -> Iterator[tuple[Change, bytes]]:
    ranges = _parting(one, other)

    def rows(state: State) -> Iterator[bytes]:
        for block in state.blocks(ranges):
            report(Advance(block.rows.count(b"\n"), len(block.rows)))
            yield from split_rows(block.rows)
            del block

    return ((change, row) for change, row in merge(rows(one), rows(other)) if change is not Change.SAME)


def _parting(one: State, other: State) -> Callable[[ChunkRef], Sequence[Range]]:
    """Return which ranges of a chunk can differ between two states."""
    shared = {_identity(chunk.ref) for chunk in one.plan.chunks} & {_identity(chunk.ref) for chunk in other.plan.chunks}
    unlike = one.withheld.keys() ^ other.withheld.keys()
    instants = sorted({at for state in (one, other) for key, at in state.withheld.items() if key in unlike})
    low = min((state.plan.at for state in (one, other) if state.plan.at is not None), default=END)
    within_both = [(at, at) for at in instants if at <= low]
    parting = [*within_both, (low + MICROSECOND, END)] if low < END else within_both
    return lambda chunk: parting if _identity(chunk) in shared else ALWAYS


def _identity(chunk: ChunkRef) -> tuple[str, int]:
    return chunk.raw_sha256, chunk.rows


@dataclass(slots=True)
class _Counts:
    added: int = 0
    removed: int = 0
    changed: int = 0
    aggregates: int = 0
    first: bytes = b""
    last: bytes = b""
    """as they stand in the rows"""

    def add(self, change: Change, created: bytes) -> None:
        if change is Change.ADDED:
            self.added += 1
        elif change is Change.REMOVED:
            self.removed += 1
        else:
            self.changed += 1
        self.first = self.first or created
        self.last = created

    def changes(self) -> Changes:
        first, last = (parse_instant(text.decode()) if text else None for text in (self.first, self.last))
        return Changes(self.added, self.removed, self.changed, self.aggregates, first, last)


_Key = tuple[bytes, ...]


@dataclass(slots=True)
class _Tally:
    """Counts of rows that come in the order of the archive. Of aggregates it holds hashes, some 100 bytes for each."""

    all: _Counts = field(default_factory=_Counts)
    instances: defaultdict[_Key, _Counts] = field(default_factory=lambda: defaultdict(_Counts))
    owners: defaultdict[_Key, _Counts] = field(default_factory=lambda: defaultdict(_Counts))
    types: defaultdict[_Key, _Counts] = field(default_factory=lambda: defaultdict(_Counts))
    _owner_of: dict[int, int] = field(default_factory=dict[int, int])
    """the first owner that an aggregate was seen with, both as hashes"""
    _others: set[tuple[int, int]] = field(default_factory=set[tuple[int, int]])
    """further owners of aggregates"""

    def add(self, change: Change, row: bytes) -> None:
        fields = row.split(b"\t", _OWNER + 1)
        created, instance, kind, owner = fields[0], fields[3], fields[4], fields[_OWNER]
        of_instance, of_owner, of_type = self.instances[instance,], self.owners[instance, owner], self.types[kind,]
        for counts in (self.all, of_instance, of_owner, of_type):
            counts.add(change, created)
        aggregate, belongs = hash((instance, kind, fields[5])), hash(owner)
        known = self._owner_of.get(aggregate)
        if known is None:
            self._owner_of[aggregate] = belongs
            for counts in (self.all, of_instance, of_owner, of_type):
                counts.aggregates += 1
        elif known != belongs and (aggregate, belongs) not in self._others:
            self._others.add((aggregate, belongs))
            of_owner.aggregates += 1


def _groups(counts: dict[_Key, _Counts], names: Iterable[str], largest: int) -> Groups:
    ordered = sorted(counts.items(), key=lambda item: (-item[1].added - item[1].removed - item[1].changed, item[0]))
    chosen = ordered[: largest or None]
    return Groups(len(ordered), tuple(_group(dict(zip(names, key, strict=True)), found) for key, found in chosen))


def _group(values: dict[str, bytes], found: _Counts) -> Group:
    texts = {name: unescape(value).decode() for name, value in values.items()}
    return Group(texts.get("instance_id"), texts.get("owner"), texts.get("aggregate_type"), found.changes())
