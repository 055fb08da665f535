from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from zbackup.archive.manifest import Counted
from zbackup.counting import MOST, counted_at, mark, oldest

START = datetime(2026, 1, 1, tzinfo=UTC)


def hour(number: int) -> datetime:
    return START + timedelta(hours=number)


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(1, 50)), max_size=150))
def test_no_range_looks_counted_later_than_it_was(marks: list[tuple[int, int]]) -> None:
    """
    However ranges are marked and merged, an hour never claims a later count than its last one.
    """
    counted: tuple[Counted, ...] = ()
    truth: dict[int, datetime] = {}
    for step, (lo, length) in enumerate(marks):
        at = START + timedelta(days=step)
        counted = mark(counted, hour(lo), hour(lo + length), at)
        truth.update(dict.fromkeys(range(lo, lo + length), at))

    assert len(counted) <= MOST
    for number, at in truth.items():
        assert counted_at(counted, hour(number), hour(number + 1)) <= at
    assert all(one.hi <= other.lo for one, other in pairwise(counted))


def test_the_oldest_range_is_named() -> None:
    """
    The range counted longest ago is the one shown.
    """
    counted = mark(mark((), hour(0), hour(9), hour(10)), hour(3), hour(5), hour(20))

    found = oldest(counted)

    assert found is not None
    assert (hour(0), hour(3), hour(10)) == (found.lo, found.hi, found.at)
