"""The horizon where sessions hide their transactions from our role, or never show them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import timedelta

import pytest
from psycopg import pq

from tests.fix_postgres import every_version
from tests.fix_writers import INSERT, Log, Writer, wait_for
from zbackup.progress import Progress, Step

LOOP = """
    CREATE PROCEDURE push_often() LANGUAGE plpgsql AS $$ BEGIN
        WHILE NOT EXISTS (SELECT FROM eventstore.other) LOOP
            INSERT INTO eventstore.events2 VALUES (statement_timestamp(), clock_timestamp()::text);
            COMMIT;
        END LOOP;
    END $$
"""


@every_version
def test_hidden_sessions_are_proven_by_their_locks(log: Log, blind: str, new_writer: Callable[..., Writer]) -> None:
    """
    Where others are hidden nothing is guessed: their idle sessions are proven at once, open ones by a later run.
    """
    new_writer()
    quiet = log.settle(blind)
    first, second = new_writer(application_name="first"), new_writer()
    began = first.begin()
    first.push("first")

    held = log.settle(blind)
    second.begin()
    second.push("second")
    first.run("COMMIT")
    proven_late = log.settle(blind)
    second.run("COMMIT")
    proven = log.settle(blind)

    assert (quiet.at, quiet.basis) == (quiet.clock, "hidden-settled")
    assert (held.at, held.basis) == (quiet.at, "frozen")
    assert held.at is not None
    assert held.at < began
    assert [(each.kind, each.pid, each.application) for each in held.blockers] == [("hidden", first.pid, "first")]
    assert held.pending is not None
    assert held.pending.pids == (first.pid,)
    assert str(first.pid) in held.warnings[0]
    assert (proven_late.at, proven_late.basis) == (held.clock, "hidden-settled")
    assert proven_late.pending is not None
    assert (proven_late.pending.clock, proven_late.pending.pids) == (proven_late.clock, (second.pid,))
    assert (proven.at, proven.pending) == (proven.clock, None)


@every_version
def test_a_clock_stays_pending_until_it_is_proven(log: Log, blind: str, new_writer: Callable[..., Writer]) -> None:
    """
    The older of two unproven clocks is carried on, with ever fewer sessions, so that it is proven some day.
    """
    first, second = new_writer(), new_writer()
    first.begin()
    second.begin()
    one = log.settle(blind)
    first.run("COMMIT")
    new_writer().begin()
    two = log.settle(blind)
    second.run("COMMIT")
    three = log.settle(blind)

    assert one.pending is not None
    assert two.pending is not None
    assert one.pending.pids == tuple(sorted((first.pid, second.pid)))
    assert (two.pending.clock, two.pending.pids) == (one.clock, (second.pid,))
    assert three.at == one.clock


@every_version
def test_waiting_is_enough_where_a_hidden_writer_ends(log: Log, blind: str, writer: Writer) -> None:
    """
    Within the time to wait, the transaction of a hidden session may end; the wait is reported.
    """
    writer.begin()
    writer.push("soon")
    reported: list[Progress] = []
    timer = threading.Timer(1, writer.run, ("COMMIT",))
    timer.start()

    found = log.settle(blind, wait=timedelta(seconds=20), report=reported.append)

    timer.join()
    assert (found.at, found.basis, found.pending) == (found.clock, "hidden-settled", None)
    assert reported == [Step("horizon", "waiting for sessions that hide their transactions: 1")]


@every_version
def test_a_hidden_loop_of_commits_is_never_taken_for_idle(log: Log, blind: str, writer: Writer) -> None:
    """
    A procedure that commits in a tight loop often shows no lock for a moment; its call still holds the horizon.
    """
    writer.run(LOOP)
    with writer.running("CALL push_often()"):
        wait_for(log, "EXISTS (SELECT FROM eventstore.events2)")
        try:
            horizons = [log.settle(blind, wait=timedelta(seconds=2), last=None, pending=None) for _ in range(2)]
        finally:
            log.ask("INSERT INTO eventstore.other VALUES ('stop') RETURNING 1")

    assert [found.at for found in horizons] == [None, None]


@every_version
def test_a_session_that_does_not_report_hides(log: Log, writer: Writer) -> None:
    """
    With track_activities off a transaction is not shown; the age of the session bounds it, or its end proves it.
    """
    writer.run("SET track_activities = off")
    last = log.settle().at
    writer.begin()
    writer.push("unseen")
    held = log.settle()
    alone = log.settle(last=None, pending=None)
    writer.run("COMMIT")
    proven = log.settle(last=held.at, pending=held.pending)

    assert (held.at, held.basis) == (last, "frozen")
    assert [(each.kind, each.pid, each.detail) for each in held.blockers] == [
        ("hidden", writer.pid, "track_activities is off")
    ]
    assert alone.at == held.blockers[0].since
    assert proven.at == proven.clock


@every_version
def test_who_begins_to_report_inside_a_transaction_still_hides(log: Log, writer: Writer) -> None:
    """
    A session that was not reporting when its transaction began shows only the time of its last statement.
    """
    writer.run("SET track_activities = off")
    writer.begin()
    writer.run("SET LOCAL track_activities = on")
    time.sleep(0.05)
    writer.run("SELECT 1")
    assert log.ask(f"SELECT state, xact_start FROM pg_stat_activity WHERE pid = {writer.pid}") == [
        ("idle in transaction", None)
    ]

    found = log.settle()

    assert found.at is not None
    assert found.at < writer.push("late")
    writer.run("COMMIT")


@contextmanager
def streaming(log: Log) -> Generator[int]:
    """Stream changes by logical replication; yields the process id of the walsender."""
    name = "s_" + str(log.ask("SELECT current_database()")[0][0])
    with closing(log.session()) as session:
        session.execute("CREATE PUBLICATION everything FOR ALL TABLES")
        session.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
        with closing(log.session(replication="database")) as stream:
            start = f"START_REPLICATION SLOT {name} LOGICAL 0/0 (proto_version '1', publication_names 'everything')"
            assert stream.pgconn.exec_(start.encode()).status == pq.ExecStatus.COPY_BOTH
            wait_for(log, f"EXISTS (SELECT FROM pg_stat_replication WHERE pid = {stream.info.backend_pid})")
            yield stream.info.backend_pid
        wait_for(log, f"NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{name}' AND active)")
        session.execute("SELECT pg_drop_replication_slot(%s)", (name,))


@every_version
@pytest.mark.parametrize("reader", ["seeing", "blind"])
def test_a_logical_walsender_holds_nothing(log: Log, blind: str, reader: str) -> None:
    """
    A consumer of changes is active for ever, and holds locks while it decodes; it writes no events.
    """
    dsn = blind if reader == "blind" else None
    with streaming(log) as pid:
        shown = log.ask(f"SELECT state, xact_start FROM pg_stat_activity WHERE pid = {pid}")
        with closing(log.session()) as session:
            many = "INSERT INTO eventstore.events2 SELECT now(), repeat('x', 500) FROM generate_series(1, 20000)"
            session.execute(many)
        horizons = [log.settle(dsn) for _ in range(3)]

    assert shown == [("active", None)]
    assert all(found.at == found.clock and not found.blockers for found in horizons)


@every_version
def test_sql_of_a_walsender_holds(log: Log, new_writer: Callable[..., Writer]) -> None:
    """
    A replication session can run SQL as well; PostgreSQL never shows when a transaction of it began.
    """
    last = log.settle().at
    with closing(log.session(replication="database")) as session:
        session.pgconn.exec_(b"BEGIN")
        session.pgconn.exec_(INSERT.format("now", "'replicated'").encode())

        found = log.settle()

        assert session.pgconn.exec_(b"COMMIT").status == pq.ExecStatus.COMMAND_OK
    assert found.at is not None
    assert last is not None
    assert last <= found.at <= log.ask("SELECT created_at FROM eventstore.events2")[0][0]
    assert "idle in transaction" in found.blockers[0].detail
