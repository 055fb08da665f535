"""Which events somebody wants to see: of an instance, an organisation, an aggregate, of some types."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import translate

from zbackup.archive.between import Block
from zbackup.archive.rows import split_rows
from zbackup.archive.sound import rows_of
from zbackup.errors import UsageError
from zbackup.event import COLUMNS, escape, unescape

_INSTANCE, _TYPE, _AGGREGATE = (COLUMNS.index(name) for name in ("instance_id", "aggregate_type", "aggregate_id"))
_EVENT_TYPE, _OWNER = COLUMNS.index("event_type"), COLUMNS.index("owner")


@dataclass(frozen=True, slots=True)
class Selection:
    """What is None does not matter. An empty instance is that of the system."""

    instance: str | None = None
    org: str | None = None
    """owner of the event"""
    aggregate_type: str | None = None
    aggregate_id: str | None = None
    """of the aggregate type, which is given then"""
    event_type: str | None = None
    """a pattern: * stands for any characters, ? for one, [..] for one of some"""

    @property
    def everything(self) -> bool:
        return self == Selection()


def parse_aggregate(text: str | None) -> tuple[str | None, str | None]:
    """Read TYPE or TYPE/ID; ids may hold slashes. Raises UsageError."""
    if text is None:
        return None, None
    kind, slash, aggregate = text.partition("/")
    if not kind or (slash and not aggregate):
        raise UsageError(
            f"aggregate {text!r} is neither TYPE nor TYPE/ID", hint="For example user, or user/840498034931841."
        )
    return kind, aggregate or None


def chooser(selection: Selection) -> Callable[[Block], Iterator[bytes]]:
    """Return what gives the rows of a block that are selected, in their order."""
    wanted = [
        (column, escape(value))
        for column, value in (
            (_INSTANCE, selection.instance),
            (_TYPE, selection.aggregate_type),
            (_AGGREGATE, selection.aggregate_id),
            (_OWNER, selection.org),
        )
        if value is not None
    ]
    needle = _needle(selection)
    types = _Types(selection.event_type) if selection.event_type is not None else None

    def choose(block: Block) -> Iterator[bytes]:
        with rows_of(block.chunk):
            for row in split_rows(block.rows) if needle is None else _with(block.rows, needle):
                fields = row.split(b"\t", _OWNER + 1)
                if all(fields[column] == value for column, value in wanted) and (
                    types is None or types[fields[_EVENT_TYPE]]
                ):
                    yield row
                del row, fields

    return choose if wanted or types is not None else lambda block: iter(split_rows(block.rows))


class _Types(dict[bytes, bool]):
    """Event types, as they stand in rows, and whether they match a pattern."""

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self._pattern = re.compile(translate(pattern))

    def __missing__(self, field: bytes) -> bool:
        return self.setdefault(field, bool(self._pattern.match(unescape(field).decode())))


def _needle(selection: Selection) -> bytes | None:
    """Return bytes that every selected row has, so that where they are rare the others need not be looked at."""
    parts = [selection.instance, selection.aggregate_type, selection.aggregate_id]
    if selection.org is not None and selection.aggregate_id is None:
        parts = [selection.org]
    given = [escape(part) for part in parts if part is not None]
    return b"\t" + b"\t".join(given) + b"\t" if given else None


def _with(rows: bytes, needle: bytes) -> Iterator[bytes]:
    """Yield the rows that hold some bytes, which have no newline."""
    at = rows.find(needle)
    while at >= 0:
        end = rows.find(b"\n", at) + 1 or len(rows)
        yield rows[rows.rfind(b"\n", 0, at) + 1 : end]
        at = rows.find(needle, end)
