"""
The server restarts, ends our sessions, or keeps a table from us: an error that says so, and the next run ends well.

Each happens at a chosen moment: within the report of what was just done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from psycopg.sql import SQL, Identifier

from tests.fault.test_kill import FINAL, is_there, settled, write_users
from tests.fix_archive import Backup, archived_rows, source_rows
from tests.fix_postgres import VERSIONS, StartPostgres
from tests.fix_zitadel import zitadel
from zbackup.archive.archive import Archive
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.errors import SourceError, TargetError
from zbackup.moment import parse_point
from zbackup.progress import Advance, ObjectStored, Progress, Report, Step, silent
from zbackup.restore import RestoreOptions, restore
from zbackup.verify import verify

pytestmark = pytest.mark.slow

newest_version = pytest.mark.parametrize("pg_version", VERSIONS[-1:], indirect=True)

SMALL = 64 << 10


def at_first(moment: Callable[[Progress], bool], act: Callable[[], object]) -> Report:
    """Do something at the first record of a kind, while whoever reports it waits."""
    first = threading.Semaphore(1)

    def report(progress: Progress) -> None:
        if moment(progress) and first.acquire(blocking=False):
            act()

    return report


def stored(progress: Progress) -> bool:
    return isinstance(progress, ObjectStored)


def taken(progress: Progress) -> bool:
    return isinstance(progress, Step) and progress.name == "load"


def loading(progress: Progress) -> bool:
    return isinstance(progress, Advance) and progress.rows > 0


@pytest.fixture
def source(new_database: Callable[[], str]) -> str:
    """The DSN of a ZITADEL with a few slices of events."""
    dsn = new_database()
    zitadel(dsn)
    write_users(dsn, 0, 300)
    return dsn


def terminate(dsn: str, number: int) -> None:
    """End one of zbackup's sessions, by the order in which they began."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        ended = connection.execute(
            """SELECT pg_terminate_backend((
                    SELECT pid FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'zbackup'
                     ORDER BY backend_start OFFSET %s LIMIT 1), 10000)""",
            (number,),
        )
        assert ended.fetchall() == [(True,)]


def load(archive: Archive, target: str, report: Report = silent) -> None:
    restore(
        archive,
        target,
        parse_point("latest", datetime.now(UTC)),
        RestoreOptions(jobs=1, events_only=True),
        report=report,
    )


def no_backup_yet(archive: Archive) -> bool:
    return not archive.catalog().entries


def expect_whole(archive: Archive, source: str) -> None:
    assert verify(archive, level="full").findings == ()
    assert archived_rows(archive) == source_rows(source)


def test_a_server_that_restarts_under_a_backup(
    archive: Archive, back_up: Backup, start_postgres: StartPostgres
) -> None:
    """
    An immediate restart ends the backup with an error, nothing is committed, and the next one is whole.
    """
    server = start_postgres()
    zitadel(server.dsn())
    write_users(server.dsn(), 0, 300)
    restart = at_first(stored, lambda: server.restart("immediate"))

    with pytest.raises(SourceError) as caught:
        back_up(server.dsn(), report=restart, chunk_bytes=SMALL)

    assert caught.value.exit_code == 10
    assert caught.value.retry
    assert "run the same command again" in caught.value.hint
    assert no_backup_yet(archive)
    back_up(server.dsn(), chunk_bytes=SMALL)
    expect_whole(archive, server.dsn())


@pytest.mark.parametrize("moment", [taken, loading])
def test_a_server_that_restarts_under_a_restore(
    archive: Archive,
    back_up: Backup,
    source: str,
    start_postgres: StartPostgres,
    moment: Callable[[Progress], bool],
) -> None:
    """
    An immediate restart ends the restore with an error, be it just taken; the next one goes on from its ledger.
    """
    back_up(source, chunk_bytes=SMALL)
    server = start_postgres()
    target = server.dsn()

    with pytest.raises(TargetError) as caught:
        load(archive, target, at_first(moment, lambda: server.restart("immediate")))

    assert caught.value.exit_code == 12
    assert caught.value.retry
    assert not is_there(target, FINAL)
    load(archive, target)
    assert source_rows(target) == source_rows(source)


