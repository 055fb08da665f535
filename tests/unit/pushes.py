"""Short histories, written push by push as ZITADEL would, and what the fold makes of them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.unit.rows import escape
from zbackup.event import cursor_of
from zbackup.zitadel.constraints import Fold, Row
from zbackup.zitadel.lowercase import Lower, go_lower

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)

# Setup steps of a first start, as far as they tell versions apart.
STEPS = {
    "v2.38": ("01_tables", "03_default_instance"),
    "v2.41": ("14_events_push", "01_tables", "03_default_instance"),
    "v2.47": ("14_events_push", "01_tables", "03_default_instance", "16_unique_constraint_lower"),
    "v4": (
        "14_events_push", "40_init_push_func_v4", "01_tables", "03_default_instance", "16_unique_constraint_lower",
        "23_correct_global_unique_constraints",
    ),
    "main": (
        "14_events_push", "40_init_push_func_v4", "01_tables", "03_default_instance", "16_unique_constraint_lower",
        "23_correct_global_unique_constraints", "70_add_eventstore_command_type_enforce_owner_column",
    ),
}  # fmt: skip

# The aggregate types that event types do not begin with.
FAMILIES = {
    "user.grant": "usergrant", "iam": "instance", "settings.organization": "organization_settings",
    "device.authorization": "device_auth",
}  # fmt: skip


@dataclass(frozen=True)
class Happening:
    kind: str
    aggregate: str
    owner: str
    payload: str


def event(kind: str, aggregate: str, owner: str = "", /, **data: object) -> Happening:
    """An event of an aggregate, which owns itself unless told; without data its payload is NULL."""
    return Happening(kind, aggregate, owner or aggregate, json.dumps(data, ensure_ascii=False) if data else "")


@dataclass
class History:
    """
    What one ZITADEL wrote since its first start. Each push is a second after the one before.

    On the table of the first generation (v2.38) events are numbered through, and each has its own time.
    """

    version: str = "v4"
    instance: str = "i"
    now: datetime = EPOCH
    lines: list[bytes] = field(default_factory=list[bytes])
    first: bool = False
    spread: timedelta = timedelta(milliseconds=1)
    """between events of one push on the first table"""
    _sequences: Counter[str] = field(default_factory=Counter[str])

    def __post_init__(self) -> None:
        self.first = self.version == "v2.38"
        self.steps(*STEPS.get(self.version, ()))

    def push(
        self,
        *events: Happening,
        instance: str | None = None,
        creator: str = "c",
        after: timedelta = SECOND,
        order: int = 1,
    ) -> History:
        """Append a push; `after` 0 gives it the time of the one before."""
        instance = self.instance if instance is None else instance
        self.now += after
        for number, happening in enumerate(events, order):
            stream = "all" if self.first else f"{instance}/{happening.kind.split('.')[0]}/{happening.aggregate}"
            self._sequences[stream] += 1
            sequence = self._sequences[stream]
            if self.first:
                self.now += self.spread
            self.lines.append(self._line(happening, instance, creator, sequence if self.first else number, sequence))
        return self

    def steps(self, *names: str) -> History:
        """Let setup run steps, one after the other."""
        for name in names:
            if name == "14_events_push":
                self.first = False
            for ending in ("started", "done"):
                self.push(event(f"system.migration.{ending}", "SYSTEM", name=name), instance="")
        return self

    def fold(self, lower: Lower = go_lower) -> Fold:
        """Return the fold of all events in the archive's order."""
        fold = Fold(lower)
        fold.add(b"".join(sorted(self.lines, key=cursor_of)))
        return fold

    def rows(self, kind: str, *, instance: str | None = None, lower: Lower = go_lower) -> set[str]:
        """Return the unique fields of one type."""
        instance = self.instance if instance is None else instance
        return fields(self.fold(lower).rows(), kind, instance)

    def _line(self, happening: Happening, instance: str, creator: str, order: int, sequence: int) -> bytes:
        family = next((name for start, name in FAMILIES.items() if happening.kind.startswith(start + ".")), None)
        columns = [
            self.now.strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".") + "+00", f"{self.now.timestamp():.6f}",
            str(order), instance, family or happening.kind.split(".")[0], happening.aggregate, str(sequence),
            happening.kind, "1", creator, happening.owner,
        ]  # fmt: skip
        payload = escape(happening.payload) if happening.payload else rb"\N"
        return b"\t".join([*map(escape, columns), payload]) + b"\n"


def fields(rows: Iterable[Row], kind: str, instance: str = "i") -> set[str]:
    return {row[2] for row in rows if row[:2] == (instance, kind)}
