"""What key columns say, however they are read; and where frames end, however rows come."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rows import EPOCH, histories, history, row
from zbackup.archive import facts
from zbackup.archive.chunk import FrameFacts
from zbackup.archive.facts import inspect_frame, least_sequences
from zbackup.archive.fields import Fields
from zbackup.archive.rows import HUGE_BYTES, created_at, event_frames, last_created, rows_until
from zbackup.event import cursor_of, key_of

Way = Callable[[bytes], FrameFacts]

ONE_BY_ONE: Way = facts.facts_one_by_one
MANY_AT_A_TIME: Way = lambda rows: facts.facts_at_once(Fields(rows), rows)  # noqa: E731


def outcome(way: Way, rows: bytes) -> object:
    """Return what comes out, or why nothing."""
    try:
        return way(rows)
    except ValueError as error:
        return str(error)


def in_parts(rows: bytes) -> FrameFacts:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "PART_BYTES", 150)
        patch.setattr(facts, "_VECTOR_BYTES", 300)
        return inspect_frame(rows, None)


@given(histories, st.randoms(use_true_random=False))
def test_both_ways_say_the_same(rows: list[bytes], random: Random) -> None:
    """
    What numpy finds is what reading each row gives, in order or not, at once or in parts.
    """
    shuffled = random.sample(rows, len(rows))

    assert not isinstance(outcome(ONE_BY_ONE, b"".join(rows)), str)
    for lines in (b"".join(rows), b"".join(shuffled)):
        found = outcome(ONE_BY_ONE, lines)
        assert outcome(MANY_AT_A_TIME, lines) == found
        # Of several pairs in wrong order another one may be named.
        parts = outcome(in_parts, lines)
        assert parts == found or (isinstance(parts, str) and isinstance(found, str))


@given(histories)
def test_rows_are_counted_alike(rows: list[bytes]) -> None:
    """
    With numpy or without, a block has as many rows as it has newlines.
    """
    for number in range(len(rows) + 1):
        block = b"".join(rows[:number])
        assert facts.count_rows(block) == Fields.count(block) == number


def test_a_huge_row_is_counted_in_no_memory() -> None:
    """
    A piece that is one huge row, of which there is memory for few, is not copied to find its end.
    """
    piece = row(EPOCH, payload=" " * (20 << 20))
    assert facts.numpy_fields() is not None
    tracemalloc.start()
    try:
        assert facts.count_rows(piece) == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < len(piece) // 10


@pytest.mark.parametrize(
    "one_after_the_other",
    [
        [row(EPOCH, order=9), row(EPOCH, order=10)],
        [row(EPOCH, order=10), row(EPOCH, order=9)],
        [row(EPOCH, order=-1), row(EPOCH, order=-2)],
        [row(EPOCH, order=-2), row(EPOCH, order=-1)],
        [row(EPOCH, order=5), row(EPOCH, order=-10)],
        [row(EPOCH, order=-10), row(EPOCH, order=5)],
        [row(EPOCH, instance="i\0"), row(EPOCH + timedelta(seconds=1))],
        [row(EPOCH, "abc"), row(EPOCH + timedelta(seconds=1))],
        [row(EPOCH), row(EPOCH + timedelta(seconds=1), "."), row(EPOCH + timedelta(seconds=2))],
        [row(EPOCH), row(EPOCH + timedelta(seconds=1), "1e999999999"), row(EPOCH + timedelta(seconds=2))],
        [row(EPOCH, "9.5"), row(EPOCH, "10.25")],
        [row(EPOCH, "10.25"), row(EPOCH, "9.5")],
        [row(EPOCH, "-10.000000"), row(EPOCH, "-20.000000")],
        [row(EPOCH, "-20.000000"), row(EPOCH, "-10.000000")],
        [row(EPOCH, "1.000000"), row(EPOCH, "1.000000", instance="j")],
        [row(EPOCH, "1.000000", instance="x" * 70), row(EPOCH, "1.000000", instance="x" * 70 + "y")],
        [row(EPOCH, "1.000000", instance="x" * 70 + "y"), row(EPOCH, "1.000000", instance="x" * 70)],
        [row(EPOCH, "1" * 80), row(EPOCH, "1" * 79 + "2")],
        [row(EPOCH, "NaN"), row(EPOCH + timedelta(seconds=1), "NaN")],
        [row(EPOCH, "NaN"), row(EPOCH, "1.000000")],
        [row(EPOCH, "17"), row(EPOCH, "18")],
        [row(EPOCH, "1.500"), row(EPOCH, "12.50")],
        [row(EPOCH, "1e10"), row(EPOCH, "1e11")],
        [row(EPOCH + timedelta(microseconds=100_000)), row(EPOCH + timedelta(microseconds=120_000))],
        [row(EPOCH), row(EPOCH + timedelta(microseconds=1))],
        [row(EPOCH + timedelta(microseconds=1)), row(EPOCH)],
        [row(EPOCH, instance="", kind=""), row(EPOCH + timedelta(seconds=1), instance="i\t", kind="\\")],
    ],
)
def test_both_ways_agree_on_odd_keys(one_after_the_other: list[bytes]) -> None:
    """
    Ties, signs, digits, long and empty fields.
    """
    rows = b"".join(one_after_the_other)

    assert outcome(MANY_AT_A_TIME, rows) == outcome(ONE_BY_ONE, rows)


@given(histories, st.randoms(use_true_random=False))
def test_least_sequences_are_those_of_each_row(rows: list[bytes], random: Random) -> None:
    """
    By aggregate, whatever the ids hold and in whatever order rows come.
    """
    long = row(EPOCH, aggregate="x" * 200, sequence=10**18)
    for shuffled in (random.sample(rows, len(rows)), [*rows, *rows[:1], long], [*rows, row(EPOCH, sequence=-5)]):
        assert least_sequences(b"".join(shuffled)) == least_of(shuffled)


def test_least_sequences_of_many_rows() -> None:
    """
    Numbers of any length, aggregates that come back: numpy has an answer of its own for these.
    """
    random = Random(1)
    rows = [
        row(
            EPOCH,
            aggregate=str(random.randrange(99)),
            kind=random.choice(("user", "org")),
            sequence=10 ** random.randrange(17) + number,
        )
        for number in range(2000)
    ]

    assert Fields(b"".join(rows)).least(3, 5, 6) == least_of(rows)


def least_of(rows: list[bytes]) -> dict[bytes, int]:
    least: dict[bytes, int] = {}
    for line in rows:
        *_, instance, kind, aggregate, sequence = key_of(line)
        key = b"\t".join((instance, kind, aggregate))
        least[key] = min(int(sequence), least.get(key, int(sequence)))
    return least


@pytest.mark.parametrize("at", range(99))
def test_two_rows_in_wrong_order_are_found_anywhere(at: int) -> None:
    """
    The error names both rows, wherever in a frame they are.
    """
    rows = history(100)
    rows[at : at + 2] = reversed(rows[at : at + 2])

    with pytest.raises(ValueError, match=rf"'{at + 1}'.* does not come after .*'{at + 2}'"):
        inspect_frame(b"".join(rows), None)


def test_names_that_are_no_text_are_refused() -> None:
    """
    Bytes that are no UTF-8, or a backslash at the end, are no name of an instance.
    """
    for name in (b"\xff", b"i\\"):
        rows = row(EPOCH).replace(b"\ti\t", b"\t" + name + b"\t")
        with pytest.raises(ValueError, match=r"decode|backslash"):
            inspect_frame(rows, None)


def test_without_numpy_rows_are_read_one_by_one(tmp_path: Path) -> None:
    """
    A processor that numpy's wheels are not made for costs time, not backups.
    """
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").write_text("raise RuntimeError('NumPy was built with baseline optimizations')")
    program = """
