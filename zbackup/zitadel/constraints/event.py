"""Events as the rules see them, and the pushes they came in."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from zbackup.event import unescape

_read_json: Callable[[str], tuple[Any, int]] = json.JSONDecoder().raw_decode

TYPE = 7
"""where the event type stands in an archived row"""
COLUMNS = 12
"""of an archived row"""


class Event(NamedTuple):
    """One event that some rule reads."""

    at: str
    """created_at as PostgreSQL writes it"""
    order: int
    """in_tx_order"""
    instance: str
    aggregate: str
    stream: tuple[str, str]
    """the aggregate's type and id, as they stand in the row"""
    sequence: int
    type: str
    creator: str
    owner: str
    data: dict[str, object]
    """the payload; empty where there is none"""

    def text(self, key: str) -> str:
        """Return a text of the payload; ZITADEL leaves out empty ones."""
        value = self.data.get(key)
        return value if isinstance(value, str) else ""

    def number(self, key: str) -> int:
        value = self.data.get(key)
        return value if isinstance(value, int) else 0

    def flag(self, key: str) -> bool:
        return self.data.get(key) is True


def read_event(fields: list[str]) -> Event:
    """Read the fields of a row. Raises ValueError."""
    at, _, order, instance, family, aggregate, sequence, kind, _, creator, owner, payload = fields
    if "\\" in instance or "\\" in aggregate or "\\" in owner:
        instance, aggregate, owner = _text(instance), _text(aggregate), _text(owner)
    # Not Event(…), which takes three times as long: a restore makes half a million of them.
    return tuple.__new__(
        Event,
        (
            at, int(order), instance, aggregate, (family, fields[5]), int(sequence), kind, creator, owner,
            _json(payload),
        ),
    )  # fmt: skip


def pushes(events: list[Event]) -> Iterator[list[Event]]:
    """
    Split what has one creation time into what was pushed together, in the order in which it happened.

    A push is of one instance and its in_tx_order grows; so do the sequences of each aggregate. Where pushes
    tie, their events stand mixed, and one that had an aggregate before another comes first.
    """
    if _is_push(events):
        yield events
        return
    found: list[list[Event]] = []
    for event in events:
        fitting = [push for push in found if _continues(push, event)]
        if fitting:
            min(fitting, key=lambda push: _distance(push, event)).append(event)
        else:
            found.append([event])
    yield from _by_sequence(found)


def _is_push(events: list[Event]) -> bool:
    instance, order = events[0].instance, -1
    sequences: dict[tuple[str, str], int] = {}
    for event in events:
        if event.instance != instance or event.order <= order or event.sequence <= sequences.get(event.stream, -1):
            return False
        order = event.order
        sequences[event.stream] = event.sequence
    return True


def _continues(push: list[Event], event: Event) -> bool:
    last = push[-1]
    return (
        last.instance == event.instance
        and last.order < event.order
        and all(other.sequence < event.sequence for other in push if other.stream == event.stream)
    )


def _distance(push: list[Event], event: Event) -> tuple[bool, bool]:
    """Tell how unlikely it is that an event goes on with a push: others have another aggregate, another creator."""
    return push[-1].stream != event.stream, push[-1].creator != event.creator


def _by_sequence(found: Iterable[list[Event]]) -> list[list[Event]]:
    ordered: list[list[Event]] = []
    for push in found:
        later = (at for at, other in enumerate(ordered) if _precedes(push, other))
        ordered.insert(next(later, len(ordered)), push)
    return ordered


def _precedes(push: list[Event], other: list[Event]) -> bool:
    return any(
        one.sequence < two.sequence
        for one in push
        for two in other
        if (one.instance, one.stream) == (two.instance, two.stream)
    )


def _text(field: str) -> str:
    return unescape(field.encode()).decode()


def _json(field: str) -> dict[str, object]:
    r"""Read the payload: all that COPY escapes in JSON text are backslashes, since control characters are \u there."""
    if field == r"\N":
        return {}
    if "\\" in field:
        field = field.replace(r"\\", "\\")
    value = _read_json(field)[0]
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]
