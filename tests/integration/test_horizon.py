"""
The horizon against real transactions: whatever is held open, prepared, hidden or replayed late, no row ever
appears below it.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo

from tests.fix_postgres import SETTINGS, StartPostgres, every_version
from zbackup.database.connection import connect
from zbackup.database.embedded import EmbeddedPostgres, standby_of
from zbackup.database.horizon import Horizon, refuse_subscriber, settle
from zbackup.errors import SourceRefused
from zbackup.progress import Progress, Step

Row = tuple[datetime, str]

NOTHING = timedelta(0)
TABLE = """
    CREATE SCHEMA eventstore;
    CREATE TABLE eventstore.events2 (created_at timestamptz NOT NULL, note text NOT NULL);
    CREATE TABLE eventstore.other (note text);
"""
INSERT = "INSERT INTO eventstore.events2 VALUES ({}(), {})"


class Log:
    """
    A database with events, and the horizons that were settled on it one after the other.

    What a new snapshot shows below a horizon is kept; `expect_final` compares it with what is there in the end.
    """

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.last: Horizon | None = None
        self._below: list[tuple[datetime, set[Row]]] = []
        with closing(self.session()) as session:
            session.execute(TABLE)
        self.table_oid: int = self.ask("SELECT 'eventstore.events2'::regclass::oid")[0][0]

    def session(self, **parameters: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(self.dsn, autocommit=True, **parameters)

    def ask(self, question: str, dsn: str | None = None) -> list[tuple[Any, ...]]:
        with psycopg.connect(dsn or self.dsn, autocommit=True) as session:
            return session.execute(question.encode()).fetchall()

    def settle(self, dsn: str | None = None, *, fence: str | None = None, **options: Any) -> Horizon:
        """Settle as the next backup would, then look at what lies below."""
        last = self.last
        known: dict[str, Any] = {"last": last and last.at, "pending": last and last.pending, "margin": NOTHING}
        known |= {"own_pids": frozenset[int](), "wait": NOTHING, "table_oid": self.table_oid, **options}
        with connect(dsn or self.dsn) as source:
            if fence is None:
                found = settle(source, **known)
            else:
                with connect(fence) as primary:
                    found = settle(source, fence=primary, **known)
        if found.at is not None:
            assert known["last"] is None or found.at >= known["last"]
            self._below.append((found.at, self._rows_below(found.at, dsn)))
        self.last = found
        return found

    def expect_final(self) -> None:
        for at, rows in self._below:
            assert self._rows_below(at) == rows, f"rows appeared or vanished below {at}"

    def _rows_below(self, at: datetime, dsn: str | None = None) -> set[Row]:
        return {row for row in self.ask("SELECT created_at, note FROM eventstore.events2", dsn) if row[0] < at}


class Writer:
    """A session that writes events, statement by statement."""

    def __init__(self, dsn: str, **parameters: Any) -> None:
        self.session = psycopg.connect(dsn, autocommit=True, **parameters)
        self.run = self.session.execute

    @property
    def pid(self) -> int:
        return self.session.info.backend_pid

    def begin(self) -> datetime:
        """Begin a transaction; return its clock."""
        self.run("BEGIN")
        row = self.run("SELECT now()").fetchone()
        assert row is not None
        return row[0].astimezone(UTC)

    def push(self, note: str = "", clock: str = "now") -> datetime:
        """Write an event with that clock of PostgreSQL's; return it."""
        row = self.run((INSERT.format(clock, "%s") + " RETURNING created_at").encode(), (note,)).fetchone()
        assert row is not None
        return row[0].astimezone(UTC)

    @contextmanager
    def running(self, statement: str) -> Generator[None]:
        """Run a statement meanwhile; it must end by itself after the block."""
        thread = threading.Thread(target=self.run, args=(statement.encode(),))
        thread.start()
        try:
            yield
        finally:
            thread.join()


