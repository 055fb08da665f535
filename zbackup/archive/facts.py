"""
What the key columns of a frame's rows say: their order, their counts, the extremes of their positions.

Every row is looked at, many at a time: numpy finds and compares fields where the bytes lie, which takes half of the
time that it takes to cut rows up, and lets other threads go on meanwhile (docs/decisions/0005-speed.md).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from decimal import Decimal
from itertools import pairwise
from typing import Any

from zbackup.archive.chunk import FrameFacts
from zbackup.archive.rows import split_rows
from zbackup.event import Cursor, cursor_of, key_of

# Numpy's linear algebra, of which nothing is used, would start a thread for each core.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

# Frames that are larger have huge rows, of which few bytes are keys.
VECTOR_BYTES = 16 << 20

# So much of a row or field is compared; what is longer is read one by one.
WIDTH = 64
_WORD = 8

_TAB, _NEWLINE, _MINUS, _POINT, _ZERO = b"\t\n-.0"

_MASKS = np.array([[0xFF] * size + [0] * (WIDTH - size) for size in range(WIDTH + 1)], np.uint8).view(np.uint64)
"""by number of bytes: what keeps so many of WIDTH"""

# Odd, and otherwise arbitrary: two different fields with one sum are noticed.
_FACTORS = np.array([pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(1, WIDTH // _WORD + 1)], np.uint64)

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Words = NDArray[np.uint64]


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
    fields = _Fields(rows)
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


class _Fields:
    """
    Where the first fields of whole rows lie; columns are counted from 0.

    Raises ValueError when rows have different numbers of columns, or too few.
    """

    def __init__(self, rows: bytes) -> None:
        seen = np.frombuffer(rows, np.uint8)
        # Both are neighbours, and smaller bytes become large ones: one pass finds the ends of all fields.
        ends = np.flatnonzero((seen - np.uint8(_TAB)) < 2)
        newline = seen[ends] == _NEWLINE
        self.number = int(np.count_nonzero(newline))
        columns, more = divmod(len(ends), self.number)
        if more or columns < 7 or not newline.reshape(self.number, columns)[:, -1].all():
            raise ValueError("rows have different numbers of columns, or fewer than a key")
        ends = ends.reshape(self.number, columns)
        self._ends: list[Numbers] = [ends[:, column] for column in range(5)]
        self._close: Numbers = ends[:, -1]
        self._begin = np.concatenate((np.zeros(1, np.int64), self._close[:-1] + 1))
        short = int(self._ends[3][-1]) + 1 + WIDTH - len(rows)
        self._rows = rows + bytes(short) if short > 0 else rows
        self._seen = np.frombuffer(self._rows, np.uint8) if short > 0 else seen

    def row(self, at: int) -> bytes:
        return self._rows[self._begin[at] : self._close[at] + 1]

    def doubtful(self) -> list[int]:
        """
        Return where a row does not plainly come before the next one.

        Plain is a later time, or a higher place in the same push: natural numbers sort by length, then by digits.
        """
        heads = self._window(self._begin, WIDTH)
        differ = (heads[1:] != heads[:-1]).argmax(axis=1)
        pairs = np.arange(self.number - 1)
        less = heads[pairs, differ] < heads[pairs + 1, differ]
        created, position, order = (end - self._begin for end in self._ends[:3])
        digits = order - position
        later = less & (differ <= np.minimum(created[:-1], created[1:]))
        same_push = (differ > position[:-1]) & (position[:-1] == position[1:])
        natural = self._seen[self._ends[1][:-1] + 1] != _MINUS
        longer = digits[:-1] < digits[1:]
        alike = (digits[:-1] == digits[1:]) & (differ < order[:-1])
        plain = later | (same_push & natural & (longer | (alike & less)))
        return np.flatnonzero(~plain).tolist()

    def tally(self, column: int) -> Counter[bytes]:
        """Count rows by what they have in a column."""
        starts, ends = self._ends[column - 1] + 1, self._ends[column]
        lengths = ends - starts
        if lengths.max() > WIDTH:
            return Counter(map(self._field, starts.tolist(), ends.tolist()))
        words = self._words(starts, lengths)
        sums = (words * _FACTORS[: words.shape[1]]).sum(axis=1, dtype=np.uint64)
        # Rows that follow one another are mostly alike; of each run the first is looked at.
        runs = np.flatnonzero(np.concatenate((np.ones(1, np.bool_), sums[1:] != sums[:-1])))
        sizes = np.diff(runs, append=self.number)
        _, first, kinds = np.unique(sums[runs], return_index=True, return_inverse=True)
        if (words != words[np.repeat(runs[first[kinds]], sizes)]).any():
            return Counter(map(self._field, starts.tolist(), ends.tolist()))
        counts = np.zeros(len(first), np.int64)
        np.add.at(counts, kinds, sizes)
        found = runs[first]
        return Counter(
            dict(zip(map(self._field, starts[found].tolist(), ends[found].tolist()), counts.tolist(), strict=True))
        )

    def extremes(self, column: int) -> tuple[Decimal, Decimal] | None:
        """Return the least and the greatest of natural numbers with as many digits and decimals; None of others."""
        starts, ends = self._ends[column - 1] + 1, self._ends[column]
        lengths = ends - starts
        size = int(lengths[0])
        if not 0 < size <= WIDTH or (lengths != size).any():
            return None
        texts = self._window(starts, size)
        points = ((texts - np.uint8(_ZERO)) > 9).nonzero()[1]
        if len(points) and (len(points) != self.number or (points != points[0]).any()):
            return None
        if len(points) and (texts[:, points[0]] != _POINT).any():
            return None
        # Such texts sort like the numbers, and as numbers whose first byte counts most.
        words = self._words(starts, lengths).view(">u8").astype(np.uint64)
        least, greatest = (_extreme(words, choose) for choose in (np.min, np.max))
        found = [Decimal(self._field(starts[at], ends[at]).decode()) for at in (least, greatest)]
        return found[0], found[1]

    def _field(self, start: int, end: int) -> bytes:
        return self._rows[start:end]

    def _window(self, starts: Numbers, width: int) -> Bytes:
        """Copy so many bytes from each of the places."""
        return as_strided(self._seen, (len(self._seen) - width + 1, width), (1, 1))[starts]

    def _words(self, starts: Numbers, lengths: Numbers) -> Words:
        """Return fields of up to WIDTH bytes, filled up with zeros, which no text has."""
        number = max(1, -(-int(lengths.max()) // _WORD))
        words = self._window(starts, number * _WORD).view(np.uint64)
        words &= _MASKS[lengths, :number]
        return words


def _extreme(words: Words, choose: Callable[[Words], Any]) -> int:
    """Return where the row is whose words are the least or the greatest."""
    left = np.arange(len(words))
    for column in words.T:
        values = column[left]
        left = left[values == choose(values)]
    return int(left[0])
