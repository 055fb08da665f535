"""Events as of a point in time, of a range and a selection: what `log` shows and `export` writes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from zbackup.archive.archive import Archive
from zbackup.archive.between import Block, Order
from zbackup.archive.plan import RestorePlan
from zbackup.archive.sound import rows_of
from zbackup.errors import UsageError
from zbackup.event import BEGINNING, END, instant_text
from zbackup.event_json import EventRow, event_of
from zbackup.moment import Latest, RestorePoint
from zbackup.plan import instant_of
from zbackup.progress import Advance, Report, Step, silent
from zbackup.selection import Selection, chooser
from zbackup.state import State


@dataclass(frozen=True, slots=True)
class Log:
    """Events to be read, once or more often. Both ends of the range belong to it."""

    state: State
    selection: Selection
    since: datetime
    until: datetime
    report: Report = silent

    def events(self, *, limit: int = 0, oldest_first: bool = False) -> Iterator[EventRow]:
        """Yield the events, the newest first, so many at most (0: all). Raises Damaged, StoreError on the way."""
        order = Order.FORWARDS if oldest_first else Order.BACKWARDS if self.selection.everything else Order.HELD
        return islice(self._events(order), limit or None)

    def blocks(self) -> Iterator[Block]:
        """Yield the events as rows, the oldest first, in blocks none of which is empty."""
        choose = chooser(self.selection)
        for block in self._blocks(Order.FORWARDS):
            chosen = block if self.selection.everything else Block(block.chunk, b"".join(choose(block)))
            del block
            if chosen.rows:
                yield chosen
            del chosen

    def _events(self, order: Order) -> Iterator[EventRow]:
        choose = chooser(self.selection)
        for block in self._blocks(order):
            rows = choose(block)
            with rows_of(block.chunk):
                for row in rows if order is Order.FORWARDS else reversed(list(rows)):
                    yield event_of(row)

    def _blocks(self, order: Order) -> Iterator[Block]:
        self.report(Step("read"))
        for block in self.state.blocks(lambda _: [(self.since, self.until)], order):
            self.report(Advance(block.rows.count(b"\n"), len(block.rows)))
            yield block
            del block


def find_events(
    archive: Archive,
    made: RestorePlan,
    selection: Selection,
    *,
    since: RestorePoint | None = None,
    until: RestorePoint | None = None,
    report: Report = silent,
) -> Log:
    """
    Find out what is to be read of what a plan would bring back.

    Raises:
        OutsideWindow: the plan does not reach to `since` or `until`.
        UsageError: `since` is after `until`.

    """
    begin = BEGINNING if since is None else instant_of(archive, since, made)
    # A clock that went back leaves events that are later than the snapshot.
    end = END if until is None or isinstance(until, Latest) else instant_of(archive, until, made)
    if begin > end:
        raise UsageError(f"{instant_text(begin)} is after {instant_text(end)}", hint="Give the earlier one as --since.")
    return Log(State.of(archive, made, report), selection, begin, end, report)
