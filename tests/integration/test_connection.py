"""Sessions on real servers: pinned settings, errors in our words, and no pooler in between."""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Generator, Iterator
from datetime import timedelta
from typing import IO, Literal

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from tests.fix_postgres import every_version
from zbackup.database.connection import connect, shown, source_errors
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.errors import NotSupported, SourceError, SourceRefused, TargetRefused, ZbackupError

Mode = Literal["session", "transaction", "statement"]


def name_of(database: str) -> str:
    return str(conninfo_to_dict(database)["dbname"])


@every_version
def test_settings_are_pinned_whatever_the_role_says(database: str) -> None:
    """
    Neither the database's nor the environment's nor the DSN's settings change what is read.
    """
    name = Identifier(name_of(database))
    with psycopg.connect(database, autocommit=True) as session:
        for setting in (
            "search_path = 'nowhere'",
            "\"DateStyle\" = 'SQL, DMY'",
            "\"IntervalStyle\" = 'iso_8601'",
            "bytea_output = 'escape'",
            "standard_conforming_strings = off",
            "statement_timeout = '1h'",
            "idle_in_transaction_session_timeout = '1h'",
            "default_transaction_isolation = 'serializable'",
            "default_transaction_deferrable = on",
        ):
            session.execute(SQL("ALTER DATABASE {} SET ").format(name) + SQL(setting))
    odd = make_conninfo(
        database, application_name="zitadel_es_pusher", client_encoding="LATIN1", options="-c TimeZone=Asia/Tokyo"
    )

    with connect(odd, lock_timeout=timedelta(seconds=2.5)) as session:
        found = dict(session.execute("SELECT name, current_setting(name) FROM pg_settings").fetchall())

        assert session.autocommit
    expected = {
        "application_name": "zbackup",
        "client_encoding": "UTF8",
        "search_path": "pg_catalog, pg_temp",
        "DateStyle": "ISO, YMD",
        "TimeZone": "UTC",
        "IntervalStyle": "postgres",
        "bytea_output": "hex",
        "extra_float_digits": "1",
        "standard_conforming_strings": "on",
        "row_security": "off",
        "statement_timeout": "0",
        "lock_timeout": "2500ms",
        "idle_in_transaction_session_timeout": "0",
        "idle_session_timeout": "0",
        "default_transaction_isolation": "read committed",
        "default_transaction_deferrable": "off",
        "default_transaction_read_only": "on",
    }
    assert {name: found[name] for name in expected} == expected
    assert found.get("transaction_timeout", "0") == "0"


@every_version
def test_a_source_is_read_only_and_a_target_is_not(database: str) -> None:
    """
    A session of a source cannot write, by mistake or otherwise.
    """
    with connect(database, role="target") as session:
        session.execute("CREATE TABLE public.made ()")

    with connect(database) as session, pytest.raises(SourceRefused, match="read-only transaction"):  # noqa: SIM117
        with source_errors(database):
            session.execute("DROP TABLE public.made")


@every_version
def test_a_lock_is_not_waited_for_long(database: str) -> None:
    """
    A table under a strong lock is given up after the time told, and may be tried again.
    """
    with psycopg.connect(database) as holder, connect(database, lock_timeout=timedelta(milliseconds=50)) as session:
        holder.execute("CREATE TABLE public.busy ()")
        holder.commit()
        holder.execute("LOCK TABLE public.busy")

        with pytest.raises(SourceError, match="lock timeout") as caught, source_errors(database):
            session.execute("SELECT FROM public.busy")

    assert caught.value.retry


@every_version
def test_what_the_role_may_not_read_is_named(database: str) -> None:
    """
    Missing rights name the table; rows hidden by a policy are an error, not a smaller backup.
    """
    role = f"poor_{name_of(database)}"
    with psycopg.connect(database, autocommit=True) as session:
        session.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(role)))
        try:
            session.execute("CREATE TABLE public.closed (); CREATE TABLE public.policed ()")
            session.execute("ALTER TABLE public.policed ENABLE ROW LEVEL SECURITY")
            session.execute(SQL("GRANT SELECT ON public.policed TO {}").format(Identifier(role)))
            with connect(f"{database} user={role}") as poor:
                with pytest.raises(SourceRefused, match="permission denied for table closed"), source_errors():
                    poor.execute("SELECT FROM public.closed")
                with pytest.raises(SourceRefused, match='policy for table "policed"') as caught, source_errors():
                    poor.execute("SELECT FROM public.policed")
        finally:
            session.execute(SQL("DROP OWNED BY {0}; DROP ROLE {0}").format(Identifier(role)))

    assert "BYPASSRLS" in caught.value.hint


