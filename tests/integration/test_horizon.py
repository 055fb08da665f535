"""
The horizon against real transactions: whatever is held open, prepared, hidden or replayed late, no row ever
appears below it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import timedelta

import psycopg
import pytest
from psycopg import sql

from tests.fix_postgres import StartPostgres, every_version
from tests.fix_writers import INSERT, Log, Writer, wait_for
from zbackup.database.connection import connect
from zbackup.database.horizon import Horizon, refuse_subscriber, settle
from zbackup.errors import SourceRefused

WAITS = "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = {})"

PROCEDURE = """
    CREATE PROCEDURE push_twice() LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO eventstore.events2 VALUES (statement_timestamp(), 'first');
        COMMIT;
        PERFORM pg_advisory_xact_lock(1);
        INSERT INTO eventstore.events2 VALUES (statement_timestamp(), 'second');
    END $$
"""


@every_version
def test_a_quiet_database_is_final_up_to_the_margin(
    log: Log, new_database: Callable[[], str], writer: Writer, new_writer: Callable[..., Writer]
) -> None:
    """
    Idle sessions and transactions of other databases do not matter: the horizon is the clock minus the margin.
    """
    writer.push("done")
    new_writer(new_database()).begin()

    found = log.settle(margin=timedelta(seconds=10))

    assert found.at == found.clock - timedelta(seconds=10)
    assert found.basis == "observed"
    assert (found.blockers, found.pending, found.warnings) == ((), None, ())


@every_version
@pytest.mark.parametrize("clock", ["now", "statement_timestamp", "clock_timestamp"])
def test_a_late_commit_is_never_missed(log: Log, new_writer: Callable[..., Writer], clock: str) -> None:
    """
    A writer that stays open over many backups holds the horizon at its beginning, by name, until it commits.
    """
    late, other = new_writer(application_name="late"), new_writer()
    log.settle()
    began = late.begin()
    late.push("one", clock)
    for number in range(3):
        other.push(f"other {number}")
        found = log.settle()
        late.push(f"late {number}", clock)

        assert found.at == began
        assert found.basis == "observed"
        assert [(each.kind, each.pid, each.application, each.since) for each in found.blockers] == [
            ("backend", late.pid, "late", began)
        ]
    assert any(f"process {late.pid} (postgres, late)" in warning for warning in log.settle().warnings)

    late.run("COMMIT")
    found = log.settle()

    assert found.at == found.clock
    assert found.blockers == ()


@every_version
def test_who_has_not_written_yet_holds_too(log: Log, writer: Writer) -> None:
    """
    A transaction that has only begun can still write events with the time of its beginning.
    """
    began = writer.begin()

    assert log.settle().at == began

    assert writer.push("after all") == began
    writer.run("COMMIT")


@every_version
def test_an_aborted_transaction_holds_until_it_ends(log: Log, writer: Writer) -> None:
    """
    A transaction that failed can resume from a savepoint and write with its old time.
    """
    began = writer.begin()
    writer.run("SAVEPOINT here")
    with suppress(psycopg.errors.DivisionByZero):
        writer.run("SELECT 1 / 0")

    found = log.settle()

    assert found.at == began
    assert found.blockers[0].detail == "idle in transaction (aborted)"
    writer.run("ROLLBACK TO here")
    writer.push("resumed")
    writer.run("COMMIT")


@every_version
@pytest.mark.parametrize("reader", ["seeing", "blind"])
def test_a_procedure_goes_on_with_the_time_of_its_call(
    log: Log, writer: Writer, blind: str, blocked: Callable[[], None], reader: str
) -> None:
    """
    What a procedure writes after a COMMIT inside carries times older than its new transaction.
    """
    writer.run(PROCEDURE)
    with writer.running("CALL push_twice()"):
        wait_for(log, WAITS.format(writer.pid))
        found = log.settle(blind if reader == "blind" else None)
        blocked()
    first, second = (row[0] for row in log.ask("SELECT created_at FROM eventstore.events2"))

    assert first == second
    assert found.at == (None if reader == "blind" else first)


@every_version
def test_a_message_of_many_transactions_holds_from_its_beginning(
    log: Log, writer: Writer, blocked: Callable[[], None]
) -> None:
    """
    Transactions sent in one message share its time; the second is as old as the first.
    """
    push = INSERT.format("now", "'both'")
    with writer.running(f"BEGIN; {push}; COMMIT; BEGIN; SELECT pg_advisory_xact_lock(1); {push}; COMMIT"):
        wait_for(log, WAITS.format(writer.pid))
        found = log.settle()
        blocked()

    assert found.at == log.ask("SELECT min(created_at) FROM eventstore.events2")[0][0]
    assert log.ask("SELECT count(DISTINCT created_at) FROM eventstore.events2") == [(1,)]


@every_version
def test_a_prepared_transaction_freezes_the_horizon(start_postgres: StartPostgres) -> None:
    """
    A prepared transaction that wrote events keeps the last horizon until it ends, also across a crash.
    """
    server = start_postgres()
    log = Log(server.dsn())
    first = log.settle()
    with closing(Writer(log.dsn).session) as session:
        session.execute(b"BEGIN; " + INSERT.format("now", "'prepared'").encode() + b"; PREPARE TRANSACTION 'forgotten'")
    running = log.settle()
    server.restart("immediate")
    after = log.settle()
    alone = log.settle(last=None)
    with closing(log.session()) as session:
        session.execute("COMMIT PREPARED 'forgotten'")
    ended = log.settle(last=first.at)

    for found in (running, after):
        assert (found.at, found.basis) == (first.at, "frozen")
        assert [(each.kind, each.pid, each.role, each.detail) for each in found.blockers] == [
            ("prepared", None, "postgres", "forgotten")
        ]
        assert "'forgotten' of postgres" in found.warnings[0]
    assert alone.at is None
    assert ended.at == ended.clock
    log.expect_final()


@every_version
def test_prepared_transactions_that_cannot_write_do_not_matter(
    log: Log, new_database: Callable[[], str], new_writer: Callable[..., Writer], writer: Writer
) -> None:
    """
    Those that wrote to other tables, only read the events, or belong to another database hold nothing.
    """
    name = log.ask("SELECT current_database()")[0][0]
    writer.run(f"BEGIN; INSERT INTO eventstore.other VALUES (''); PREPARE TRANSACTION '{name} other'".encode())
    writer.run(f"BEGIN; SELECT FROM eventstore.events2; PREPARE TRANSACTION '{name} read'".encode())
    elsewhere = Log(new_database())
    stranger = new_writer(elsewhere.dsn)
    stranger.run(f"BEGIN; {INSERT.format('now', '1')}; PREPARE TRANSACTION '{name} elsewhere'".encode())
    try:
        found = log.settle()
    finally:
        stranger.run(f"ROLLBACK PREPARED '{name} elsewhere'".encode())

    assert found.at == found.clock
    assert found.blockers == ()


@every_version
def test_autovacuum_holds_nothing(start_postgres: StartPostgres) -> None:
    """
    An autovacuum worker runs long transactions on the events, and writes none.
    """
    slow = {"autovacuum_naptime": "1s", "autovacuum_vacuum_threshold": 1, "autovacuum_vacuum_cost_limit": 1}
    log = Log(start_postgres(**slow, autovacuum_vacuum_cost_delay="100ms").dsn())
    at_work = """
        EXISTS (SELECT FROM pg_stat_activity a JOIN pg_locks l USING (pid)
                 WHERE a.backend_type = 'autovacuum worker' AND a.xact_start < now() - interval '0.5 s'
                   AND l.relation = 'eventstore.events2'::regclass)"""
    with closing(log.session()) as session:
        session.execute("CREATE ROLE blind LOGIN; GRANT USAGE ON SCHEMA eventstore TO blind")
        session.execute("GRANT SELECT ON eventstore.events2 TO blind")
        session.execute("INSERT INTO eventstore.events2 SELECT now(), repeat('x', 100) FROM generate_series(1, 50000)")
        session.execute("DELETE FROM eventstore.events2 WHERE ctid < '(500,0)'")
    for dsn in (log.dsn, f"{log.dsn} user=blind"):
        wait_for(log, at_work)

        found = log.settle(dsn)

        assert (found.at, found.blockers) == (found.clock, ())
        assert log.ask(f"SELECT {at_work}") == [(True,)]


@every_version
def test_a_look_inside_a_transaction_would_repeat_itself(log: Log, writer: Writer) -> None:
    """
    PostgreSQL shows sessions as of the first look of a transaction, so settling inside one is a mistake of ours.
    """
    count = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND pid = %s"
    with connect(log.dsn) as session:
        session.execute("BEGIN")
        before = session.execute(count, (writer.pid,)).fetchall()
        writer.begin()

        assert session.execute(count, (writer.pid,)).fetchall() == before == [(0,)]
        with pytest.raises(AssertionError):
            settle(session, table_oid=log.table_oid, last=None, pending=None, own_pids=frozenset())


@every_version
def test_our_own_sessions_hold_nothing(log: Log, writer: Writer) -> None:
    """
    Sessions named as our own may be in a transaction.
    """
    writer.begin()

    found = log.settle(own_pids=frozenset({writer.pid}))

    assert (found.at, found.blockers) == (found.clock, ())


def test_the_horizon_never_goes_back(log: Log, writer: Writer) -> None:
    """
    A lower horizon keeps the last one and says who held it; a clock that went back is a warning.
    """
    began = writer.begin()
    ahead = began + timedelta(hours=1)

    kept = log.settle(last=began + timedelta(microseconds=1))
    behind = log.settle(last=ahead)

    assert (kept.at, kept.basis) == (began + timedelta(microseconds=1), "frozen")
    assert kept.blockers[0].pid == writer.pid
    assert (behind.at, behind.basis) == (ahead, "frozen")
    assert "the server's clock went back" in behind.warnings[0]


def test_the_oldest_are_named_first(log: Log, new_writer: Callable[..., Writer]) -> None:
    """
    Of many transactions the oldest ten are named.
    """
    writers = [new_writer() for _ in range(12)]
    for writer in writers:
        writer.begin()

    found = log.settle()

    assert [each.pid for each in found.blockers] == [writer.pid for writer in writers[:10]]


@every_version
def test_a_subscriber_is_refused(log: Log, new_database: Callable[[], str]) -> None:
    """
    A table that logical replication fills gets rows later than their times say.
    """
    publisher = Log(new_database())
    name = str(publisher.ask("SELECT current_database()")[0][0])
    with closing(publisher.session()) as there, closing(log.session()) as here, connect(log.dsn) as source:
        there.execute("CREATE PUBLICATION events FOR TABLE eventstore.events2")
        there.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
        refuse_subscriber(source, log.table_oid)
        here.execute(
            sql.SQL(
                "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION events"
                " WITH (create_slot = false, copy_data = false, enabled = false)"
            ).format(sql.Identifier(name), sql.Literal(publisher.dsn))
        )
        try:
            with pytest.raises(SourceRefused, match="logical replication fills the events table"):
                refuse_subscriber(source, log.table_oid)
        finally:
            here.execute(sql.SQL("ALTER SUBSCRIPTION {} SET (slot_name = NONE)").format(sql.Identifier(name)))
            here.execute(sql.SQL("DROP SUBSCRIPTION {}").format(sql.Identifier(name)))
            there.execute("SELECT pg_drop_replication_slot(%s)", (name,))


def scribble(writer: Writer, seed: int, stop: threading.Event) -> None:
    """Write events in transactions of all kinds until told to stop."""
    dice = random.Random(seed)
    clocks = ("now", "statement_timestamp", "clock_timestamp")
    number = 0
    while not stop.is_set():
        number += 1
        writer.run("BEGIN")
        for part in range(dice.randint(1, 3)):
            time.sleep(dice.choice((0, 0, 0.01, 0.3)))
            writer.run("SAVEPOINT here")
            writer.push(f"{seed} {number} {part}", dice.choice(clocks))
            if dice.random() < 0.2:
                writer.run("ROLLBACK TO here")
        end = dice.choice(("COMMIT", "COMMIT", "ROLLBACK", "PREPARE"))
        if end == "PREPARE":
            name = f"'{writer.session.info.dbname} {seed} {number}'"
            writer.run(f"PREPARE TRANSACTION {name}".encode())
            time.sleep(dice.choice((0, 0.2)))
            end = f"{dice.choice(('COMMIT', 'ROLLBACK'))} PREPARED {name}"
        writer.run(end.encode())
        time.sleep(dice.choice((0, 0.01, 0.2)))


@every_version
def test_nothing_is_missed_in_a_crowd(log: Log, new_writer: Callable[..., Writer], blind: str) -> None:
    """
    Under many writers that commit early, late, prepared or not at all, no row ever appears below a horizon.
    """
    stop = threading.Event()
    threads = [threading.Thread(target=scribble, args=(new_writer(), seed, stop)) for seed in range(6)]
    for thread in threads:
        thread.start()
    began, margin = time.monotonic(), timedelta(milliseconds=200)
    horizons: list[Horizon] = []
    while time.monotonic() < began + 5:
        horizons += [log.settle(margin=margin), log.settle(margin=margin), log.settle(blind, margin=margin)]
    stop.set()
    for thread in threads:
        thread.join()
    log.settle()

    log.expect_final()
    assert len({found.at for found in horizons}) > 1
    assert len(log.ask("SELECT FROM eventstore.events2")) > 50