@pytest.mark.parametrize(
    ("number", "says"),
    [(0, "terminating|closed"), (1, "snapshot"), (2, "terminating|closed")],
    ids=["control", "snapshot", "worker"],
)
def test_a_session_of_a_backup_that_is_ended(
    archive: Archive, back_up: Backup, source: str, number: int, says: str
) -> None:
    """
    Whichever session an administrator ends, the backup ends with an error, leaves no other session, and the next one
    is whole. Without the session that holds the snapshot no worker can take it up any more.
    """
    with pytest.raises(SourceError, match=says) as caught:
        back_up(source, report=at_first(stored, lambda: terminate(source, number)), jobs=1, chunk_bytes=SMALL)

    assert caught.value.exit_code == 10
    assert caught.value.retry
    assert "run the same command again" in caught.value.hint
    assert no_backup_yet(archive)
    settled(source)
    back_up(source, chunk_bytes=SMALL)
    expect_whole(archive, source)


@pytest.mark.parametrize("number", range(2), ids=["main", "worker"])
def test_a_session_of_a_restore_that_is_ended(
    archive: Archive, back_up: Backup, source: str, database: str, number: int
) -> None:
    """
    Whichever session an administrator ends, the restore ends with an error, publishes nothing, and the next one is
    whole.
    """
    back_up(source, chunk_bytes=SMALL)

    with pytest.raises(TargetError) as caught:
        load(archive, database, at_first(loading, lambda: terminate(database, number)))

    assert caught.value.exit_code == 12
    assert caught.value.retry
    settled(database)
    assert not is_there(database, FINAL)
    load(archive, database)
    assert source_rows(database) == source_rows(source)


@pytest.mark.parametrize("moment", ["before", "between"])
def test_events_that_are_locked(archive: Archive, back_up: Backup, source: str, moment: str) -> None:
    """
    Who keeps the events under a strong lock is named, before the backup and between two of its reads.
    """
    with psycopg.connect(source, application_name="an upgrade") as upgrade:

        def lock() -> None:
            upgrade.execute("LOCK TABLE eventstore.events2")

        if moment == "before":
            lock()
        with pytest.raises(SourceError) as caught:
            back_up(
                source,
                report=at_first(stored, lock),
                jobs=1,
                lock_timeout=timedelta(milliseconds=50),
                chunk_bytes=SMALL,
            )
        pid = upgrade.info.backend_pid

    assert f"eventstore.events2 is locked by pid {pid} (role postgres, application an upgrade" in caught.value.message
    assert caught.value.exit_code == 10
    assert caught.value.retry
    assert no_backup_yet(archive)
    back_up(source, chunk_bytes=SMALL)
    expect_whole(archive, source)


@newest_version
def test_time_limits_of_role_and_database(
    archive: Archive, back_up: Backup, source: str, new_database: Callable[[], str], postgres: EmbeddedPostgres
) -> None:
    """
    No time limit that is set for the role or the database ends a run because a store is slow.
    """
    target = new_database()
    server = psycopg.connect(postgres.dsn(), autocommit=True)
    limits = ["statement", "idle_in_transaction_session"]
    limits += ["idle_session"] if postgres.version >= 14 else []
    limits += ["transaction"] if postgres.version >= 17 else []
    for dsn in (source, target):
        for limit in limits:
            name = Identifier(str(conninfo_to_dict(dsn)["dbname"]))
            server.execute(SQL("ALTER DATABASE {} SET {} = '200ms'").format(name, Identifier(f"{limit}_timeout")))

    def slow() -> None:
        server.execute("SELECT pg_sleep(0.5)")

    with server:
        back_up(source, report=at_first(stored, slow), chunk_bytes=SMALL)
        load(archive, target, at_first(loading, slow))

    expect_whole(archive, source)
    assert source_rows(target) == source_rows(source)