@every_version
@pytest.mark.parametrize(
    ("change", "message", "hint"),
    [
        ({"user": "nobody_known"}, 'role "nobody_known" does not exist', "pg_hba"),
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist', "ZITADEL's own"),
        ({"host": "127.0.0.1", "password": "wr0ng"}, "password authentication failed", "passfile"),
        ({"host": "127.0.0.1", "port": "1", "password": "wr0ng"}, "refused", "host and port"),
        ({"options": "-c bogus=1"}, "unrecognized configuration parameter", "PGOPTIONS"),
    ],
)
def test_no_connection_says_why(postgres: EmbeddedPostgres, change: dict[str, str], message: str, hint: str) -> None:
    """
    Where there is no connection, the error names the place and the next step, and no password.
    """
    dsn = make_conninfo(postgres.dsn(), **change)

    with pytest.raises(SourceError, match=message) as caught:
        connect(dsn)

    assert shown(dsn) in caught.value.message
    assert hint in caught.value.hint
    assert "\n" not in caught.value.message
    assert "wr0ng" not in caught.value.message


@every_version
def test_a_session_that_was_ended_may_be_tried_again(postgres: EmbeddedPostgres, database: str) -> None:
    """
    A session ended by an administrator, and one that is gone, are worth another try.
    """
    with connect(database) as session:
        postgres_session = psycopg.connect(postgres.dsn(), autocommit=True)
        postgres_session.execute("SELECT pg_terminate_backend(%s)", (session.info.backend_pid,))
        postgres_session.close()
        for _ in range(2):
            with pytest.raises(SourceError) as caught, source_errors(database):
                session.execute("SELECT 1")

            assert caught.value.retry
            assert "restarted" in caught.value.hint


