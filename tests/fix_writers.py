"""
A database with events, sessions that write them, and horizons settled on it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from zbackup.database.connection import connect
from zbackup.database.horizon import Horizon, settle

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
