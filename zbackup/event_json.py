"""One event with all its columns, and its JSON form, in which the numbers of a payload keep all their digits."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import NoReturn

from zbackup.event import COLUMNS, instant_text, parse_instant, unescape

_NULL = b"\\N"
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")


@dataclass(frozen=True, slots=True)
class EventRow:
    """One event, its columns as ZITADEL names them."""

    created_at: datetime
    position: str
    """with the digits that it has"""
    in_tx_order: int
    instance_id: str
    aggregate_type: str
    aggregate_id: str
    sequence: int
    event_type: str
    revision: int
    creator: str
    owner: str
    payload: str | None
    """JSON, as PostgreSQL wrote it; None where it is NULL"""

    @property
    def name(self) -> str:
        """As `before:` takes it."""
        return f"{self.instance_id}/{self.aggregate_type}/{self.aggregate_id}/{self.sequence}"

    def to_json(self, *, payload: bool, **more: str) -> str:
        """Write a JSON object in one line of ASCII, `more` first. Raises ValueError for a payload that is none."""
        record: dict[str, str | int] = {
            **more,
            "created_at": instant_text(self.created_at),
            **{name: getattr(self, name) for name in COLUMNS[1:-1]},
        }
        text = json.dumps(record)
        return f'{text[:-1]}, "payload": {_checked(self.payload)}}}' if payload else text


def event_of(row: bytes) -> EventRow:
    """Read all columns of a row. Raises ValueError."""
    fields = row.removesuffix(b"\n").split(b"\t")
    if len(fields) != len(COLUMNS):
        raise ValueError(f"a row has {len(fields)} columns instead of {len(COLUMNS)}")
    created, position, order, *texts = (unescape(field).decode() for field in fields[:-1])
    instance, kind, aggregate, sequence, event, revision, creator, owner = texts
    return EventRow(
        created_at=parse_instant(created),
        position=position,
        in_tx_order=int(order),
        instance_id=instance,
        aggregate_type=kind,
        aggregate_id=aggregate,
        sequence=int(sequence),
        event_type=event,
        revision=int(revision),
        creator=creator,
        owner=owner,
        payload=None if fields[-1] == _NULL else unescape(fields[-1]).decode(),
    )


def _checked(payload: str | None) -> str:
    if payload is None:
        return "null"
    # Nothing is made of the numbers: they may have more digits than Python or JavaScript would keep.
    try:
        json.loads(payload, parse_int=str, parse_float=str, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("a payload is nested too deep") from None
    # Within texts of JSON there are no line ends.
    return _NOT_ASCII.sub(_escaped, payload.replace("\n", " ").replace("\r", " "))


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} in a payload")