def pack(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def unpack(stream: IO[bytes]) -> tuple[bytes, bytes]:
    """Read one message; its kind is empty at the end."""
    kind = stream.read(1)
    if not kind:
        return b"", b""
    (length,) = struct.unpack("!i", stream.read(4))
    return kind, stream.read(length - 4)


def greeting(parameters: dict[str, str], key: int = 4711) -> bytes:
    """Welcome a client as a server does."""
    status = b"".join(pack(b"S", f"{name}\0{value}\0".encode()) for name, value in parameters.items())
    return pack(b"R", bytes(4)) + status + pack(b"K", struct.pack("!ii", key, 0)) + pack(b"Z", b"I")


def startup(stream: IO[bytes]) -> bytes:
    (length,) = struct.unpack("!i", stream.read(4))
    return stream.read(length - 4)


class Process:
    """A session of the pool with the server."""

    def __init__(self, server: EmbeddedPostgres, database: str) -> None:
        host = conninfo_to_dict(server.dsn())["host"]
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(os.fspath(f"{host}/.s.PGSQL.{server.port}"))
        self._stream: IO[bytes] = self._socket.makefile("rwb")  # type: ignore[assignment]
        hello = struct.pack("!i", 196608) + f"user\0postgres\0database\0{database}\0\0".encode()
        self.send(struct.pack("!i", len(hello) + 4) + hello)
        self.parameters: dict[str, str] = {}
        for kind, body in self.answers():
            if kind == b"S":
                name, value, _ = body.decode().split("\0")
                self.parameters[name] = value

    def send(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()

    def answers(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield messages up to the one that says that the server is ready."""
        kind = b""
        while kind != b"Z":
            kind, body = unpack(self._stream)
            yield kind, body

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


class Pool:
    """Server processes given to sessions, or to each transaction of theirs."""

    def __init__(self, server: EmbeddedPostgres, database: str, size: int, mode: Mode, *, rotate: bool) -> None:
        self.mode, self._rotate = mode, rotate
        self.processes = [Process(server, database) for _ in range(size)]
        self._free = list(self.processes)
        self._changed = threading.Condition()

    def take(self) -> Process:
        with self._changed:
            assert self._changed.wait_for(lambda: self._free, timeout=10)
            return self._free.pop(0 if self._rotate else -1)

    def give(self, process: Process) -> None:
        with self._changed:
            self._free.append(process)
            self._changed.notify()

    def serve(self, client: IO[bytes]) -> None:
        """Serve one session to its end."""
        startup(client)
        client.write(greeting(self.processes[0].parameters))
        client.flush()
        process: Process | None = None
        while (message := unpack(client))[0] not in {b"", b"X"}:
            if self.mode == "statement" and message == (b"Q", b"BEGIN\0"):
                text = b"SERROR\0C08P01\0Mtransaction blocks not allowed in statement pooling mode\0\0"
                client.write(pack(b"E", text) + pack(b"Z", b"I"))
                client.flush()
                continue
            process = process or self.take()
            process.send(pack(*message))
            if message[0] in {b"Q", b"S"}:
                status = b""
                for kind, body in process.answers():
                    client.write(pack(kind, body))
                    status = body
                client.flush()
                if self.mode != "session" and status == b"I":
                    self.give(process)
                    process = None
        if process is not None:
            process.send(pack(b"Q", b"ROLLBACK; DISCARD ALL\0" if self.mode == "session" else b"ROLLBACK\0"))
            list(process.answers())
            self.give(process)


@contextlib.contextmanager
def listening(serve: Callable[[IO[bytes]], None]) -> Generator[str]:
    """Accept clients on a port of this machine; yields the DSN."""

    class Client(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with self.request.makefile("rwb") as stream, contextlib.suppress(OSError):
                serve(stream)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Client) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            port = server.server_address[1]
            yield f"host=127.0.0.1 port={port} user=postgres dbname=any sslmode=disable gssencmode=disable"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def pooled(
    server: EmbeddedPostgres, database: str, size: int, mode: Mode, *, rotate: bool = False
) -> Generator[tuple[str, Pool]]:
    pool = Pool(server, name_of(database), size, mode, rotate=rotate)
    with listening(pool.serve) as dsn:
        yield dsn, pool
    for process in pool.processes:
        process.close()


@pytest.mark.parametrize("rotate", [False, True], ids=["last first", "in turn"])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_pooler_of_transactions_is_refused(
    postgres: EmbeddedPostgres, database: str, size: int, *, rotate: bool
) -> None:
    """
    A pooler that shares server processes is recognised, whichever it gives next, and nothing is left set in them.
    """
    with pooled(postgres, database, size, "transaction", rotate=rotate) as (dsn, pool):
        with pytest.raises(SourceRefused, match="a pooler shares server processes between sessions") as caught:
            connect(dsn)
        with pytest.raises(TargetRefused):
            connect(dsn, role="target")

        assert "session mode" in caught.value.hint
        for process in pool.processes:
            process.send(pack(b"Q", b"SHOW search_path\0"))
            rows = [body for kind, body in process.answers() if kind == b"D"]

            assert b"public" in rows[0]


def test_a_pooler_of_statements_is_refused(postgres: EmbeddedPostgres, database: str) -> None:
    """
    A pooler that allows no transactions is of no use.
    """
    with (
        pooled(postgres, database, 2, "statement") as (dsn, _),
        pytest.raises(SourceRefused, match="a pooler refuses transactions"),
    ):
        connect(dsn)


def test_a_pooler_of_sessions_is_fine(postgres: EmbeddedPostgres, database: str) -> None:
    """
    Where a session keeps its process, all is well.
    """
    with pooled(postgres, database, 3, "session") as (dsn, _), connect(dsn) as one, connect(dsn) as two:
        found = [session.execute("SHOW search_path").fetchone() for session in (one, two)]

    assert found == [("pg_catalog, pg_temp",)] * 2


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        ({"server_version": "13.0.0", "crdb_version": "CockroachDB CCL v25.2.0"}, NotSupported, "is CockroachDB"),
        ({"server_version": "12.22"}, SourceRefused, "is of version 12.22; zbackup needs PostgreSQL 13 or later"),
        ({"server_version": "1.18.0/bouncer"}, SourceRefused, "is of version 1.18.0/bouncer"),
    ],
)
def test_servers_that_are_not_known_are_refused(
    parameters: dict[str, str], kind: type[ZbackupError], message: str
) -> None:
    """
    CockroachDB is recognised by its greeting, old servers and a pooler's console by their version.
    """

    def greet(client: IO[bytes]) -> None:
        startup(client)
        client.write(greeting({"client_encoding": "UTF8", **parameters}))
        client.flush()
        unpack(client)

    with listening(greet) as dsn, pytest.raises(kind, match=message):
        connect(dsn)
