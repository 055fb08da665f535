"""The fold: events in, rows of the table out."""

from __future__ import annotations

from zbackup.zitadel.constraints import doubt
from zbackup.zitadel.constraints.era import Case
from zbackup.zitadel.constraints.event import COLUMNS, TYPE, Event, pushes, read_event
from zbackup.zitadel.constraints.row import Row
from zbackup.zitadel.constraints.rules import RULES
from zbackup.zitadel.constraints.state import State
from zbackup.zitadel.constraints.table import Actions, Table
from zbackup.zitadel.lowercase import Lower

EVENT_TYPES = frozenset(RULES)
"""The types that some rule reads; an input without all others gives the same table."""


class Fold:
    """
    What `eventstore.unique_constraints` holds after the events given.

    Payloads are only read of types that have a rule. What is kept grows with the objects, not with the events.
    """

    def __init__(self, lower: Lower) -> None:
        """Take the LOWER of the database, see `zbackup.zitadel.lowercase.database_lower`."""
        self.state = State()
        self.table = Table(lower, self.state.era)
        self._at = ""
        self._waiting: list[Event] = []
        """of one creation time"""

    def add(self, frame: bytes) -> None:
        """
        Read consecutive rows, whole lines in the archive's order; a frame may end within a push.

        Raises ValueError for what is no row of the archive.
        """
        rules, at, waiting = RULES, self._at, self._waiting
        for line in frame.splitlines():
            fields = line.decode().split("\t")
            if len(fields) != COLUMNS:
                raise ValueError(f"a row of {len(fields)} columns")
            if fields[TYPE] not in rules:
                continue
            if fields[0] != at:
                self._settle()
                at = self._at = fields[0]
            waiting.append(read_event(fields))

    def rows(self) -> frozenset[Row]:
        """Return the rows, the last push counted as whole."""
        self._settle()
        return frozenset(self.table.rows())

    def held(self) -> dict[tuple[str, str], set[str]]:
        """Return the same by instance and type, in less memory."""
        self._settle()
        return self.table.copy()

    def doubts(self) -> tuple[str, ...]:
        """See `zbackup.zitadel.constraints.doubts`."""
        self._settle()
        return self.state.doubts.texts()

    def _settle(self) -> None:
        """Apply what has one creation time."""
        waiting = self._waiting
        if len(waiting) == 1:
            self._apply(waiting)
        elif waiting:
            self._settle_many(waiting)
        waiting.clear()

    def _settle_many(self, events: list[Event]) -> None:
        touched: list[set[Row]] = []
        for push in pushes(events):
            # Before v2.39 constraints followed one another, event by event.
            parts = [[event] for event in push] if self.state.era.case is Case.FIRST else [push]
            actions = [self._apply(part) for part in parts]
            if len(push) < len(events):
                touched.append({row for part in actions for row in (*part.additions, *part.removals)})
        if touched:
            self._doubt_order(touched, events[0])

    def _apply(self, push: list[Event]) -> Actions:
        state = self.state
        actions = Actions(state.era)
        for event in push:
            RULES[event.type](state, event, actions)
        self.table.apply(actions)
        self._doubt_age(push[0])
        return actions

    def _doubt_order(self, touched: list[set[Row]], first: Event) -> None:
        seen: set[Row] = set()
        for rows in touched:
            for instance, kind, field in sorted(rows & seen):
                self.state.doubts.add(doubt.TIED, f"{kind} {field!r} of instance {instance} at {first.at}")
            seen |= rows

    def _doubt_age(self, event: Event) -> None:
        era = self.state.era
        if not event.instance or (era.case is Case.MODERN and era.born):
            return
        if not era.born:
            self.state.doubts.add(doubt.MIRRORED, event.instance)
        elif era.case is Case.FIRST:
            self.state.doubts.latest(doubt.FIRST, event.at)
        elif era.served:
            self.state.doubts.latest(doubt.MIXED, event.at)
