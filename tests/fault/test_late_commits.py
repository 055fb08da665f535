"""
Nothing that commits late is lost: writers and backups interleaved by a seed, on a real PostgreSQL.

`scripts/soak late` plays thousands of them; tests/late.py says what happens in one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.fix_archive import Backup, archived_rows, source_rows
from tests.fix_postgres import SETTINGS
from tests.history import create_schema, push
from tests.late import Act, perform, schedule
from zbackup.archive.archive import Archive
from zbackup.database.embedded import EmbeddedPostgres, standby_of

SEEDS = range(6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS)
def test_log_and_tail_are_what_each_snapshot_saw(seed: int, archive: Archive, new_database: Callable[[], str]) -> None:
    """
    Whatever is open, prepared, rolled back or hidden when a backup runs: it holds what its snapshot saw, nothing
    sealed ever changes, and instants come back as the oracle says.
    """
    tally = perform(seed, archive, new_database)

    assert tally.backups > 5
    assert tally.events > 20


@pytest.fixture
def pair(pg_version: int) -> Iterator[tuple[EmbeddedPostgres, EmbeddedPostgres]]:
    with (
        EmbeddedPostgres(version=pg_version, settings=SETTINGS, port=0) as primary,
        standby_of(primary) as standby,
    ):
        yield primary, standby


@pytest.mark.slow
@pytest.mark.parametrize("seed", [12, 13])
def test_so_they_are_on_a_standby(seed: int, archive: Archive, pair: tuple[EmbeddedPostgres, EmbeddedPostgres]) -> None:
    """
    The same of a hot standby with its primary as the fence, which replays what was committed or does not yet.
    """
    primary, standby = pair
    names = iter(range(100))

    def new() -> str:
        name = f"late{next(names)}"
        with psycopg.connect(primary.dsn(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        return primary.dsn(name)

    tally = perform(seed, archive, new, standby=lambda dsn: standby.dsn(str(conninfo_to_dict(dsn)["dbname"])))

    assert tally.backups > 5


def test_a_standby_sees_what_was_in_progress(
    pair: tuple[EmbeddedPostgres, EmbeddedPostgres], archive: Archive, back_up: Backup
) -> None:
    """
    What a transaction with a savepoint has not committed yet is neither lost to the next backup nor spoilt on
    the standby, events and other tables alike.
    """
    primary, standby = pair
    with psycopg.connect(primary.dsn(), autocommit=True) as writer:
        create_schema(writer)
        writer.execute("INSERT INTO system.encryption_keys VALUES ('first', 'x')")
        back_up(standby.dsn(), fence=primary.dsn(), capture=True)
        writer.execute("BEGIN")
        writer.execute("SAVEPOINT here")
        push(writer, "i", ("user", "late"))
        writer.execute("INSERT INTO system.encryption_keys VALUES ('late', 'x')")
        with psycopg.connect(primary.dsn()) as other:
            push(other, "i", ("user", "other"))
        held = back_up(standby.dsn(), fence=primary.dsn(), capture=True)
        writer.execute("COMMIT")

        back_up(standby.dsn(), fence=primary.dsn(), capture=True)

    assert held.tail == 1
    assert source_rows(primary.dsn()) == source_rows(standby.dsn()) == archived_rows(archive)
    keys = "SELECT id FROM system.encryption_keys ORDER BY 1"
    with psycopg.connect(standby.dsn()) as connection:
        assert connection.execute(keys).fetchall() == [("first",), ("late",)]


def test_the_schedules_hold_what_they_promise() -> None:
    """
    A seed gives the same schedule each time, and a few of them everything that can be done.
    """
    plans = [schedule(seed) for seed in range(30)]

    def flat(acts: tuple[Act, ...]) -> Iterator[Act]:
        for act in acts:
            yield act
            yield from flat((*act.waiting, *act.unseen, *act.meanwhile))

    acts = [act for plan in plans for act in flat(plan.acts)]
    assert plans == [schedule(seed) for seed in range(30)]
    assert {act.verb for act in acts} == {
        "begin", "push", "savepoint", "rollback to", "fail", "commit", "rollback", "prepare",
        "commit prepared", "rollback prepared", "call", "resume", "backup",
    }  # fmt: skip
    assert {act.clock for act in acts} == {"now", "statement_timestamp", "clock_timestamp"}
    assert {plan.reader for plan in plans} == {"seeing", "blind"}
    assert {kind for plan in plans for kind in plan.kinds} == {"other", "own", "silent"}
    assert any(each.verb == "backup" for act in acts for each in act.meanwhile), "backups overlap"
