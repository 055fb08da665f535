"""Sessions on real servers: pinned settings, errors in our words."""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from tests.fix_postgres import every_version
from zbackup.database.connection import connect, shown, source_errors
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.errors import SourceError, SourceRefused


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


def test_a_peer_that_vanished_is_noticed(postgres: EmbeddedPostgres) -> None:
    """
    Both ends ask the kernel to look after each other, as the DSN says or else every minute.
    """

    def probes(given: str = "") -> tuple[list[int], list[str]]:
        with connect(f"{postgres.dsn(tcp=True)} {given}") as session:
            names = ("tcp_keepalives_idle", "tcp_keepalives_interval", "tcp_keepalives_count")
            theirs = [session.execute("SELECT current_setting(%s)", (name,)).fetchone() for name in names]
            with socket.socket(fileno=os.dup(session.fileno())) as end:
                assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
                ours = [end.getsockopt(socket.IPPROTO_TCP, option) for option in options]
        return ours, [value for row in theirs if row for value in row]

    assert probes() == ([60, 10, 6], ["60", "10", "6"])
    assert probes("keepalives_idle=7 keepalives_count=3") == ([7, 10, 3], ["60", "10", "6"])


def test_a_service_keeps_its_own_probes(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What a service file says about the wire counts, however the service is named.
    """
    place = conninfo_to_dict(postgres.dsn(tcp=True, keepalives_idle=9))
    file = tmp_path / "services"
    file.write_text("[ours]\n" + "".join(f"{key}={value}\n" for key, value in place.items()))
    monkeypatch.setenv("PGSERVICEFILE", str(file))

    def idle(dsn: str) -> int:
        with connect(dsn) as session, socket.socket(fileno=os.dup(session.fileno())) as end:
            return end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)

    assert idle("service=ours") == 9
    monkeypatch.setenv("PGSERVICE", "ours")
    assert idle("") == 9
