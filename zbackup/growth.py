"""
How a log has grown: events per aggregate type over time, and per instance, as the trailers of its chunks count them.

A trailer tells its chunk's events of each type, and how many events each of its frames holds, and of when. What lies
within a chunk is spread over the periods as its events are, each type alike; where chunks end the numbers are exact.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from itertools import accumulate, chain, islice
from typing import TypeVar

from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ChunkRef, Manifest
from zbackup.archive.plan import first_of, last_of
from zbackup.errors import ArchiveError, ObjectMissing
from zbackup.event import parse_instant
from zbackup.periods import Unit, starts, unit_for
from zbackup.progress import Advance, Report, Step, silent

T = TypeVar("T")
Span = tuple[datetime, datetime, int]
"""from, to, and how many events"""
Damage = Callable[[str, str], None]
"""told the name of an object and why it cannot be read"""

# Two short reads each: of longer logs the newest are read. They hold 64 MiB of rows each, 250 GiB in all.
MOST_TRAILERS = 4000

MOST_PERIODS = 120

# So many are told apart; of those counted the least are given up where a log has many more.
MOST_TYPES, MOST_INSTANCES = 50, 50
COUNTED_TYPES, COUNTED_INSTANCES = 1000, 100_000


@dataclass(frozen=True, slots=True)
class TypeGrowth:
    aggregate_type: str
    events: int
    total: tuple[int, ...]
    """events up to the end of each period"""


@dataclass(frozen=True, slots=True)
class InstanceEvents:
    instance: str
    events: int


@dataclass(frozen=True, slots=True)
class Growth:
    """Of log and tail of one backup."""

    backup: str
    unit: Unit
    starts: tuple[datetime, ...]
    """of the periods"""
    total: tuple[int, ...]
    """all events up to the end of each period"""
    types: tuple[TypeGrowth, ...]
    """those with the most events first"""
    instances: tuple[InstanceEvents, ...]
    """likewise"""
    events: int
    unread: int
    """events of chunks whose trailers were not read: their types are not known"""
    chunks: int
    trailers: int
    """read"""


@dataclass(frozen=True, slots=True)
class _Told:
    """What one trailer tells."""

    rows: int
    types: Mapping[str, int]
    instances: Mapping[str, int]
    spans: tuple[Span, ...]


class _Series:
    """Events of the periods, for each name; the smallest are given up when there are too many."""

    def __init__(self, edges: Sequence[datetime], most: int) -> None:
        self._edges, self._most = edges, most
        self._of: defaultdict[str, list[float]] = defaultdict(lambda: [0.0] * len(edges))

    def shares(self, spans: Iterable[Span]) -> dict[int, float]:
        """Spread events over the periods that they lie in."""
        found: defaultdict[int, float] = defaultdict(float)
        for first, last, rows in spans:
            one, other = self._at(first), self._at(last)
            if other <= one:
                found[one] += rows
                continue
            whole = (last - first).total_seconds()
            for at in range(one, other + 1):
                lo = first if at == one else self._edges[at]
                hi = last if at == other else self._edges[at + 1]
                found[at] += rows * (hi - lo).total_seconds() / whole
        return found

    def add(self, name: str, shares: Mapping[int, float], part: float) -> None:
        series = self._of[name]
        for at, rows in shares.items():
            series[at] += rows * part
        if len(self._of) > self._most:
            for least, _ in self.largest()[self._most // 2 :]:
                del self._of[least]

    def largest(self) -> list[tuple[str, list[float]]]:
        return sorted(self._of.items(), key=lambda one: (-sum(one[1]), one[0]))

    def _at(self, instant: datetime) -> int:
        return max(0, bisect_right(self._edges, instant) - 1)


def growth(
    archive: Archive,
    manifest: Manifest,
    *,
    most: int = MOST_TRAILERS,
    periods: int = MOST_PERIODS,
    jobs: int = 2,
    report: Report = silent,
    damaged: Damage = lambda _name, _why: None,
) -> Growth | None:
    """Count the events of a backup; None where it holds none. Raises Damaged, ObjectMissing for its indexes."""
    refs = (chunk for chunk in chain(archive.chunks(manifest.log), manifest.tail) if chunk.rows)
    first = next(refs, None)
    if first is None:
        return None
    unit = unit_for(first_of(first), manifest.snapshot, periods)
    edges = tuple(starts(unit, first_of(first), max(manifest.snapshot, first_of(first))))
    types, everything = _Series(edges, COUNTED_TYPES), _Series(edges, 1)
    instances: Counter[str] = Counter()
    events = unread = chunks = trailers = 0
    newest: deque[ChunkRef] = deque(maxlen=most)
    for chunk in chain((first,), refs):
        chunks += 1
        events += chunk.rows
        if len(newest) == most:
            old = newest[0]
            unread += old.rows
            everything.add("", everything.shares([(first_of(old), last_of(old), old.rows)]), 1)
        newest.append(chunk)
    report(Step("read", f"trailers of {len(newest)} chunks"))
    for chunk, told in _read(partial(_told, archive, damaged), newest, jobs):
        report(Advance(chunk.rows, 0, total_rows=events - unread))
        spans = told.spans if told else ((first_of(chunk), last_of(chunk), chunk.rows),)
        shares = everything.shares(spans)
        everything.add("", shares, 1)
        if told is None:
            unread += chunk.rows
            continue
        trailers += 1
        for name, rows in told.types.items():
            types.add(name, shares, rows / max(1, told.rows))
        instances.update(told.instances)
        if len(instances) > COUNTED_INSTANCES:
            instances = Counter(dict(instances.most_common(COUNTED_INSTANCES // 2)))
    return Growth(
        backup=manifest.backup,
        unit=unit,
        starts=edges,
        total=_summed(dict(everything.largest()).get("", [0.0])),
        types=tuple(
            TypeGrowth(name, round(sum(series)), _summed(series)) for name, series in types.largest()[:MOST_TYPES]
        ),
        instances=tuple(InstanceEvents(name, rows) for name, rows in instances.most_common(MOST_INSTANCES)),
        events=events,
        unread=unread,
        chunks=chunks,
        trailers=trailers,
    )


def _summed(series: Iterable[float]) -> tuple[int, ...]:
    return tuple(round(value) for value in accumulate(series))


def _told(archive: Archive, damaged: Damage, chunk: ChunkRef) -> tuple[ChunkRef, _Told | None]:
    try:
        trailer = archive.trailer(chunk)
    except (ArchiveError, ObjectMissing) as error:
        damaged(chunk.name, error.message)
        return chunk, None
    spans = tuple(
        (parse_instant(frame.first), parse_instant(frame.last), frame.rows)
        for frame in trailer.frames
        if frame.first and frame.last
    )
    return chunk, _Told(trailer.rows, trailer.aggregate_types, trailer.instances, spans)


def _read(read: Callable[[ChunkRef], T], chunks: Iterable[ChunkRef], jobs: int) -> Iterator[T]:
    """Read some at once, and hold no more than these."""
    left = iter(chunks)
    with ThreadPoolExecutor(jobs) as pool:
        while some := list(islice(left, 16 * jobs)):
            yield from pool.map(read, some)
