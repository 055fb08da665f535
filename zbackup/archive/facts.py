"""
What the key columns of a frame's rows say: their order, their counts, the extremes of their positions.

Every row is looked at, many at a time (archive/fields.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from itertools import pairwise

from zbackup.archive.chunk import FrameFacts
from zbackup.archive.fields import Fields
from zbackup.archive.rows import split_rows
from zbackup.event import Cursor, cursor_of, key_of

# Frames that are larger have huge rows, of which few bytes are keys.
VECTOR_BYTES = 16 << 20


def inspect_frame(rows: bytes, after: Cursor | None) -> FrameFacts:
    """
    Check that every row comes strictly after the one before it, the first after `after`.

    Raises ValueError naming both rows, or saying why they are no rows. PostgreSQL writes instants in UTC so that
    their text sorts like their time (`+` and `.` sort before digits), so that only ties are read.
    """
    if not rows.endswith(b"\n"):
        raise ValueError("the last row has no end")
    facts = _facts_of_few(rows) if len(rows) > VECTOR_BYTES else _facts_of_many(rows)
    if after is not None and not after < facts.first:
        raise ValueError(f"{facts.first.texts()} does not come after {after.texts()}")
    return facts


def least_sequences(rows: bytes) -> dict[bytes, int]:
    """
    Return the least sequence of each aggregate, by its key columns as they stand there.

    Raises ValueError when they are no rows.
    """
    if len(rows) <= VECTOR_BYTES and (found := Fields(rows).least(3, 5, 6)) is not None:
        return found
    least: dict[bytes, int] = {}
    for line in split_rows(rows):
        *_, instance, kind, aggregate, number = key_of(line)
        key, sequence = b"\t".join((instance, kind, aggregate)), int(number)
        least[key] = min(sequence, least.get(key, sequence))
    return least


def _facts_of_few(rows: bytes) -> FrameFacts:
    """Read the keys of each row."""
    lines = split_rows(rows)
    cursors = [cursor_of(line) for line in lines]
    for one, other in pairwise(cursors):
        _expect_order(one, other)
    keys = [key_of(line) for line in lines]
    least, greatest = _extremes({key[1] for key in keys}, rows)
    return FrameFacts(
        len(lines),
        cursors[0],
        cursors[-1],
        least,
        greatest,
        Counter(key[3] for key in keys),
        Counter(key[4] for key in keys),
    )


def _facts_of_many(rows: bytes) -> FrameFacts:
    fields = Fields(rows)
    for at in fields.doubtful():
        _expect_order(cursor_of(fields.row(at)), cursor_of(fields.row(at + 1)))
    least, greatest = fields.extremes(1) or _extremes(fields.tally(1), rows)
    return FrameFacts(
        fields.number,
        cursor_of(fields.row(0)),
        cursor_of(fields.row(-1)),
        least,
        greatest,
        fields.tally(3),
        fields.tally(4),
    )


def _expect_order(one: Cursor, other: Cursor) -> None:
    _expect_number(one)
    _expect_number(other)
    if not one < other:
        raise ValueError(f"{other.texts()} does not come after {one.texts()}")


def _expect_number(cursor: Cursor) -> None:
    if not cursor.position.is_finite():
        raise ValueError(f"the position of {cursor.texts()} is not a number")


def _extremes(positions: Iterable[bytes], rows: bytes) -> tuple[Decimal, Decimal]:
    decimals = [Decimal(text.decode()) for text in positions]
    if not all(map(Decimal.is_finite, decimals)):
        for line in split_rows(rows):
            _expect_number(cursor_of(line))
    return min(decimals), max(decimals)
