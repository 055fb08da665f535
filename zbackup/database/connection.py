"""
Sessions of PostgreSQL: opened with everything pinned that changes what is read.

Refused are servers we do not know, and poolers that hand server processes from session to session between
two transactions: settings, snapshots and process ids mean nothing behind those. A pool in session mode is fine.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import pq
from psycopg.rows import TupleRow

from zbackup.database.failures import Role, refused, shown, source_errors, target_errors, translated
from zbackup.dsn import parse
from zbackup.errors import NotSupported

__all__ = [
    "Connection", "Role", "cancel", "connect", "driver", "same_server", "shown", "source_errors", "target_errors",
]  # fmt: skip

Connection = psycopg.Connection[TupleRow]

# Old ZITADEL servers wait for the transactions of names that begin with zitadel_es_pusher: never one of these.
APPLICATION = "zbackup"

# The oldest server with all that the horizon reads.
OLDEST = 130000

# A read waits this long behind a strong lock; while it waits, logins queue behind it.
LOCK_TIMEOUT = timedelta(seconds=10)

# Whatever role, database and DSN say, rows are to be the same bytes, and no session of ours is to end because
# a store is slow. Names that a server does not know are left out.
_PINNED = {
    "DateStyle": "ISO, YMD",
    "TimeZone": "UTC",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "row_security": "off",  # a policy that would hide rows is an error, not a smaller backup
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # For the server, too, a peer may vanish: its snapshot would hold back VACUUM for hours.
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
}

# A peer that vanished without a word (power, a firewall that forgets) is noticed within two minutes while we wait
# for it; without these after two hours, or never. One that is merely slow still answers the kernel's probes. There
# is no tcp_user_timeout: it would also end a session whose server takes in no rows for as long, as a busy one may.
_KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 10, "keepalives_count": 6}

# A server that does not take a request to cancel within this time is not asked twice.
_CANCEL_SECONDS = 3

# A pooler gives out the process that came back last, or rotates: looks with and without a transaction held open
# beside tell either at once, unless other sessions take part or it is slow to take a process back.
_LOOKS = 10
_PAUSE_SECONDS = 0.005


def connect(dsn: str, *, role: Role = "source", lock_timeout: timedelta | None = None) -> Connection:
    """
    Open a session in autocommit with its settings pinned.

    `dsn` is whatever libpq takes, '' included. A source session is read-only and waits no longer than
    `LOCK_TIMEOUT` for a lock unless told; a target session waits as long as it takes.

    Raises:
        UsageError: the DSN cannot be read.
        NotSupported: the server is CockroachDB.
        SourceRefused, TargetRefused: it is too old, or a pooler that shares server processes is in between.
        SourceError, TargetError: there is no connection.

    """
    if lock_timeout is None:
        lock_timeout = LOCK_TIMEOUT if role == "source" else timedelta(0)
    connection = _open(dsn, role)
    try:
        with translated(dsn, role):
            _expect_server(connection, dsn, role)
            _expect_own_process(connection, dsn, role)
            _pin(connection, role, lock_timeout)
    except BaseException:
        connection.close()
        raise
    return connection


def cancel(sessions: Iterable[Connection]) -> None:
    """
    Let the server end what sessions run in other threads, so that these go on; hang up where it does not answer.

    Raises nothing: it is called where something failed before.
    """
    answers = True
    for session in sessions:
        with contextlib.suppress(psycopg.Error, OSError):
            try:
                if answers:
                    session.cancel_safe(timeout=_CANCEL_SECONDS)
            except psycopg.Error:
                answers = False
            if not answers:
                _hang_up(session)


def _hang_up(session: Connection) -> None:
    """End the connection below libpq, which another thread waits in."""
    with socket.socket(fileno=os.dup(session.fileno())) as end:
        end.shutdown(socket.SHUT_RDWR)


def driver() -> tuple[str, str]:
    """Return the versions of psycopg and of the libpq that it uses."""
    number = pq.version()
    return psycopg.__version__, f"{number // 10000}.{number % 10000}"


def same_server(connection: Connection, other: Connection) -> bool:
    """
    Tell whether two sessions reached the same running server and database.

    With several hosts in the DSN or a load balancer they may not; a horizon settled on one server says nothing
    about a snapshot of another.
    """
    return _place(connection) == _place(other)


def _place(connection: Connection) -> TupleRow | None:
    return connection.execute("SELECT pg_postmaster_start_time(), pg_is_in_recovery(), current_database()").fetchone()


def _open(dsn: str, role: Role) -> Connection:
    given = parse(dsn).keys() | {option.keyword.decode() for option in pq.Conninfo.get_defaults() if option.val}
    # A service may set them, and gives way to whatever else does.
    missing = set[str]() if "service" in given else _KEEPALIVES.keys() - given
    keepalives: dict[str, Any] = {key: _KEEPALIVES[key] for key in missing}
    with translated(dsn, role):
        return psycopg.connect(
            dsn,
            autocommit=True,
            prepare_threshold=None,
            application_name=APPLICATION,
            client_encoding="UTF8",
            **keepalives,
        )


def _expect_server(connection: Connection, dsn: str, role: Role) -> None:
    version = (connection.pgconn.parameter_status(b"server_version") or b"unknown").decode()
    if connection.pgconn.parameter_status(b"crdb_version") is not None:
        raise NotSupported(
            f"{role} {shown(dsn)} is CockroachDB",
            hint="This zbackup handles PostgreSQL only; `zitadel mirror` copies from one to the other.",
        )
    if "-YB-" in version:
        raise NotSupported(
            f"{role} {shown(dsn)} is YugabyteDB {version}",
            hint="This zbackup handles PostgreSQL only: elsewhere one server does not see the transactions of all.",
        )
    if connection.pgconn.server_version < OLDEST:
        raise refused(role)(
            f"{role} {shown(dsn)} is of version {version}; zbackup needs PostgreSQL 13 or later",
            hint="Point zbackup at the PostgreSQL server itself, and upgrade it if it is that old.",
        )


def _expect_own_process(connection: Connection, dsn: str, role: Role) -> None:
    """
    Refuse a pooler that serves one session by several server processes.

    Sets nothing: a setting would stay with a process that serves ZITADEL next.
    """
    first = _process(connection)
    if first == connection.info.backend_pid:
        return  # who answers is who greeted us; a pooler greets with a number of its own
    hint = (
        "Connect to PostgreSQL itself, or to a pool in session mode: several sessions share one snapshot, and "
        "each must keep its server process."
    )
    mine, others = {first}, set[int]()
    with contextlib.closing(_open(dsn, role)) as beside:
        for number in range(_LOOKS):
            time.sleep(_PAUSE_SECONDS)
            try:
                beside.execute("BEGIN")
                others.add(_process(beside))
                # Not before these differ: in a pool of one process we would wait for our own transaction.
                if not mine & others:
                    mine.add(_process(connection))
                beside.execute("ROLLBACK")
            except psycopg.Error as error:
                if "pool" not in str(error):
                    raise
                raise refused(role)(f"{role} {shown(dsn)}: a pooler refuses transactions", hint=hint) from error
            if number % 2:  # not always: two that rotate would stay in step
                time.sleep(_PAUSE_SECONDS)
                mine.add(_process(connection))
            if len(mine) > 1 or len(others) > 1 or mine & others:
                raise refused(role)(
                    f"{role} {shown(dsn)}: a pooler shares server processes between sessions", hint=hint
                )


def _process(connection: Connection) -> int:
    row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    assert row is not None
    return row[0]


def _pin(connection: Connection, role: Role, lock_timeout: timedelta) -> None:
    # First the search path, so that what follows cannot mean a function of someone else's.
    connection.execute("SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', false)")
    pinned = {**_PINNED, "lock_timeout": str(round(lock_timeout / timedelta(milliseconds=1)))}
    if role == "source":
        pinned["default_transaction_read_only"] = "on"
    connection.execute(
        """SELECT set_config(s.name, wanted.value, false)
             FROM unnest(%s::text[], %s::text[]) wanted (name, value)
             JOIN pg_settings s ON lower(s.name) = lower(wanted.name)""",
        (list(pinned), list(pinned.values())),
    )
