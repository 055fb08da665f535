"""
Withheld events against a plain oracle in SQL: real transactions that overlap, and random histories.

The oracle is a recursive query over the whole source, written from the rule and from nothing else.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.archived import Maker, created
from tests.history import create_schema, push
from tests.integration.test_restore import connected, copy_into, dumped
from tests.unit.rows import EPOCH, row
from zbackup.archive.archive import Archive
from zbackup.archive.withhold import MIGRATION, withheld
from zbackup.database.cut import find_withheld, stage_after
from zbackup.database.edits import MOST_LISTED
from zbackup.database.export import relation
from zbackup.database.target import restoring
from zbackup.event import MICROSECOND, cursor_of, instant_text, unescape
from zbackup.moment import Instant
from zbackup.plan import plan, resolve
from zbackup.progress import silent
from zbackup.restore import RestoreOptions, restore
from zbackup.state import State

ORACLE = """
WITH RECURSIVE
    migration AS (
        SELECT max(created_at) AS at FROM eventstore.events2
         WHERE aggregate_type = 'system' AND event_type = 'system.migration.started'
           AND payload->>'name' = '14_events_push'),
    event AS (
        SELECT * FROM eventstore.events2
         WHERE NOT (instance_id = '' AND aggregate_type = 'system' AND aggregate_id = 'SYSTEM')),
    gone AS (
        SELECT e.instance_id, e.aggregate_type, e.aggregate_id, e."sequence", e.created_at
          FROM event e
         WHERE e.created_at <= %(at)s AND EXISTS (
            SELECT FROM event l, migration m
             WHERE l.instance_id = e.instance_id AND l.aggregate_type = e.aggregate_type
               AND l.aggregate_id = e.aggregate_id AND l."sequence" < e."sequence"
               AND l.created_at > %(at)s AND (m.at IS NULL OR l.created_at >= m.at))
        UNION
        SELECT e.instance_id, e.aggregate_type, e.aggregate_id, e."sequence", e.created_at
          FROM gone g JOIN event e ON e.created_at <= %(at)s AND e.instance_id = g.instance_id
           AND (e.created_at = g.created_at OR (e.aggregate_type = g.aggregate_type
                AND e.aggregate_id = g.aggregate_id AND e."sequence" > g."sequence")))
