"""
Where the key fields of rows lie, found and compared many at a time.

numpy does it in a few passes over the bytes, which takes half of the time that it takes to cut rows up, and lets
other threads go on meanwhile (docs/decisions/0005-speed.md).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from zbackup.event import KEY_COLUMNS

# So much of a row is compared with the next one: its time, position and order have some 50 bytes.
HEAD = 64

# Texts up to so many bytes are grouped and compared as words; an aggregate's key has some 60.
WIDTH = 128
_WORD = 8

# Texts of more digits may not fit into a word.
_DIGITS = 18

_TAB, _NEWLINE, _MINUS, _POINT, _ZERO = b"\t\n-.0"

_MASKS = np.array([[0xFF] * size + [0] * (WIDTH - size) for size in range(WIDTH + 1)], np.uint8).view(np.uint64)
"""by number of bytes: what keeps so many of WIDTH"""

# Odd, and otherwise arbitrary: two different texts with one sum are noticed.
_FACTORS = np.array([pow(0x9E3779B97F4A7C15, power, 1 << 64) for power in range(1, WIDTH // _WORD + 1)], np.uint64)

Bytes = NDArray[np.uint8]
Numbers = NDArray[np.int64]
Words = NDArray[np.uint64]


class Fields:
    """
    The key fields of whole rows, columns counted from 0.

    Raises ValueError when rows have different numbers of columns, or too few.
    """

    def __init__(self, rows: bytes) -> None:
        seen = np.frombuffer(rows, np.uint8)
        # Both are neighbours, and smaller bytes become large ones: one pass finds the ends of all fields.
        ends = np.flatnonzero((seen - np.uint8(_TAB)) < 2)
        newline = seen[ends] == _NEWLINE
        self.number = int(np.count_nonzero(newline))
        """of rows"""
        columns, more = divmod(len(ends), self.number)
        if more or columns < len(KEY_COLUMNS) or not newline.reshape(self.number, columns)[:, -1].all():
            raise ValueError("rows have different numbers of columns, or fewer than a key")
        ends = ends.reshape(self.number, columns)
        self._close: Numbers = ends[:, -1]
        self._begin = np.concatenate((np.zeros(1, np.int64), self._close[:-1] + 1))
        self._ends: list[Numbers] = [ends[:, column] for column in range(len(KEY_COLUMNS))]
        short = int(self._ends[-2][-1]) + 1 + WIDTH - len(rows)
        self._rows = rows + bytes(short) if short > 0 else rows
        self._seen = np.frombuffer(self._rows, np.uint8) if short > 0 else seen

    @staticmethod
    def count(rows: bytes) -> int:
        return int(np.count_nonzero(np.frombuffer(rows, np.uint8) == _NEWLINE))

    def row(self, at: int) -> bytes:
        return self._rows[self._begin[at] : self._close[at] + 1]

    def doubtful(self) -> list[int]:
        """
        Return where a row does not plainly come before the next one.

        Plain is a later time, or a higher place in the same push: natural numbers sort by length, then by digits.
        """
        heads = self._window(self._begin, HEAD)
        differ = (heads[1:] != heads[:-1]).argmax(axis=1)
        pairs = np.arange(self.number - 1)
        less = heads[pairs, differ] < heads[pairs + 1, differ]
        created, position, order = (end - self._begin for end in self._ends[:3])
        digits = order - position
        later = less & (differ <= np.minimum(created[:-1], created[1:]))
        same_push = (differ > position[:-1]) & (position[:-1] == position[1:])
        signs = self._seen[self._ends[1] + 1] != _MINUS
        natural = signs[:-1] & signs[1:]
        longer = digits[:-1] < digits[1:]
        alike = (digits[:-1] == digits[1:]) & (differ < order[:-1])
        plain = later | (same_push & natural & (longer | (alike & less)))
        return np.flatnonzero(~plain).tolist()

    def tally(self, column: int) -> Counter[bytes]:
        """Count rows by what they have in a column."""
        starts, ends = self._places(column, column)
        groups = self._groups(starts, ends)
        if groups is None:
            return Counter(self._texts(starts, ends))
        first, group = groups
        counts = np.bincount(group).tolist()
        return Counter(dict(zip(self._texts(starts[first], ends[first]), counts, strict=True)))

    def least(self, first: int, last: int, column: int) -> dict[bytes, int] | None:
        """
        Return the least number in a column by what rows have from a first to a last one.

        None where texts are too long, or no natural numbers.
        """
        starts, ends = self._places(first, last)
        groups, numbers = self._groups(starts, ends), self._numbers(column)
        if groups is None or numbers is None:
            return None
        leaders, group = groups
        least = np.full(len(leaders), np.iinfo(np.int64).max)
        np.minimum.at(least, group, numbers)
        return dict(zip(self._texts(starts[leaders], ends[leaders]), least.tolist(), strict=True))

    def extremes(self, column: int) -> tuple[Decimal, Decimal] | None:
        """Return the least and the greatest of natural numbers with as many digits and decimals; None of others."""
        starts, ends = self._places(column, column)
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
        found = np.array([_extreme(words, choose) for choose in (np.min, np.max)])
        least, greatest = self._texts(starts[found], ends[found])
        return Decimal(least.decode()), Decimal(greatest.decode())

    def _places(self, first: int, last: int) -> tuple[Numbers, Numbers]:
        return (self._ends[first - 1] + 1 if first else self._begin), self._ends[last]

    def _texts(self, starts: Numbers, ends: Numbers) -> list[bytes]:
        return [self._rows[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]

    def _groups(self, starts: Numbers, ends: Numbers) -> tuple[Numbers, Numbers] | None:
        """Return the first row of each group with one text, and the group of each row; None where texts are long."""
        lengths = ends - starts
        if lengths.max() > WIDTH:
            return None
        words = self._words(starts, lengths)
        sums = (words * _FACTORS[: words.shape[1]]).sum(axis=1, dtype=np.uint64)
        # Rows that follow one another are often alike; of each run the first is looked at.
        runs = np.flatnonzero(np.concatenate((np.ones(1, np.bool_), sums[1:] != sums[:-1])))
        _, first, kinds = np.unique(sums[runs], return_index=True, return_inverse=True)
        group = np.repeat(kinds, np.diff(runs, append=self.number))
        leaders = runs[first]
        if (words != words[leaders[group]]).any() or (lengths != lengths[leaders[group]]).any():
            return None
        return leaders, group

    def _numbers(self, column: int) -> Numbers | None:
        """Read natural numbers; None where some are none, or have too many digits."""
        starts, ends = self._places(column, column)
        lengths = ends - starts
        most = int(lengths.max())
        if not 0 < lengths.min() <= most <= _DIGITS:
            return None
        digits = self._window(starts, most) - np.uint8(_ZERO)
        numbers = np.zeros(self.number, np.int64)
        for place in range(most):
            there = place < lengths
            if (digits[there, place] > 9).any():
                return None
            numbers = np.where(there, numbers * 10 + digits[:, place], numbers)
        return numbers

    def _window(self, starts: Numbers, width: int) -> Bytes:
        """Copy so many bytes from each of the places."""
        return as_strided(self._seen, (len(self._seen) - width + 1, width), (1, 1))[starts]

    def _words(self, starts: Numbers, lengths: Numbers) -> Words:
        """Return texts of up to WIDTH bytes, filled up with zeros."""
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