import sys
from zbackup.archive.facts import inspect_frame, numpy_fields
print(numpy_fields(), inspect_frame(sys.stdin.buffer.read(), None))
"""
    rows = b"".join(history(10))

    done = subprocess.run(
        [sys.executable, "-c", program], input=rows, capture_output=True, env={"PYTHONPATH": str(tmp_path)}, check=True
    )

    assert done.stdout.decode().strip() == f"None {inspect_frame(rows, None)}"


def test_rows_with_another_number_of_columns_are_refused() -> None:
    """
    A field too many, one too few, a row without an end: no facts are made up.
    """
    first, second, third = history(3)
    for rows in (
        first + second.replace(b"{}", b"{}\t{}") + third,
        first + second.replace(b"\t{}", b"") + third,
        first + second.replace(b"{}", b"{}\t{}") + third.replace(b"\t{}", b""),
        b"a\tb\n" * 3,
    ):
        with pytest.raises(ValueError, match="different numbers of columns"):
            inspect_frame(rows, None)
    for rows in (first + second[:-1], b""):
        with pytest.raises(ValueError, match="no end"):
            inspect_frame(rows, None)


@given(histories, st.integers(1, 2000), st.randoms(use_true_random=False))
def test_frames_do_not_depend_on_how_rows_come(rows: list[bytes], frame_bytes: int, random: Random) -> None:
    """
    Row by row, all at once, or in blocks of any size: the frames are the same.
    """
    edges = sorted({0, *random.choices(range(len(rows) + 1), k=3), len(rows)})
    blocks = [b"".join(rows[start:end]) for start, end in pairwise(edges)]

    frames = list(event_frames(rows, frame_bytes))

    assert list(event_frames(blocks, frame_bytes)) == frames == list(event_frames([b"".join(rows)], frame_bytes))
    assert b"".join(rows) == b"".join(frame.lines for frame in frames)
    assert all(last_created(one.lines) != created_at(other.lines) for one, other in pairwise(frames))
    assert all(len(frame.lines) >= frame_bytes for frame in frames[:-1])


@pytest.mark.parametrize("more", [-1, 0, 700])
@pytest.mark.parametrize("at_once", [1, 300, 10_000])
def test_frames_of_a_large_instant_do_not_depend_on_how_rows_come(more: int, at_once: int) -> None:
    """
    Also where an instant has about as many bytes as are waited for, or several times as many.
    """
    same, later = row(EPOCH), history(5000, start=EPOCH + timedelta(seconds=1))
    for times in (1, 3):
        rows = [
            *history(3, start=EPOCH - timedelta(days=1)),
            *[same] * (times * HUGE_BYTES // len(same) + more),
            *later,
        ]
        blocks = [b"".join(rows[at : at + at_once]) for at in range(0, len(rows), at_once)]

        assert list(event_frames(blocks)) == list(event_frames([b"".join(rows)]))


def test_many_rows_of_one_instant_are_not_held() -> None:
    """
    Rows of an instant that would not end are given on, as parts of one frame.
    """
    before, same, after = history(1), row(EPOCH + timedelta(days=1)), history(1, start=EPOCH + timedelta(days=2))
    number = 5 * HUGE_BYTES // (2 * len(same))
    blocks = [*before, *[same * 1000] * (number // 1000), *after]

    frames = list(event_frames(blocks))

    assert [frame.more for frame in frames] == [True, True, False, False]
    assert max(len(frame.lines) for frame in frames) < HUGE_BYTES + 2000 * len(same)
    assert frames[-1].lines == after[0]
    assert b"".join(blocks) == b"".join(frame.lines for frame in frames)


@given(histories, st.integers(-1, 101), st.booleans())
def test_rows_until_an_instant_are_found(rows: list[bytes], number: int, between: bool) -> None:
    """
    The cut falls behind the last row at or before the instant, wherever that is.
    """
    created = [cursor_of(row).created_at for row in rows]
    instant = created[number % len(created)] if created else EPOCH
    at = instant - timedelta(microseconds=1) if between else instant

    assert rows_until(b"".join(rows), at) == b"".join(
        row for row, when in zip(rows, created, strict=True) if when <= at
    )