SELECT instance_id, aggregate_type, aggregate_id, "sequence" FROM gone
"""

Key = tuple[bytes, bytes, bytes, int]


def oracle(connection: psycopg.Connection[Any], at: datetime) -> set[Key]:
    """Ask the source which events a restore of an instant leaves out."""
    return keys(connection.execute(ORACLE, {"at": at}))


def keys(rows: Iterable[tuple[Any, ...]]) -> set[Key]:
    return {(one.encode(), two.encode(), three.encode(), int(sequence)) for one, two, three, sequence in rows}


def key_of(line: bytes) -> Key:
    cursor = cursor_of(line)
    return cursor.instance_id, cursor.aggregate_type, cursor.aggregate_id, cursor.sequence


def between(rows: list[bytes]) -> Iterator[datetime]:
    """Yield each instant of an event and the one just before it."""
    for instant in sorted({created(line) for line in rows})[1:]:
        yield instant - MICROSECOND
        yield instant


@pytest.fixture
def source(database: str) -> Iterator[psycopg.Connection[Any]]:
    with connected(database) as connection:
        create_schema(connection, state=False)
        yield connection


@pytest.fixture
def maker(tmp_path: Path) -> Maker:
    return Maker.at(tmp_path / "archive", chunk_rows=3, frame_bytes=100)


# Transactions that overlap


def overlapping(dsn: str, source: psycopg.Connection[Any]) -> None:
    """
    Two transactions and more, each begun before another one's push and pushing after it.

    With clock `now` an event has the time of its transaction's beginning, as in v2.66 to v4.1 and on main.
    """
    user, org, lone = ("user", "u"), ("org", "o"), ("user", "lone")

    def pushed(connection: psycopg.Connection[Any], *commands: tuple[str, str], instance: str = "i") -> None:
        push(connection, instance, *commands, clock="now")

    pushed(source, user, org, lone)
    with psycopg.connect(dsn) as early, psycopg.connect(dsn) as later:
        early.execute("SELECT 1")
        later.execute("SELECT 1")
        pushed(source, user)  # seen by both, whose times are older
        pushed(early, user, org)
        early.commit()
        pushed(source, org, ("user", "v"))
        pushed(later, ("user", "v"), ("user", "w"))
        later.commit()
        pushed(source, lone)
        early.execute("SELECT 1")
        pushed(source, ("user", "w"), user, instance="i")
        pushed(source, user, instance="j")
        pushed(early, user, instance="j")
        pushed(early, lone)
        early.commit()
    pushed(source, user, org, lone, ("user", "w"))


def test_overlapping_transactions(
    database: str, source: psycopg.Connection[Any], maker: Maker, new_database: Callable[[], str]
) -> None:
    """
    At every instant between overlapping transactions a restore leaves out exactly what the oracle says.
    """
    overlapping(database, source)
    rows = dumped(database)
    maker.backup(rows, horizon=created(rows[-1]) + MICROSECOND, snapshot=created(rows[-1]) + timedelta(seconds=1))
    some = 0

    for at in between(rows):
        point = Instant(at, instant_text(at))
        gone = oracle(source, at)
        target = new_database()
        result = restore(maker.archive, target, point, RestoreOptions(proof="full", events_only=True))

        assert dumped(target) == [line for line in rows if created(line) <= at and key_of(line) not in gone]
        assert b"".join(dumped(target)) == alone(maker.archive, point)
        assert keys(event[3:] for event in result.withheld_events) == gone
        assert result.withheld == len(gone)
        estimate = plan(maker.archive, point).estimate
        assert estimate is not None
        assert estimate.withheld == len(gone)
        assert result.events == estimate.events - estimate.withheld
        some += bool(gone)
    assert some > 4


def test_each_aggregate_keeps_a_prefix(database: str, source: psycopg.Connection[Any]) -> None:
    """
    The overlaps of the test above do tear aggregates apart: a plain cut would leave holes.
    """
    overlapping(database, source)
    rows = dumped(database)

    torn = 0
    for at in between(rows):
        found = source.execute(
            """SELECT count(*) FROM (SELECT FROM eventstore.events2 WHERE created_at <= %s
                GROUP BY instance_id, aggregate_type, aggregate_id HAVING max("sequence") > count(*)) holes""",
            (at,),
        ).fetchone()
        assert found is not None
        torn += bool(found[0])
    assert torn > 4


def alone(archive: Archive, point: Instant) -> bytes:
    """Read from the archive alone what a restore brings back."""
    return b"".join(block.rows for block in State.of(archive, resolve(archive, point)).blocks())


# Random histories


def random_history(seed: int) -> list[bytes]:
    """Small aggregates in an order that no server would write: every rule applies somewhere."""
    rng = random.Random(seed)
    span = rng.choice((8, 30, 200))
    kinds = rng.choices([("", "org"), ("i", "user"), ("i", "org"), ("j\t\\", "user")], k=rng.randrange(150))
    names = {(*kind, f"{kind[1]}{rng.randrange(6)}", rng.randrange(1, 12)) for kind in kinds}
    rows = [
        row(at, order=number, instance=instance, kind=kind, aggregate=aggregate, sequence=sequence)
        for number, (instance, kind, aggregate, sequence) in enumerate(sorted(names))
        for at in [EPOCH + timedelta(seconds=rng.randrange(span))]
    ]
    for sequence in range(rng.randrange(6)):
        second = rng.randrange(span)
        name = MIGRATION if sequence == 3 else "15_other"
        rows.append(
            row(
                EPOCH + timedelta(seconds=second),
                instance="",
                kind="system",
                aggregate="SYSTEM",
                sequence=sequence,
                event="system.migration.started",
                payload=json.dumps({"name": name}),
            )
        )
    return rows


def in_sql(connection: psycopg.Connection[Any], archive: Archive, at: datetime) -> set[Key]:
    """Load what is at or before an instant, and let the restore's own SQL choose."""
    made = resolve(archive, Instant(at, instant_text(at)))
    connection.execute("DROP TABLE IF EXISTS eventstore.events2_restoring, zbackup_after, zbackup_withheld")
    connection.execute("CREATE TABLE eventstore.events2_restoring (LIKE eventstore.events2 INCLUDING INDEXES)")
    connection.execute(
        "INSERT INTO eventstore.events2_restoring SELECT * FROM eventstore.events2 WHERE created_at <= %s", (at,)
    )
    stage_after(connection, made, at, archive.read, silent)
    found = find_withheld(connection, relation(restoring(made.table)))
    rows = connection.execute(
        'SELECT instance_id, aggregate_type, aggregate_id, "sequence" FROM zbackup_withheld'
    ).fetchall()
    assert found == len(rows)
    return keys(rows)


@pytest.mark.parametrize("seed", range(12))
def test_random_histories(
    seed: int, source: psycopg.Connection[Any], maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    For any history and any instant SQL, Python, the archive alone and the oracle choose the same events.
    """
    monkeypatch.setattr("zbackup.database.cut.AGGREGATES_AT_ONCE", 2)
    rows = random_history(seed)
    copy_into(source, rows)
    end = EPOCH + timedelta(seconds=300)
    maker.backup(rows, horizon=end, snapshot=end)
    instants = list(between(rows))

    for at in random.Random(seed).sample(instants, min(12, len(instants))):
        before = [cursor_of(line) for line in rows if created(line) <= at]
        after = [cursor_of(line) for line in rows if created(line) > at]
        migrated = max((created(line) for line in rows if MIGRATION.encode() in line), default=None)
        memory = {
            (one.instance_id, one.aggregate_type, one.aggregate_id, one.sequence)
            for one in withheld(before, after, migrated)
        }

        assert memory == oracle(source, at)
        assert in_sql(source, maker.archive, at) == memory
        state = State.of(maker.archive, resolve(maker.archive, Instant(at, instant_text(at))))
        assert {tuple(map(unescape, key)) for key in state.withheld} == {(*key[:3], b"%d" % key[3]) for key in memory}


def test_only_the_first_withheld_events_are_listed(maker: Maker, database: str) -> None:
    """
    The number is exact, the list is cut.
    """
    many = [row(EPOCH + timedelta(seconds=1), order=number, sequence=number) for number in range(2, MOST_LISTED + 12)]
    first, lower = row(EPOCH, aggregate="x"), row(EPOCH + timedelta(seconds=3))
    maker.backup([first, *many, lower], horizon=EPOCH + timedelta(seconds=5), snapshot=EPOCH + timedelta(seconds=6))
    at = EPOCH + timedelta(seconds=2)

    result = restore(maker.archive, database, Instant(at, instant_text(at)), RestoreOptions(events_only=True))

    assert (result.events, result.withheld, len(result.withheld_events)) == (1, MOST_LISTED + 10, MOST_LISTED)
    assert dumped(database) == [first]
