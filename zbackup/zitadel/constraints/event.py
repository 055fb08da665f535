"""Events as the rules see them, and the pushes they came in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple, cast

from zbackup.event import unescape

_read_json = json.JSONDecoder().raw_decode

TYPE = 7
"""where the event type stands in an archived row"""
COLUMNS = TYPE + 2
"""that and what follows it, not yet split"""


class Event(NamedTuple):
    """One event that some rule reads."""

    at: bytes
    """created_at as PostgreSQL writes it"""
    order: int
    """in_tx_order"""
    instance: str
    aggregate: str
    stream: bytes
    """the aggregate's type and id, as they stand in the row"""
    sequence: int
    type: bytes
    creator: bytes
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


def read_event(head: list[bytes]) -> Event:
    """Read the fields of a row that was split at its first eight tabs. Raises ValueError."""
    at, _, order, instance, family, aggregate, sequence, kind, rest = head
    _, creator, owner, payload = rest.split(b"\t", 3)
    return Event(
        at,
        int(order),
        _text(instance),
        _text(aggregate),
        family + b"\t" + aggregate,
        int(sequence),
        kind,
        creator,
        _text(owner),
        _json(payload),
    )


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
    sequences: dict[bytes, int] = {}
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


def _text(field: bytes) -> str:
    return (unescape(field) if b"\\" in field else field).decode()


def _json(field: bytes) -> dict[str, object]:
    r"""Read the payload: all that COPY escapes in JSON text are backslashes, since control characters are \u there."""
    if field == rb"\N":
        return {}
    if b"\\" in field:
        field = field.replace(rb"\\", b"\\")
    value: object = _read_json(field.decode())[0]
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
