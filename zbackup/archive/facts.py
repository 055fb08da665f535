"""
What the key columns of a frame's rows say: their order, their counts, the extremes of their positions.

Every row is looked at, many at a time (archive/fields.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import cache, reduce
from typing import TYPE_CHECKING

from zbackup.archive.chunk import FrameFacts
from zbackup.archive.rows import FRAME_BYTES, split_rows
from zbackup.event import Cursor, cursor_of, key_of, parse_position, unescape

if TYPE_CHECKING:
    from zbackup.archive.fields import Fields


# Frames are looked at in parts of one to two times this size, lest what numpy makes of small rows takes much memory.
PART_BYTES = FRAME_BYTES

# A part that is larger has a long row, of which few bytes are keys, and mostly few others.
_VECTOR_BYTES = 2 * PART_BYTES


def inspect_frame(rows: bytes, after: Cursor | None) -> FrameFacts:
    """
    Check that every row comes strictly after the one before it, the first after `after`.

    Raises ValueError naming both rows, or saying why they are no rows. PostgreSQL writes instants in UTC so that
    their text sorts like their time (`+` and `.` sort before digits), so that only ties are read.
    """
    facts = reduce(_joined, map(_facts_of, _parts(rows)))
    if after is not None:
        _expect_order(after, facts.first)
    for name in (*facts.instances, *facts.aggregate_types):
        unescape(name).decode()
    return facts


def least_sequences(rows: bytes) -> dict[bytes, int]:
    """
    Return the least sequence of each aggregate, by its key columns as they stand there.

    Raises ValueError when they are no rows.
    """
    first, *others = map(_least_of, _parts(rows))
    for part in others:
        for key, sequence in part.items():
            first[key] = min(sequence, first.get(key, sequence))
    return first


def _parts(rows: bytes) -> Iterator[bytes]:
    if not rows.endswith(b"\n"):
        raise ValueError("the last row has no end")
    start = 0
    while len(rows) - start > _VECTOR_BYTES:
        end = rows.index(b"\n", start + PART_BYTES) + 1
        yield rows[start:end]
        start = end
    if start < len(rows):
        yield rows[start:] if start else rows


def _facts_of(rows: bytes) -> FrameFacts:
    fields = _fields_of(rows)
    return facts_one_by_one(rows) if fields is None else facts_at_once(fields, rows)


def _fields_of(rows: bytes) -> Fields | None:
    """Find the fields with numpy; None where rows are to be read one by one."""
    kind = numpy_fields() if len(rows) <= _VECTOR_BYTES else None
    return None if kind is None else kind(rows)


def count_rows(block: bytes) -> int:
    """
    Count the rows of a block, in a fifth of the time where numpy is loaded already.

    It takes as much memory again, so that a block which is larger, one with a huge row, is counted without.
    """
    return _kinds[0].count(block) if _kinds and len(block) <= _VECTOR_BYTES else block.count(b"\n")


_kinds: list[type[Fields]] = []
"""what numpy_fields() returned"""


@cache
def numpy_fields() -> type[Fields] | None:
    """
    Load numpy, once rows are looked at: what looks at none starts without it.

    None where it cannot be loaded: it needs a processor of this side of 2009 (x86-64-v2), which some virtual ones are
    not. It takes longer then.
    """
    try:
        from zbackup.archive.fields import Fields
    except (ImportError, RuntimeError):
        return None
    _kinds.append(Fields)
    return Fields


def facts_one_by_one(rows: bytes) -> FrameFacts:
    """Read the keys of each row."""
    number, first, last = 0, None, None
    positions: set[bytes] = set()
    instances: Counter[bytes] = Counter()
    types: Counter[bytes] = Counter()
    for line in split_rows(rows):
        number += 1
        cursor = cursor_of(line)
        if last is not None:
            _expect_order(last, cursor)
        first, last = first or cursor, cursor
        _, position, _, instance, kind, *_ = key_of(line)
        positions.add(position)
        instances[instance] += 1
        types[kind] += 1
    assert first is not None
    assert last is not None
    return FrameFacts(number, first, last, *_extremes(positions, rows), instances, types)


def facts_at_once(fields: Fields, rows: bytes) -> FrameFacts:
    first, last = cursor_of(fields.row(0)), cursor_of(fields.row(-1))
    for at in fields.doubtful():
        _expect_order(cursor_of(fields.row(at)), cursor_of(fields.row(at + 1)))
    return FrameFacts(
        fields.number,
        first,
        last,
        *(fields.extremes(1) or _extremes(fields.tally(1), rows)),
        fields.tally(3),
        fields.tally(4),
    )


def _joined(one: FrameFacts, other: FrameFacts) -> FrameFacts:
    _expect_order(one.last, other.first)
    return FrameFacts(
        one.rows + other.rows,
        one.first,
        other.last,
        min(one.least, other.least),
        max(one.greatest, other.greatest),
        one.instances + other.instances,
        one.aggregate_types + other.aggregate_types,
    )


def _least_of(rows: bytes) -> dict[bytes, int]:
    fields = _fields_of(rows)
    if fields is not None and (found := fields.least(3, 5, 6)) is not None:
        return found
    least: dict[bytes, int] = {}
    for *_, instance, kind, aggregate, sequence in map(key_of, split_rows(rows)):
        key, number = b"\t".join((instance, kind, aggregate)), int(sequence)
        least[key] = min(number, least.get(key, number))
    return least


def _expect_order(one: Cursor, other: Cursor) -> None:
    _expect_number(one)
    _expect_number(other)
    if not one < other:
        raise ValueError(f"{other.texts()} does not come after {one.texts()}")


def _expect_number(cursor: Cursor) -> None:
    if not cursor.position.is_finite():
        raise ValueError(f"the position of {cursor.texts()} is not a number")


def _extremes(positions: Iterable[bytes], rows: bytes) -> tuple[Decimal, Decimal]:
    decimals = [parse_position(text.decode()) for text in positions]
    if not all(map(Decimal.is_finite, decimals)):
        for line in split_rows(rows):
            _expect_number(cursor_of(line))
    return min(decimals), max(decimals)
