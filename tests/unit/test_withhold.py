"""Which events are withheld: the rule itself against plain sets, and the reduction that feeds the SQL."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.rows import EPOCH, row
from zbackup.archive.withhold import EXEMPT, MIGRATION, LeastAfter, aggregate_of, withheld
from zbackup.event import END, Cursor
from zbackup.zitadel.events import COLUMN_ORDER


def at(second: int) -> datetime:
    return EPOCH + timedelta(seconds=second)


def event(second: int, aggregate: str, sequence: int, *, instance: str = "i", kind: str = "user") -> Cursor:
    return Cursor(at(second), Decimal(second), sequence, instance.encode(), kind.encode(), aggregate.encode(), sequence)


def by_definition(before: Iterable[Cursor], after: Iterable[Cursor], migrated: datetime | None) -> set[Cursor]:
    """The rule as it is written, without any thought of speed."""
    candidates = [one for one in before if aggregate_of(one) != EXEMPT]
    causes = [one for one in after if migrated is None or one.created_at >= migrated]
    found: set[Cursor] = set()
    while True:
        more = {
            one
            for one in candidates
            if any(aggregate_of(one) == aggregate_of(two) and one.sequence > two.sequence for two in causes)
            or any((one.instance_id, one.created_at) == (two.instance_id, two.created_at) for two in found)
            or any(aggregate_of(one) == aggregate_of(two) and one.sequence > two.sequence for two in found)
        }
        if more <= found:
            return found
        found |= more


events = st.lists(
    st.builds(
        event,
        st.integers(0, 12),
        st.sampled_from("abcd"),
        st.integers(1, 6),
        instance=st.sampled_from(("", "i", "j")),
        kind=st.sampled_from(("user", "org")),
    )
    | st.builds(
        event, st.integers(0, 12), st.just("SYSTEM"), st.integers(1, 6), instance=st.just(""), kind=st.just("system")
    ),
    max_size=40,
    unique_by=lambda one: (aggregate_of(one), one.sequence),
)


@given(events, st.integers(0, 12), st.none() | st.integers(0, 12))
def test_the_rule_is_followed_to_its_end(history: list[Cursor], cut: int, migration: int | None) -> None:
    """
    The quick closure is the one that the definition gives.
    """
    before = [one for one in history if one.created_at <= at(cut)]
    after = [one for one in history if one.created_at > at(cut)]
    migrated = None if migration is None else at(migration)

    assert withheld(before, after, migrated) == by_definition(before, after, migrated)


@given(events, st.integers(0, 12))
def test_what_is_left_are_prefixes_and_whole_pushes(history: list[Cursor], cut: int) -> None:
    """
    Every aggregate keeps a prefix of its history, every push is kept whole or not at all.
    """
    before = {one for one in history if one.created_at <= at(cut)}
    kept = before - withheld(before, set(history) - before)

    for one in history:
        if aggregate_of(one) == EXEMPT:
            continue
        for other in kept:
            if aggregate_of(one) == aggregate_of(other) and one.sequence < other.sequence:
                assert one in kept
            if one not in kept and (one.instance_id, one.created_at) == (other.instance_id, other.created_at):
                assert aggregate_of(other) == EXEMPT


def test_a_long_chain_is_followed() -> None:
    """
    Pushes that each touch two aggregates carry the cut on, one to the next.
    """
    before = [event(number, f"a{number}", 2) for number in range(1, 500)]
    before += [event(number, f"a{number + 1}", 1) for number in range(1, 500)]

    assert len(withheld(before, [event(1000, "a1", 1)])) == len(before)


def test_sequences_from_before_the_migration_are_no_cause() -> None:
    """
    The older table's instance-wide sequences make gaps that say nothing.
    """
    before, after = [event(1, "a", 7)], [event(2, "a", 5)]

    assert withheld(before, after, at(3)) == set()
    assert withheld(before, after, at(2)) == set(before)


def test_system_events_are_exempt() -> None:
    """
    system/SYSTEM of the system is neither a cause nor withheld, not even with its push.
    """
    exempt = {"instance": "", "kind": "system"}
    before = [
        event(1, "SYSTEM", 2, **exempt),
        event(1, "SYSTEM", 1, instance="", kind="permission"),
        event(1, "x", 2, instance=""),
    ]

    assert withheld(before, [event(2, "SYSTEM", 1, **exempt)]) == set()
    assert withheld(before, [event(2, "x", 1, instance="")]) == set(before[1:])


# The reduction


def line(second: int, aggregate: str, sequence: int, payload: str = "{}") -> bytes:
    return row(at(second), aggregate=aggregate, sequence=sequence, payload=payload)


def started(second: int, name: str = MIGRATION) -> bytes:
    return row(
        at(second),
        instance="",
        kind="system",
        aggregate="SYSTEM",
        sequence=second,
        event="system.migration.started",
        payload=json.dumps({"name": name}),
    )


def reduced(*frames: bytes, cut: int = 0, until: datetime = END) -> tuple[dict[bytes, int], list[bool]]:
    least = LeastAfter(at(cut), until, COLUMN_ORDER)
    void = [least.add(frame) for frame in frames]
    return least.take(), void


def test_the_least_sequence_after_t_is_noted() -> None:
    """
    Rows at T and before it do not count, nor do those beyond the end.
    """
    rows = line(1, "a", 1) + line(2, "a", 9) + line(3, "a", 7) + line(4, "b\t", 3) + line(5, "a", 2)

    assert reduced(rows, cut=1, until=at(4))[0] == {b"i\tuser\ta": 7, b"i\tuser\tb\\t": 3}


def test_the_migration_makes_void_what_was_before_it() -> None:
    """
    What was noted, and taken away, before the start of the migration was seen does not count any more.
    """
    frames = line(1, "a", 5), line(2, "b", 5) + started(3) + line(4, "c", 5)

    assert reduced(*frames) == ({b"i\tuser\tc": 5}, [False, True])
    assert reduced(line(1, "a", 5) + started(3, "15_other")) == ({b"i\tuser\ta": 5}, [False])
    assert reduced(started(1), line(2, "a", 5), cut=1) == ({b"i\tuser\ta": 5}, [False, False])


def test_a_migration_beyond_the_end_does_not_count() -> None:
    """
    Nothing that the answering backup could not have seen does, in whichever frames the rows come.
    """
    rows = line(1, "a", 5), started(2, "15_other"), started(9)

    assert reduced(*rows, until=at(4)) == ({b"i\tuser\ta": 5}, [False, False, False])
    assert reduced(b"".join(rows), until=at(4)) == ({b"i\tuser\ta": 5}, [False])


def test_a_mention_of_the_migration_is_none() -> None:
    """
    A name in some other event's payload moves nothing.
    """
    frames = line(1, "a", 5), line(2, "b", 5, payload=json.dumps({"name": MIGRATION}))

    assert reduced(*frames) == ({b"i\tuser\ta": 5, b"i\tuser\tb": 5}, [False, False])
