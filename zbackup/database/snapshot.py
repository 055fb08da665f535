"""
One instant of the source, seen by several sessions.

The session that exports the snapshot touches no table, and workers end their transaction after each slice or
table: nobody holds a table lock for long. The price: a table that someone rewrites or truncates meanwhile
reads as empty, without an error (PostgreSQL 15, measured); who reads compares `file_identity` afterwards.

On a standby no snapshot is exported. There one that counts as overflowed is written without the transactions in
progress, and who imports it takes these for aborted: it misses their rows for good, and marks them as invalid
on the standby's pages, where nobody sees them any more (15.18, measured; with wal_level = logical one savepoint
of a writer is enough, else it takes more than 64). So the session that holds the snapshot reads alone, and
gives table locks back with a savepoint.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from zbackup.database.connection import cancel
from zbackup.database.export import ALONG_INDEX
from zbackup.database.kept import Sessions
from zbackup.database.pace import Pace


class Snapshot:
    """Holds a snapshot until it is closed, exported but on a standby."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._connection = sessions.take()
        self._connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = self._connection.execute(
            "SELECT CASE WHEN NOT pg_is_in_recovery() THEN pg_export_snapshot() END, transaction_timestamp()"
        ).fetchone()
        assert row is not None
        self.id: str | None = row[0]
        """to import it; None on a standby"""
        self.clock: datetime = row[1]
        """The server's clock just before: all that was committed by then is seen."""

    def fetch(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Read the catalog as the snapshot shows it. Tables are not to be touched here."""
        return self._connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    @property
    def catalog(self) -> psycopg.Connection[Any]:
        """The holding session, for reads of the catalog alone."""
        return self._connection

    def close(self, *, kept: bool = True) -> None:
        """End the snapshot; its session is one to be used again unless something failed in it."""
        (self._sessions.give if kept else self._sessions.drop)(self._connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(kept=error is None)


class Worker:
    """A session that reads in somebody's snapshot, one short transaction at a time."""

    def __init__(self, sessions: Sessions, snapshot: str, lock_timeout: timedelta, pace: Pace | None = None) -> None:
        self._sessions = sessions
        self.connection = sessions.take()
        self.pace = pace or Pace()
        self._snapshot = snapshot
        self._lock_timeout = lock_timeout

    @contextmanager
    def transaction(self) -> Generator[psycopg.Connection[Any]]:
        """Open a transaction that sees the snapshot; it ends with the block, and then the pace has its rest."""
        run = self.connection.execute
        with self.pace.statement():
            run("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            try:
                run(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(self._snapshot)))
                _set(self.connection, self._lock_timeout)
                yield self.connection
            finally:
                # Where the connection is lost, what broke first says why.
                with contextlib.suppress(psycopg.OperationalError):
                    run("ROLLBACK")

    def close(self, *, kept: bool = True) -> None:
        (self._sessions.give if kept else self._sessions.drop)(self.connection)


class Holder:
    """The session that holds the snapshot, as the only worker on it."""

    def __init__(self, snapshot: Snapshot, lock_timeout: timedelta, pace: Pace) -> None:
        self.connection = snapshot.catalog
        self.pace = pace
        self._lock_timeout = lock_timeout

    @contextmanager
    def transaction(self) -> Generator[psycopg.Connection[Any]]:
        """Open a part of the transaction; its locks and settings end with the block, before the pace's rest."""
        run = self.connection.execute
        with self.pace.statement():
            run("SAVEPOINT reading")
            try:
                _set(self.connection, self._lock_timeout)
                yield self.connection
            finally:
                with contextlib.suppress(psycopg.OperationalError):
                    run("ROLLBACK TO reading")
                    run("RELEASE reading")

    def close(self, *, kept: bool = True) -> None:
        """Leave it open: it belongs to the snapshot."""


def _set(connection: psycopg.Connection[Any], lock_timeout: timedelta) -> None:
    settings = {**ALONG_INDEX, "lock_timeout": str(lock_timeout // timedelta(milliseconds=1))}
    connection.execute(
        "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
        (list(settings), list(settings.values())),
    )


class Workers:
    """
    A pool of workers on one snapshot; threads borrow one for a slice or a table.

    On a standby it is one alone, and the snapshot's catalog is not to be read while somebody has borrowed it.
    """

    def __init__(
        self, sessions: Sessions, snapshot: Snapshot, size: int, lock_timeout: timedelta, pace: Pace | None = None
    ) -> None:
        self.pace = pace or Pace()
        self._idle: list[Worker | Holder] = (
            [Holder(snapshot, lock_timeout, self.pace)]
            if snapshot.id is None
            else [Worker(sessions, snapshot.id, lock_timeout, self.pace) for _ in range(size)]
        )
        self._all = list(self._idle)
        self._free = threading.Semaphore(len(self._all))

    @contextmanager
    def borrow(self) -> Generator[Worker | Holder]:
        with self._free:
            worker = self._idle.pop()
            try:
                yield worker
            finally:
                self._idle.append(worker)

    def cancel(self) -> None:
        """End rests, and ask the server to end what the workers run, so that an interrupted backup leaves at once."""
        self.pace.stop()
        cancel(worker.connection for worker in self._all)

    def close(self, *, kept: bool = True) -> None:
        for worker in self._all:
            worker.close(kept=kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(kept=error is None)
