from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import psycopg
import pytest

from tests.fix_archive import Backup, archived_rows, execute, newest, restored, source_rows
from tests.history import Command, create_schema, fill, push
from zbackup.archive.archive import Archive
from zbackup.counting import oldest
from zbackup.event import cursor_of, instant_text
from zbackup.verify import verify

OLD = "(SELECT min(created_at) + interval '2 seconds' FROM eventstore.events2)"


@pytest.fixture
def source(database: str) -> str:
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=3000, seed=11)
    return database


def middle(dsn: str) -> str:
    rows = source_rows(dsn)
    return instant_text(cursor_of(rows[len(rows) // 2]).created_at)


def insert_old(dsn: str, events: int = 1) -> None:
    """Insert events in the middle of the history, as `zitadel mirror` or an operator does."""
    with psycopg.connect(dsn) as connection:
        at = cursor_of(source_rows(dsn)[1500]).created_at + timedelta(microseconds=1)
        commands = [Command("user", f"late{number}", payload={"late": number}) for number in range(events)]
        push(connection, "late", *commands, clock=at)


def test_rows_that_come_late_are_found_and_amended(archive: Archive, source: str, back_up: Backup) -> None:
    """
    Old-dated rows far below the horizon are found by the rolling count, added, and counted.
    """
    back_up()
    insert_old(source, 3)

    result = back_up()

    assert 3 == result.amended == result.amendments[0].added
    assert any("3 came late" in warning for warning in result.warnings)
    assert source_rows(source) == archived_rows(archive)
    assert verify(archive, level="full", source=source).ok


def test_rows_that_vanish_are_found(archive: Archive, source: str, back_up: Backup) -> None:
    """
    Rows deleted at the source leave the newest log; older backups still hold them.
    """
    back_up()
    before, old = source_rows(source), newest(archive)
    execute(source, f"DELETE FROM eventstore.events2 WHERE created_at < {OLD}")

    result = back_up()

    assert len(before) - len(source_rows(source)) == result.amendments[0].removed > 0
    assert source_rows(source) == archived_rows(archive)
    assert before == archived_rows(archive, old)


def test_rows_rewritten_in_place_are_found(archive: Archive, source: str, back_up: Backup) -> None:
    """
    An upgrade that corrects owners changes no count; the counter of updated rows gives it away.
    """
    back_up()
    execute(source, f"UPDATE eventstore.events2 SET owner = 'corrected' WHERE created_at < {OLD}")

    result = back_up()

    assert result.amendments[0].changed > 0
    assert (0, 0) == (result.amendments[0].added, result.amendments[0].removed)
    assert source_rows(source) == archived_rows(archive)


def test_a_cleared_counter_is_noticed(archive: Archive, source: str, back_up: Backup) -> None:
    """
    Rows are compared after the statistics were reset, for what they would have told is gone.
    """
    back_up()
    execute(source, f"UPDATE eventstore.events2 SET owner = 'corrected' WHERE created_at < {OLD}")
    execute(source, "SELECT pg_stat_reset()")

    assert back_up().amended > 0
    assert source_rows(source) == archived_rows(archive)


def test_an_upgrade_has_all_rows_compared(archive: Archive, source: str, back_up: Backup) -> None:
    """
    New system.migration events make the audit compare rows although no counter moved.
    """
    back_up()
    steps: list[str] = []
    with psycopg.connect(source) as connection:
        push(connection, "", Command("system", "SYSTEM", "system.migration.done", {"name": "43_x"}))

    back_up(report=lambda progress: steps.append(str(progress)))

    assert any("set up, upgraded or mirrored" in step for step in steps)


def test_nothing_is_compared_without_a_reason(archive: Archive, source: str, back_up: Backup) -> None:
    """
    An ordinary increment counts and compares no rows.
    """
    back_up()
    steps: list[str] = []
    with psycopg.connect(source) as connection:
        push(connection, "i1", ("user", "new"))

    back_up(report=lambda progress: steps.append(str(progress)))

    assert not any("name='audit'" in step for step in steps)


def test_counts_come_round(archive: Archive, source: str, back_up: Backup) -> None:
    """
    Without a budget old ranges stay uncounted, and it shows since when; with one they are counted again.
    """
    back_up(chunk_bytes=32 << 10)
    first = newest(archive).snapshot
    back_up(audit_budget=timedelta(0))

    since = oldest(newest(archive).counted)
    assert since is not None
    assert first == since.at

    back_up()
    since = oldest(newest(archive).counted)
    assert since is not None
    assert newest(archive).snapshot == since.at


def test_asked_for_an_audit_compares_all(archive: Archive, source: str, back_up: Backup) -> None:
    """
    `--audit` sees rows rewritten while nothing was counted.
    """
    back_up()
    execute(source, f"UPDATE eventstore.events2 SET owner = 'x' WHERE created_at < {OLD}")

    assert back_up(audit=True).amended > 0


def test_late_rows_reach_points_that_older_backups_answer(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    Rows that an amendment added belong to the past; rows deleted later were there then.
    """
    back_up()
    insert_old(source, 5)
    back_up()
    wanted = source_rows(source)
    execute(source, f"DELETE FROM eventstore.events2 WHERE created_at < {OLD}")
    back_up()
    target = new_database()

    at = middle(source)
    restored(archive, target, at)

    assert [row for row in wanted if instant_text(cursor_of(row).created_at) <= at] == source_rows(target)


def test_many_amendments_in_a_row_stay_exact(archive: Archive, source: str, back_up: Backup) -> None:
    """
    Amending the same ranges again and again keeps log and source equal.
    """
    back_up()
    for number in range(4):
        insert_old(source) if number % 2 == 0 else execute(
            source, "DELETE FROM eventstore.events2 WHERE instance_id = 'late'"
        )
        back_up()

        assert source_rows(source) == archived_rows(archive)
    assert 4 == len(newest(archive).amendments)
    assert verify(archive, level="full", source=source).ok
