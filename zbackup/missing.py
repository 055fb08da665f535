"""What a restore that goes on without damaged objects lacks, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from zbackup.archive.rescue import Span

Kind = Literal["events", "index", "manifest", "table", "capture", "schema", "record"]

NAMED = 20
"""Damaged objects named in warnings."""


@dataclass(frozen=True, slots=True)
class Missing:
    """An object that cannot be read as it was, and what is missing for it."""

    object: str
    kind: Kind
    problem: str
    rows: int = 0
    """events, or rows of a table, that do not come back"""
    spans: tuple[Span, ...] = ()
    """when the missing events were created"""
    instances: dict[str, int] | None = None
    """missing events per instance, as far as known"""
    aggregate_types: dict[str, int] | None = None
    events: tuple[tuple[str, ...], ...] = ()
    """cursors of missing events, as far as known"""

    def __str__(self) -> str:
        what = f"{self.rows} {'rows' if self.kind == 'table' else 'events'} are missing" if self.rows else "passed over"
        return f"{what}: {self.problem}"


def warnings(missing: Sequence[Missing]) -> Iterator[str]:
    """Say what is missing: first how much, then the objects."""
    if missing:
        events = events_of(missing)
        yield (
            f"the archive is damaged: {len(missing)} objects cannot be read as they were, "
            f"{events} events are missing; this is not the whole of what was backed up"
        )
        yield from (str(one) for one in missing[:NAMED])
        if len(missing) > NAMED:
            yield f"{len(missing) - NAMED} more damaged objects are listed in the result with --json"


def events_of(missing: Iterable[Missing]) -> int:
    return sum(one.rows for one in missing if one.kind in {"events", "index"})


def identity(missing: Iterable[Missing]) -> list[tuple[str, int]]:
    """Tell one set of damage from another."""
    return sorted((one.object, one.rows) for one in missing)
