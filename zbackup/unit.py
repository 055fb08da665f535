"""
Decide what of a capture a restore brings back beside the events, table by table and handler by handler.

First from the survey alone, which is what a plan shows; once more when the events are loaded and compared with
those that the capture's backup held (database/base.py).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from zbackup.archive.manifest import CapturedTable
from zbackup.database.base import Base
from zbackup.database.fill import Name
from zbackup.survey import COUNTS, FIELDS, STATES, Survey, captured_table, split_name
from zbackup.zitadel import handlers, tables

Action = Literal["load", "empty", "compute", "keep"]


@dataclass(frozen=True, slots=True)
class PlannedHandler:
    name: str
    warm: bool
    why: str
    """it is cold; empty for a warm one"""


@dataclass(frozen=True, slots=True)
class PlannedTable:
    schema: str
    name: str
    kind: str
    """state, derived, ephemeral, metadata or unknown"""
    action: Action
    rows: int
    """captured"""
    handler: str | None
    why: str

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Unit:
    """What a restore does with everything beside the events."""

    survey: Survey
    cold: str
    """why nothing is warm; empty where handlers decide"""
    fields: str
    """why eventstore.fields is cold; empty when it is warm"""
    handlers: tuple[PlannedHandler, ...]
    tables: tuple[PlannedTable, ...]

    @property
    def warm_handlers(self) -> frozenset[str]:
        """Handlers whose captured states are loaded."""
        warm = {handler.name for handler in self.handlers if handler.warm}
        return frozenset(warm | (set(handlers.FIELDS) if not self.fields else set()))


def decide(found: Survey, base: Base | None = None) -> Unit:
    """Decide per table and handler; `base` is what the loaded events say about the capture, where they are loaded."""
    return _Decision(found, base).make()


@dataclass(slots=True)
class _Decision:
    found: Survey
    base: Base | None
    cold: str = ""
    fields: str = ""
    reasons: dict[str, str] = field(default_factory=dict[str, str])
    """why a handler is cold, empty for a warm one"""

    def make(self) -> Unit:
        found, gone = self.found, self._no_base()
        self.cold = gone or ("asked for with --cold" if found.options.cold else "")
        owned: dict[str, list[CapturedTable]] = {}
        for table in found.record.tables:
            if owner := handlers.owner(table.schema, table.name, found.states):
                owned.setdefault(owner, []).append(table)
        for name in sorted({*found.states, *owned} - {*handlers.SIDE_EFFECTS, *handlers.FIELDS}):
            # Schema zitadel is state: --cold does not mean it.
            cold = gone if name == handlers.RELATIONAL else self.cold
            self.reasons[name] = cold or self._cold(name, owned.get(name, ()))
        self.fields = self.cold or self._cold_fields()
        return Unit(
            survey=found,
            cold=self.cold,
            fields=self.fields,
            handlers=tuple(PlannedHandler(name, not why, why) for name, why in self.reasons.items()),
            tables=tuple(self._table(name) for name in self._names()),
        )

    def _no_base(self) -> str:
        if not self.found.capture.older:
            return f"the capture, of backup {self.found.capture.backup}, was made after the instant"
        if self.base is not None and self.base.problem:
            return f"the capture, of backup {self.found.capture.backup}, does not fit: {self.base.problem}"
        if captured_table(self.found.record, STATES) is None:
            return "the states of the handlers were not captured"
        return ""

    def _cold(self, name: str, owned: Iterable[CapturedTable]) -> str:
        if name not in self.found.states:
            return "its state was not captured"
        for table, why in self.found.record.missing.items():
            if handlers.owner(*split_name(table), [name]) == name:
                return f"{table} was not captured ({why})"
        return next((why for table in owned if (why := self._unfit(table))), "") or self._late(name)

    def _cold_fields(self) -> str:
        table = captured_table(self.found.record, FIELDS)
        if table is None:
            return "it was not captured"
        return self._unfit(table) or next((why for name in handlers.FIELDS if (why := self._late(name))), "")

    def _late(self, handler: str) -> str:
        """A handler goes on after its position: what came in before it later would be skipped for good."""
        for instance, position in self.found.states.get(handler, {}).items():
            late = self.base.late.get(instance) if self.base is not None else None
            if late is not None and late <= position:
                return (
                    f"an event of instance {instance} at position {late} became visible after it had read to {position}"
                )
        return ""

    def _unfit(self, table: CapturedTable) -> str:
        """Say why a derived table cannot be loaded; what of state cannot is a problem of the survey."""
        name = f"{table.schema}.{table.name}"
        if tables.restore_of(table.schema, table.name, self.found.states) == "load":
            return ""
        if name in self.found.options.without:
            return f"--without {name}"
        if self.found.mode != "prepared":
            return ""
        there = self.found.target.get((table.schema, table.name))
        if there is None:
            return f"the target has no {name}"
        if gone := [column for column in table.columns if column not in there.columns]:
            return f"the target's {name} has no column {gone[0]}"
        if unfilled := [column for column in there.required if column not in table.columns]:
            return f"nothing fills column {unfilled[0]} of the target's {name}"
        return ""

    def _names(self) -> list[Name]:
        captured = {(table.schema, table.name) for table in self.found.record.tables}
        others = {split_name(name) for name in self.found.record.missing}
        there = {name for name in self.found.target if tables.find(*name) is not None}
        return sorted(
            name for name in captured | others | there if tables.restore_of(*name, self.found.states) != "never"
        )

    def _table(self, name: Name) -> PlannedTable:
        known, captured = tables.find(*name), captured_table(self.found.record, name)
        owner = handlers.owner(*name, self.found.states)
        why = known.why if known else "not known to this zbackup: it counts as state"
        action, reason = self._action(name, captured, owner)
        if action == "load" and self.found.mode == "prepared" and name not in self.found.target:
            action, reason = "empty", "the target has no such table"
        kind, rows = known.kind if known else "unknown", captured.rows if captured else 0
        return PlannedTable(*name, kind, action, rows, owner, reason or why)

    def _action(self, name: Name, captured: CapturedTable | None, owner: str | None) -> tuple[Action, str]:
        """Return what is done with a table, and why if that is not what is always done."""
        found, text = self.found, ".".join(name)
        restore = tables.restore_of(*name, found.states)
        if name == FIELDS:
            return "compute", self.fields or "as captured, permissions as of the instant"
        if text in found.options.without:
            return "empty", f"--without {text}"
        if restore == "compute":
            return "compute", ""
        if restore == "schema" and found.mode == "prepared":
            return "keep", ""
        asked = name == tables.AUTH_REQUESTS and found.options.auth_requests
        if restore == "empty" and not asked:
            return "empty", ""
        if captured is None:
            return "empty", found.record.missing.get(text, "it was not captured")
        reason = self._cold_table(name, owner) if restore == "warm" or name[0] == "zitadel" else ""
        return ("empty", reason) if reason and restore != "schema" else ("load", "")

    def _cold_table(self, name: Name, owner: str | None) -> str:
        """Say why a derived table, or one of schema zitadel, stays empty."""
        if owner is not None:
            return self.reasons[owner]
        if self.cold or name == COUNTS or tables.outlived(*name, self.found.states):
            return self.cold
        return "no state of its handler was captured"
