"""The table itself: what pushes add to it and remove from it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from zbackup.zitadel.constraints.era import Case, Era
from zbackup.zitadel.constraints.row import Row
from zbackup.zitadel.lowercase import Lower, go_lower

INSTANCE_DOMAIN = "instance_domain"


class Actions:
    """What the commands of one push want of the table."""

    __slots__ = ("_era", "additions", "cleared", "removals", "repairs")

    def __init__(self, era: Era) -> None:
        self._era = era
        self.additions: list[Row] = []
        self.removals: list[Row] = []
        self.cleared: list[str] = []
        """instances whose rows all go"""
        self.repairs: list[Callable[[Table], None]] = []
        """what setup steps did to rows that were there"""

    def add(self, instance: str, kind: str, field: str) -> None:
        self.additions.append((instance, kind, field))

    def remove(self, instance: str, kind: str, field: str) -> None:
        self.removals.append((instance, kind, field))

    def replace(self, instance: str, kind: str, old: str, new: str) -> None:
        self.removals.append((instance, kind, old))
        self.additions.append((instance, kind, new))

    def everywhere(self, instance: str) -> str:
        """Return the instance under which a row stands that is unique in the whole database."""
        return instance if self._era.under_instance else ""


class Table:
    """
    Rows held now, and those that were held once.

    ZITADEL removes first, in one statement that sees the table as it was before the push, then adds
    (facts: 3.1). A row is found as it is given, else in the lower case of the database.
    """

    def __init__(self, lower: Lower, era: Era) -> None:
        self._lower = lower
        self._era = era
        # By instance and type, so that a row costs no more than its field.
        self._held: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
        self._released: defaultdict[tuple[str, str], set[str]] = defaultdict(set)

    def apply(self, actions: Actions) -> None:
        for row in [self._find(row) for row in actions.removals]:
            if row is not None:
                self._release(row)
        for instance in actions.cleared:
            for key in [key for key in self._held if key[0] == instance]:
                self._released[key] |= self._held.pop(key)
        held, mixed = self._held, self._era.case is Case.MIXED
        for instance, kind, field in actions.additions:
            kept = field if mixed else go_lower(field)
            # The object may be known by the same text already.
            held[instance, kind].add(field if field == kept else kept)
        for repair in actions.repairs:
            repair(self)

    def lower_all(self) -> None:
        """Do what setup step 16 did: lower-case all rows that then equal no other."""
        for fields in self._held.values():
            lowered: dict[str, list[str]] = defaultdict(list)
            for field in fields:
                lowered[self._lower(field)].append(field)
            for new, old in lowered.items():
                if len(old) == 1:
                    fields.remove(old[0])
                    fields.add(new)

    def move_domains(self) -> None:
        """Do what setup step 23 did: the domains of all instances are unique in the whole database."""
        for key in [key for key in self._held if key[0] and key[1] == INSTANCE_DOMAIN]:
            self._held["", INSTANCE_DOMAIN] |= self._held.pop(key)

    def correct(self, wrong: set[Row], right: set[Row]) -> None:
        """Put rows in the place of others."""
        for row in wrong - right:
            if self.holds(row):
                self._release(row)
        for row in right - wrong:
            self._held[row[:2]].add(row[2])

    def copy(self) -> dict[tuple[str, str], set[str]]:
        """Return the fields held now, by instance and type: a row costs no more than its place in a set."""
        return {key: set(fields) for key, fields in self._held.items()}

    def rows(self) -> Iterator[Row]:
        for (instance, kind), fields in self._held.items():
            for field in fields:
                yield instance, kind, field

    def holds(self, row: Row) -> bool:
        return row[2] in self._held.get(row[:2], ())

    def released(self, row: Row) -> bool:
        """Whether the row was held once, and removed."""
        return row[2] in self._released.get(row[:2], ())

    def _find(self, row: Row) -> Row | None:
        fields = self._held.get(row[:2])
        if not fields:
            return None
        instance, kind, field = row
        case = self._era.case
        if case is Case.FIRST:
            field = go_lower(field)
        if field in fields:
            return row if field is row[2] else (instance, kind, field)
        if case is Case.MODERN and (lowered := self._lower(field)) in fields:
            return instance, kind, lowered
        return None

    def _release(self, row: Row) -> None:
        key, field = row[:2], row[2]
        self._held[key].discard(field)
        self._released[key].add(field)
