"""
One instant of the source, seen by several sessions.

The session that exports the snapshot touches no table, and workers end their transaction after each slice or
table: nobody holds a table lock for long. The price: a table that someone rewrites or truncates meanwhile
reads as empty, without an error (PostgreSQL 15, measured); who reads compares `file_identity` afterwards.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql

from zbackup.database.connection import connect
from zbackup.database.export import ALONG_INDEX


class Snapshot:
    """Holds an exported snapshot until it is closed."""

    def __init__(self, dsn: str) -> None:
        self._connection = connect(dsn)
        self._connection.execute("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        row = self._connection.execute("SELECT pg_export_snapshot(), transaction_timestamp()").fetchone()
        assert row is not None
        self.id: str = row[0]
        self.clock: datetime = row[1]
        """The server's clock just before: all that was committed by then is seen."""

    @property
    def pid(self) -> int:
        return self._connection.info.backend_pid

    def fetch(self, query: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """Read the catalog as the snapshot shows it. Tables are not to be touched here."""
        return self._connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    @property
    def catalog(self) -> psycopg.Connection[Any]:
        """The holding session, for reads of the catalog alone."""
        return self._connection

    def close(self) -> None:
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Worker:
    """A session that reads in somebody's snapshot, one short transaction at a time."""

    def __init__(self, dsn: str, snapshot: str, lock_timeout: timedelta) -> None:
        self.connection = connect(dsn)
        self._snapshot = snapshot
        settings = {**ALONG_INDEX, "lock_timeout": str(lock_timeout // timedelta(milliseconds=1))}
        self._settings = (list(settings), list(settings.values()))

    @property
    def pid(self) -> int:
        return self.connection.info.backend_pid

    @contextmanager
    def transaction(self) -> Generator[psycopg.Connection[Any]]:
        """Open a transaction that sees the snapshot; it ends with the block."""
        run = self.connection.execute
        run("BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        try:
            run(sql.SQL("SET TRANSACTION SNAPSHOT {}").format(sql.Literal(self._snapshot)))
            run(
                "SELECT set_config(name, value, true) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
                self._settings,
            )
            yield self.connection
        finally:
            if not self.connection.closed:
                run("ROLLBACK")

    def close(self) -> None:
        self.connection.close()


class Workers:
    """A pool of workers on one snapshot; threads borrow one for a slice or a table."""

    def __init__(self, dsn: str, snapshot: str, size: int, lock_timeout: timedelta) -> None:
        self._idle = [Worker(dsn, snapshot, lock_timeout) for _ in range(size)]
        self._all = list(self._idle)
        self._free = threading.Semaphore(size)

    @contextmanager
    def borrow(self) -> Generator[Worker]:
        with self._free:
            worker = self._idle.pop()
            try:
                yield worker
            finally:
                self._idle.append(worker)

    def cancel(self) -> None:
        """Ask the server to end what the workers run, so that an interrupted backup leaves at once."""
        for worker in self._all:
            if not worker.connection.closed:
                worker.connection.cancel_safe(timeout=5)

    def close(self) -> None:
        for worker in self._all:
            worker.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
