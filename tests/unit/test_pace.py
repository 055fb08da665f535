"""How long to rest, and how much to read at once, on a clock of the test's own."""

from __future__ import annotations

import threading
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zbackup.database.pace import GROWTH, PORTION_BYTES, Bucket, Pace
from zbackup.errors import Interrupted


@given(st.lists(st.tuples(st.integers(0, 10**7), st.floats(0, 10)), min_size=1), st.integers(1, 10**9))
def test_no_more_is_paid_for_than_the_rate_allows(takings: list[tuple[int, float]], rate: int) -> None:
    """
    Since any instant, what was taken is not paid for before the rate allows so much, and idle time saves nothing up.
    """
    bucket = Bucket(rate)
    instants = list(accumulate(pause for _, pause in takings))
    paid: list[float] = []
    for now, (amount, _) in zip(instants, takings, strict=True):
        bucket.take(amount, now)
        paid.append(bucket.paid)

    for first, begun in enumerate(instants):
        taken = sum(amount for amount, _ in takings[first:])
        assert paid[-1] >= (begun + taken / rate) * (1 - 1e-9)


def test_a_bucket_makes_nobody_wait_below_its_rate() -> None:
    bucket = Bucket(100)
    bucket.take(50, 10.0)
    assert bucket.paid == 10.5
    bucket.take(100, 30.0)

    assert bucket.paid == 31.0


def test_workers_pay_out_of_one_bucket() -> None:
    """
    What one worker has read, the other rests for, too.
    """
    pace = Pace(1000)
    pace.count(500, 7.0)
    pace.count(500, 7.0)

    assert pace.rest(6.9, 7.25) == pytest.approx(0.75)


def test_low_impact_rests_as_long_as_it_worked() -> None:
    assert Pace(low_impact=True).rest(3.0, 3.5) == 0.5


def test_low_impact_and_a_rate_hold_together() -> None:
    """
    The longer of both rests is taken: neither promise is broken for the other.
    """
    pace = Pace(1000, low_impact=True)
    pace.count(100, 5.0)

    assert pace.rest(3.0, 5.0) == 2.0
    pace.count(5000, 5.0)
    assert pace.rest(3.0, 5.0) == pytest.approx(5.1)


def test_without_a_wish_there_is_no_rest_and_no_portion() -> None:
    pace = Pace()
    pace.count(10**9)

    assert pace.rest(0, 100) == 0
    assert pace.portion_bytes is None


@pytest.mark.parametrize(
    ("pace", "portion"),
    [
        (Pace(low_impact=True), PORTION_BYTES),
        (Pace(1 << 20), 512 << 10),
        (Pace(1 << 20, low_impact=True), 512 << 10),
        (Pace(100 << 20, low_impact=True), PORTION_BYTES),
    ],
    ids=["low impact", "rate", "both, a low rate", "both, a high rate"],
)
def test_portions_suit_rate_and_low_impact(pace: Pace, portion: int) -> None:
    assert pace.portion_bytes == portion


@given(st.integers(1, 10**6), st.integers(0, 10**12))
def test_portions_come_near_the_bytes_wanted(units: int, read_bytes: int) -> None:
    """
    The next portion holds about the bytes wanted if its rows are like the last ones, and is never empty.
    """
    wanted = Pace(low_impact=True).next_portion(units, read_bytes)

    assert 1 <= wanted <= units * GROWTH
    if 1 < wanted < units * GROWTH:
        assert PORTION_BYTES - read_bytes / units < wanted * read_bytes / units <= PORTION_BYTES


def test_who_rests_is_woken_when_the_run_stops() -> None:
    """
    A rest of an hour ends with the run, and nothing is read after it.
    """
    pace = Pace(1)
    pace.count(3600)
    resting = threading.Event()
    ended: list[str] = []

    def work() -> None:
        try:
            with pace.statement():
                resting.set()
            ended.append("rested")
        except Interrupted:
            ended.append("stopped")

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    assert resting.wait(60)
    pace.stop()
    worker.join(60)

    assert ended == ["stopped"]
