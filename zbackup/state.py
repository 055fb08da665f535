"""
The events as of a plan, read from the archive alone: those that a restore would bring back.

That is what the plan's chunks hold at or before T, with what later amendments added, without what is withheld
(archive/withhold.py). What a restore edits about setup is not part of it. Rows are read in blocks; of those that
were added or withheld the keys are held.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from operator import itemgetter

from zbackup.archive.archive import Archive
from zbackup.archive.between import ALWAYS, Block, Order, Range, between, edges
from zbackup.archive.manifest import ChunkRef
from zbackup.archive.plan import RestorePlan, first_of, last_of
from zbackup.archive.rows import split_rows
from zbackup.archive.sound import rows_of
from zbackup.event import Cursor, cursor_of, key_of
from zbackup.progress import Report, Step, silent
from zbackup.withheld import Key, find_withheld

Ranges = Callable[[ChunkRef], Sequence[Range]]
"""which ranges of a chunk are wanted"""


@dataclass(frozen=True, slots=True)
class State:
    archive: Archive
    plan: RestorePlan
    withheld: dict[Key, datetime] = field(default_factory=dict[Key, datetime])
    """events that are left out, and when they were created"""
    added: dict[Key, str] = field(default_factory=dict[Key, str])
    """events that later amendments added, and the chunk that each is taken from"""

    @classmethod
    def of(cls, archive: Archive, plan: RestorePlan, report: Report = silent) -> State:
        """Find out what is added and withheld; withheld.py says what is read for it."""
        made = cls(archive, plan)
        if plan.at is None:
            return made
        report(Step("withheld", "events that would be left out"))
        made = replace(made, added=made._find_added())

        def before(floor: datetime) -> Iterator[Block]:
            return made.blocks(lambda _: [(floor, plan.cut_at)])

        return replace(made, withheld=find_withheld(archive, plan, before))

    def blocks(self, ranges: Ranges = lambda _: ALWAYS, order: Order = Order.FORWARDS) -> Iterator[Block]:
        """Yield the events in the order of the archive; see `Order`."""
        loaded = self._loaded(ranges, order)
        late = [self._late(chunks, ranges, order) for chunks in self._streams()]
        if not late:
            yield from loaded
            return
        placed = (_placed(stream, order) for stream in (loaded, *late))
        for _, block in heapq.merge(*placed, key=itemgetter(0), reverse=order is not Order.FORWARDS):
            yield block

    def _loaded(self, ranges: Ranges, order: Order) -> Iterator[Block]:
        return self._left([chunk.ref for chunk in self.plan.chunks], ranges, order)

    def _late(self, chunks: Sequence[ChunkRef], ranges: Ranges, order: Order) -> Iterator[Block]:
        for block in self._left(chunks, ranges, order):
            rows = [row for row in split_rows(block.rows) if self.added.get(event_key(row)) == block.chunk]
            if rows:
                yield Block(block.chunk, b"".join(rows))

    def _left(self, chunks: Sequence[ChunkRef], ranges: Ranges, order: Order) -> Iterator[Block]:
        """Yield the rows of chunks at or before T that are not withheld."""
        instants = sorted(self.withheld.values())
        for chunk in chunks if order is Order.FORWARDS else reversed(chunks):
            for block in between(self.archive, chunk, until(ranges(chunk), self.plan.at), order):
                left = self._without_withheld(block, instants) if instants else block
                del block
                if left.rows:
                    yield left
                del left

    def _without_withheld(self, block: Block, instants: Sequence[datetime]) -> Block:
        first, last = edges(block)
        following = bisect_left(instants, first)
        if following == len(instants) or instants[following] > last:
            return block
        with rows_of(block.chunk):
            return Block(
                block.chunk, b"".join(row for row in split_rows(block.rows) if event_key(row) not in self.withheld)
            )

    def _streams(self) -> list[list[ChunkRef]]:
        """Return the chunks that events are added from; those that follow one another are read as one stream."""
        streams: list[list[ChunkRef]] = []
        names = set(self.added.values())
        for chunk in sorted((chunk for chunk in self.plan.added if chunk.name in names), key=first_of):
            fitting = next((stream for stream in streams if last_of(stream[-1]) < first_of(chunk)), None)
            if fitting is None:
                streams.append([chunk])
            else:
                fitting.append(chunk)
        return streams

    def _find_added(self) -> dict[Key, str]:
        """Tell which events amendments added that are not there already; of one that came twice the first counts."""
        found: dict[Key, str] = {}
        for chunk in self.plan.added:
            for block in between(self.archive, chunk, until(ALWAYS, self.plan.at)):
                for key in keys(block):
                    found.setdefault(key, chunk.name)
        if found:
            for block in self._loaded(lambda _: ALWAYS, Order.FORWARDS):
                for key in keys(block):
                    found.pop(key, None)
        return found


def event_key(row: bytes) -> Key:
    return tuple(key_of(row)[3:7])


def keys(block: Block) -> Iterable[Key]:
    with rows_of(block.chunk):
        return list(map(event_key, split_rows(block.rows)))


def until(ranges: Sequence[Range], at: datetime | None) -> Sequence[Range]:
    """Cut ranges off after an instant."""
    return ranges if at is None else [(lo, min(hi, at)) for lo, hi in ranges if lo <= at]


def _placed(blocks: Iterable[Block], order: Order) -> Iterator[tuple[Cursor, Block]]:
    """Yield the rows of blocks one by one, each with its place."""
    for block in blocks:
        with rows_of(block.chunk):
            rows = [(cursor_of(row), Block(block.chunk, row)) for row in split_rows(block.rows)]
        yield from rows if order is Order.FORWARDS else reversed(rows)
