"""The horizon of a hot standby, with its primary as a fence and without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from tests.fix_postgres import SETTINGS, StartPostgres, every_version
from tests.fix_writers import NOTHING, Log, Writer, wait_for
from zbackup.database.embedded import EmbeddedPostgres, standby_of
from zbackup.errors import SourceRefused

# Less than the 15 s after which a quiet server writes some WAL by itself.
SOON = timedelta(seconds=10)


@pytest.fixture(scope="session")
def pairs() -> Iterator[Callable[[int], tuple[EmbeddedPostgres, EmbeddedPostgres]]]:
    """A primary and its hot standby, of each version asked for."""
    running: dict[int, tuple[EmbeddedPostgres, EmbeddedPostgres]] = {}
    with ExitStack() as stack:

        def pair(version: int) -> tuple[EmbeddedPostgres, EmbeddedPostgres]:
            if version not in running:
                primary = stack.enter_context(EmbeddedPostgres(version=version, settings=SETTINGS, port=0))
                running[version] = primary, stack.enter_context(standby_of(primary))
            return running[version]

        yield pair


@pytest.fixture
def pair(
    pairs: Callable[[int], tuple[EmbeddedPostgres, EmbeddedPostgres]], pg_version: int
) -> Iterator[tuple[Log, str]]:
    """Events on a primary, and the DSN of its hot standby."""
    primary, standby = pairs(pg_version)
    with closing(psycopg.connect(primary.dsn(), autocommit=True)) as session:
        session.execute("CREATE DATABASE events TEMPLATE template0")
        try:
            log = Log(primary.dsn("events"))
            wait_for(log, "(SELECT bool_and(replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication)")
            yield log, standby.dsn("events")
            log.expect_final()
        finally:
            session.execute("DROP DATABASE events WITH (FORCE)")


@every_version
def test_a_fence_settles_a_standby(pair: tuple[Log, str], new_session: Callable[..., Writer]) -> None:
    """
    With the primary as a fence the standby shows, right after, all that is final there; also on a quiet server.
    """
    log, standby = pair
    writer, late = new_session(log.dsn), new_session(log.dsn)
    writer.run("SET synchronous_commit = off")
    began = late.begin()
    late.push("late")
    for number in range(10):
        writer.push(f"{number}")
        writer.run("SELECT pg_switch_wal()")
        found = log.settle(standby, fence=log.dsn, wait=SOON)

        assert (found.at, found.basis) == (began, "observed")
    late.run("COMMIT")
    found = log.settle(standby, fence=log.dsn, wait=SOON)

    assert (found.at, found.basis) == (found.clock, "observed")
    assert len(log.ask("SELECT FROM eventstore.events2", standby)) == 11


@every_version
def test_a_standby_alone_assumes(pair: tuple[Log, str], new_session: Callable[..., Writer]) -> None:
    """
    Without a fence the horizon is the last replay minus the lag, and says so.
    """
    log, standby = pair
    pushed = new_session(log.dsn).push("seen")
    while log.ask("SELECT pg_last_xact_replay_timestamp()", standby)[0][0] < pushed:
        time.sleep(0.01)
    replayed = log.ask("SELECT pg_last_xact_replay_timestamp()", standby)[0][0]

    found = log.settle(standby, standby_lag=timedelta(seconds=7))
    again = log.settle(standby, standby_lag=timedelta(seconds=60))

    assert (found.at, found.basis) == (replayed - timedelta(seconds=7), "assumed")
    assert [(each.kind, each.since) for each in found.blockers] == [("standby", replayed)]
    assert "without a fence" in found.warnings[0]
    assert "7 s below the last replay" in found.warnings[0]
    assert (again.at, again.basis) == (found.at, "frozen")


@every_version
def test_a_standby_that_lags_assumes_no_more_than_its_primary_shows(
    pair: tuple[Log, str], new_session: Callable[..., Writer]
) -> None:
    """
    When the replay does not arrive in time, the last replay minus the lag counts, or an older transaction.
    """
    log, standby = pair
    writer, late = new_session(log.dsn), new_session(log.dsn)
    began = late.begin()
    late.push("late")
    writer.push("replayed")
    log.settle(standby, fence=log.dsn, wait=timedelta(seconds=30))
    with closing(psycopg.connect(standby, autocommit=True)) as session:
        session.execute("SELECT pg_wal_replay_pause()")
        try:
            while session.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() != ("paused",):
                writer.push("until it pauses")
            writer.push("not replayed")

            lagging: dict[str, Any] = {"fence": log.dsn, "wait": timedelta(seconds=0.2), "standby_lag": NOTHING}
            kept = log.settle(standby, **lagging)
            found = log.settle(standby, last=None, **lagging)
        finally:
            session.execute("SELECT pg_wal_replay_resume()")
    assert (kept.at, kept.basis) == (began, "frozen")
    assert (found.at, found.basis) == (began, "assumed")
    assert "still to replay" in found.warnings[-1]
    assert [each.kind for each in found.blockers] == ["standby", "backend"]
    late.run("COMMIT")


def test_a_wrong_fence_is_refused(pair: tuple[Log, str], database: str) -> None:
    """
    A fence that is no primary, or of another cluster, proves nothing; on a primary it is not used.
    """
    log, standby = pair

    with pytest.raises(SourceRefused, match="standby itself"):
        log.settle(standby, fence=standby)
    with pytest.raises(SourceRefused, match="another database"):
        log.settle(standby, fence=database)
    assert "fence was not used" in log.settle(fence=log.dsn).warnings[0]


def test_a_fence_that_was_left_behind_is_refused(start_postgres: StartPostgres) -> None:
    """
    A primary whose standby was promoted goes on writing into a history that nobody follows.
    """
    primary = start_postgres(autovacuum=False)
    log = Log(primary.dsn())
    with standby_of(primary) as standby, standby_of(standby) as second:
        silent = log.settle(second.dsn())
        standby.promote()
        while log.ask("SELECT received_tli FROM pg_stat_wal_receiver", second.dsn()) != [(2,)]:
            time.sleep(0.05)

        with pytest.raises(SourceRefused, match="on timeline 1, the standby on 2"):
            log.settle(second.dsn(), fence=log.dsn)

    assert (silent.at, silent.basis) == (None, "frozen")
    assert "none since its start" in silent.warnings[0]