@pytest.fixture
def log(database: str) -> Iterator[Log]:
    log = Log(database)
    yield log
    with closing(log.session()) as session:
        left = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
        for (gid,) in session.execute(left).fetchall():
            session.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
    log.expect_final()


@pytest.fixture
def new_session() -> Iterator[Callable[..., Writer]]:
    writers: list[Writer] = []

    def new(dsn: str, **parameters: Any) -> Writer:
        writers.append(Writer(dsn, **parameters))
        return writers[-1]

    yield new
    for writer in writers:
        writer.session.close()


@pytest.fixture
def new_writer(log: Log, new_session: Callable[..., Writer]) -> Callable[..., Writer]:
    def new(dsn: str = log.dsn, **parameters: Any) -> Writer:
        return new_session(dsn, **parameters)

    return new


@pytest.fixture
def writer(new_writer: Callable[..., Writer]) -> Writer:
    return new_writer()


@pytest.fixture
def blind(log: Log) -> Iterator[str]:
    """The DSN of a role that may read the events and sees nobody's transactions."""
    name = f"blind_{log.ask('SELECT current_database()')[0][0]}"
    role = sql.Identifier(name)
    with closing(log.session()) as session:
        session.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        session.execute(sql.SQL("GRANT USAGE ON SCHEMA eventstore TO {}").format(role))
        session.execute(sql.SQL("GRANT SELECT ON ALL TABLES IN SCHEMA eventstore TO {}").format(role))
        yield make_conninfo(log.dsn, user=name)
        session.execute(sql.SQL("DROP OWNED BY {}").format(role))
        session.execute(sql.SQL("DROP ROLE {}").format(role))


@pytest.fixture
def blocked(log: Log) -> Iterator[Callable[[], None]]:
    """Hold a lock that procedures of the test wait for, until the function is called."""
    with closing(log.session()) as session:
        session.execute("SELECT pg_advisory_lock(1)")
        yield lambda: session.execute("SELECT pg_advisory_unlock_all()") and None


def wait_for(log: Log, condition: str) -> None:
    for _ in range(2000):
        if log.ask(f"SELECT {condition}")[0][0]:
            return
        time.sleep(0.01)
    raise AssertionError(condition)


WAITS = "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = {})"

PROCEDURE = """
    CREATE PROCEDURE push_twice() LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO eventstore.events2 VALUES (statement_timestamp(), 'first');
        COMMIT;
        PERFORM pg_advisory_xact_lock(1);
        INSERT INTO eventstore.events2 VALUES (statement_timestamp(), 'second');
    END $$
"""
LOOP = """
    CREATE PROCEDURE push_often() LANGUAGE plpgsql AS $$ BEGIN
        WHILE NOT EXISTS (SELECT FROM eventstore.other) LOOP
            INSERT INTO eventstore.events2 VALUES (statement_timestamp(), clock_timestamp()::text);
            COMMIT;
        END LOOP;
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
    assert reported == [Step("horizon", "waiting for 1 sessions that hide their transactions")]


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
        log = Log(primary.dsn("events"))
        caught_up = (
            "(SELECT bool_and(state = 'streaming' AND replay_lsn >= pg_current_wal_lsn()) FROM pg_stat_replication)"
        )
        wait_for(log, caught_up)
        yield log, standby.dsn("events")
        log.expect_final()
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
        found = log.settle(standby, fence=log.dsn, wait=timedelta(seconds=30))

        assert (found.at, found.basis) == (began, "observed")
    late.run("COMMIT")
    found = log.settle(standby, fence=log.dsn, wait=timedelta(seconds=30))

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
        while session.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() != ("paused",):
            writer.push("until it pauses")
        writer.push("not replayed")

        found = log.settle(standby, fence=log.dsn, wait=timedelta(seconds=0.2), standby_lag=NOTHING)

        session.execute("SELECT pg_wal_replay_resume()")
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
