"""The doctor's checks, each on what is well and on what is not."""

from __future__ import annotations

import itertools
import json
import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from tests import fixture_data
from tests.fix_archive import Backup
from tests.fix_postgres import StartPostgres, every_version
from tests.history import create_schema, fill, fill_state, push
from zbackup.archive.archive import Archive
from zbackup.check import Check
from zbackup.check_zitadel import CONTROL
from zbackup.database.embedded import EmbeddedPostgres, standby_of
from zbackup.database.grants import grants
from zbackup.database.inspect_source import existing
from zbackup.doctor import DoctorResult, doctor
from zbackup.store.base import Stat
from zbackup.store.local import LocalStore
from zbackup.zitadel.config_file import ZitadelConfig
from zbackup.zitadel.running import Redis, Running
from zbackup.zitadel.tables import SCHEMAS

PUSH = """
    CREATE OR REPLACE FUNCTION eventstore.commands_to_events() RETURNS timestamptz LANGUAGE sql AS 'SELECT {}()'
"""

_numbers = itertools.count()


@pytest.fixture
def zitadel(database: str) -> str:
    """The database of a ZITADEL in good health."""
    with psycopg.connect(database) as connection:
        fixture_data.load(connection, "v4.13.1", tables="state")
    execute(database, PUSH.format("statement_timestamp"))
    return database


@pytest.fixture
def small(database: str) -> str:
    """A small database that lacks nothing but a version."""
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=50)
    return database


@pytest.fixture
def new_role(postgres: EmbeddedPostgres) -> Iterator[Callable[[], str]]:
    """Name roles that do not exist yet; whatever becomes of them is gone after the databases."""
    names: list[str] = []

    def new() -> str:
        names.append(f"zb role {next(_numbers)}")
        return names[-1]

    yield new
    with psycopg.connect(postgres.dsn(), autocommit=True) as connection:
        for name in names:
            connection.execute(SQL("DROP ROLE IF EXISTS {}").format(Identifier(name)))


def execute(dsn: str, statement: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement)  # type: ignore[arg-type]


def examine(source: str | None = None, archive: Archive | None = None, **options: Any) -> DoctorResult:
    return doctor(archive.store if archive else None, source, **options)


def one(name: str, result: DoctorResult) -> Check:
    (check,) = [check for check in result.checks if check.name == name]
    return check


@every_version
def test_all_is_well(archive: Archive, zitadel: str) -> None:
    """
    A healthy source and a good archive pass every check.
    """
    result = examine(zitadel, archive)

    verdicts = {check.name: check.verdict for check in result.checks}
    assert {name: verdict for name, verdict in verdicts.items() if verdict != "ok"} == {
        "assets": "skipped",
        "caches": "skipped",
        "masterkey": "skipped",
        "projections": "skipped",
    }
    assert set(verdicts) == {
        "store", "read-back", "listing", "range read", "create-only", "checksum", "archive",
        "source", "pooler", "events", "zitadel", "tables", "rights", "sessions", "track_activities", "prepared",
        "replication", "horizon", "timeouts", "pg_dump", "numpy", "spool", "clocks", "assets", "masterkey",
        "connections", "projections", "caches",
    }  # fmt: skip
    assert result.ok
    assert result.grants is None
    assert "v4.13.1" in one("zitadel", result).message
    assert [stat.name for stat in archive.objects() if stat.name.startswith("probes/")] == []


def test_with_nothing_given_it_looks_at_this_machine() -> None:
    """
    Without archive and source these are skipped, and said to be.
    """
    result = examine()

    assert ("skipped", "skipped") == (one("store", result).verdict, one("source", result).verdict)
    assert (one("spool", result).verdict, one("numpy", result).verdict) == ("ok", "ok")
    assert result.ok


def test_numpy_that_cannot_be_loaded_is_a_warning(archive: Archive, tmp_path: Path) -> None:
    """
    Without it all works, and takes longer: who wonders why is told.
    """
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").write_text("raise RuntimeError('NumPy was built with baseline optimizations')")

    done = subprocess.run(
        [sys.executable, "-m", "zbackup", "doctor", "--json", "--archive", archive.store.address],
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        check=True,
    )

    checks = {check["name"]: check["verdict"] for check in json.loads(done.stdout.splitlines()[-1])["checks"]}
    assert checks["numpy"] == "warn"


def test_a_source_that_is_not_reached(database: str) -> None:
    """
    A server that does not answer is a finding with a way out and without the password.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    result = examine(f"host=127.0.0.1 port={port} user=zitadel password=hush-hush dbname=zitadel")

    check = one("source", result)
    assert check.verdict == "fail"
    assert check.next_step
    assert not result.ok
    assert "hush-hush" not in str(asdict(result))


@pytest.mark.parametrize(
    ("statement", "verdict", "words"),
    [
        ("DROP TABLE eventstore.events2", "fail", "missing"),
        ("ALTER TABLE eventstore.events2 RENAME TO events", "fail", "v2.38"),
        ("ALTER TABLE eventstore.events2 ADD extra text", "fail", "extra"),
        ("DROP INDEX eventstore.es_active_instances", "warn", "created_at"),
        ("TRUNCATE eventstore.events2", "warn", "empty"),
        ("UPDATE eventstore.events2 SET created_at = created_at + '100 years'", "warn", "after the server's clock"),
    ],
)
def test_the_events_table_is_not_as_it_should_be(small: str, statement: str, verdict: str, words: str) -> None:
    """
    A missing, old, unknown, slow or odd events table is named.
    """
    execute(small, statement)

    check = one("events", examine(small))

    assert verdict == check.verdict
    assert words in check.message
    assert check.next_step


@pytest.mark.parametrize(
    ("clock", "verdict", "words"),
    [
        ("statement_timestamp", "ok", "their push"),
        ("clock_timestamp", "ok", "own insertion"),
        ("now", "ok", "their transaction"),
        ("something", "warn", "not known"),
        (None, "warn", "missing"),
    ],
)
def test_how_zitadel_dates_events(zitadel: str, clock: str | None, verdict: str, words: str) -> None:
    """
    The era of the push function is told by its text; one that setup made and that is gone is a finding.
    """
    execute(zitadel, "DROP FUNCTION eventstore.commands_to_events")
    if clock == "something":
        execute(
            zitadel, "CREATE FUNCTION public.something() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'"
        )
        execute(zitadel, PUSH.format("public.something"))
    elif clock is not None:
        execute(zitadel, PUSH.format(clock))

    check = one("zitadel", examine(zitadel))

    assert verdict == check.verdict
    assert words in check.message


def test_without_push_function_up_to_v2_65(small: str) -> None:
    """
    Old versions have no push function, and that is well.
    """
    assert ("ok", True) == ((check := one("zitadel", examine(small))).verdict, "without" in check.message)


def test_unknown_tables_are_named(small: str) -> None:
    """
    A table that no version of ZITADEL has is named.
    """
    execute(small, "CREATE TABLE projections.novelty ()")

    assert "projections.novelty" in (check := one("tables", examine(small))).message
    assert check.verdict == "warn"


def test_missing_rights(new_role: Callable[[], str], small: str) -> None:
    """
    Tables that the role may not read are named: a failure when it is the events or state, else a warning.
    """
    role = new_role()
    execute(small, f'CREATE ROLE "{role}" LOGIN')
    dsn = make_conninfo(small, user=role)
    schemas = "eventstore, system, projections, auth, queue, cache"
    execute(small, f'GRANT USAGE ON SCHEMA {schemas} TO "{role}"')
    execute(small, f'GRANT SELECT ON eventstore.events2, system.assets TO "{role}"')

    rights = one("rights", examine(dsn))
    assert rights.verdict == "fail"
    assert "system.encryption_keys" in rights.message

    execute(small, f'GRANT SELECT ON ALL TABLES IN SCHEMA {schemas} TO "{role}"')
    assert one("rights", examine(dsn)).verdict == "ok"

    execute(small, f'REVOKE SELECT ON auth.auth_requests FROM "{role}"')
    rights = one("rights", examine(dsn))
    assert (rights.verdict, "auth.auth_requests" in rights.message) == ("warn", True)

    execute(small, f'REVOKE SELECT ON eventstore.events2 FROM "{role}"')
    result = examine(dsn)
    assert one("rights", result).verdict == "fail"
    assert "--grants" in one("rights", result).next_step

    execute(small, f'GRANT SELECT ON eventstore.events2 TO "{role}"')
    execute(small, "ALTER TABLE system.assets ENABLE ROW LEVEL SECURITY")
    assert "system.assets" in one("rights", examine(dsn)).message


def test_hidden_sessions(new_role: Callable[[], str], small: str) -> None:
    """
    A role that cannot see others is told so; while one of these has a transaction open nothing can be sealed.
    """
    role = new_role()
    database = conninfo_to_dict(small)["dbname"]
    execute(small, grants(role, str(database), "postgres", ["eventstore"]))
    execute(small, f'REVOKE pg_read_all_stats FROM "{role}"')
    with psycopg.connect(small) as other:
        other.execute("SELECT 1")
        result = examine(make_conninfo(small, user=role))

    assert one("sessions", result).verdict == "warn"
    assert "pg_read_all_stats" in one("sessions", result).next_step
    assert one("horizon", result).verdict == "warn"
    assert "nothing can be sealed" in one("horizon", result).message


def test_track_activities_off(new_role: Callable[[], str], small: str) -> None:
    """
    Sessions and roles that do not show their transactions are named.
    """
    role = new_role()
    execute(small, f'CREATE ROLE "{role}" LOGIN')
    execute(small, f'ALTER ROLE "{role}" SET track_activities = off')
    with psycopg.connect(make_conninfo(small, user=role)):
        check = one("track_activities", examine(small))

    assert check.verdict == "warn"
    assert role in check.message
    assert "1 sessions" in check.message


def test_prepared_transactions(small: str) -> None:
    """
    A prepared transaction that wrote events freezes the horizon and is named; another does not matter.
    """
    with psycopg.connect(small) as other:
        other.execute("CREATE TABLE other (); PREPARE TRANSACTION 'harmless'")
    assert one("prepared", examine(small)).message.startswith("1 prepared transactions, none")

    with psycopg.connect(small) as other:
        other.execute("DELETE FROM eventstore.events2; PREPARE TRANSACTION 'forgotten'")
    check = one("prepared", examine(small))

    execute(small, "ROLLBACK PREPARED 'harmless'")
    execute(small, "ROLLBACK PREPARED 'forgotten'")
    assert check.verdict == "warn"
    assert "forgotten" in check.message


def test_who_holds_the_horizon_back(small: str) -> None:
    """
    An open transaction is named with its process, role and program.
    """
    with psycopg.connect(small, application_name="reporting") as other:
        other.execute("SELECT 1")
        pid = other.info.backend_pid
        check = one("horizon", examine(small))

    assert check.verdict == "ok"
    assert "reporting" in check.message
    assert f"pid {pid}" in check.message


def test_a_subscriber_is_refused(small: str) -> None:
    """
    A table that logical replication fills is a failure.
    """
    execute(small, "CREATE SUBSCRIPTION s CONNECTION '' PUBLICATION p WITH (connect = false)")
    execute(
        small,
        "SET allow_system_table_mods = on; INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate)"
        " SELECT oid, 'eventstore.events2'::regclass, 'r' FROM pg_subscription WHERE subname = 's'",
    )

    check = one("replication", examine(small))
    execute(small, "ALTER SUBSCRIPTION s SET (slot_name = NONE)")
    execute(small, "DROP SUBSCRIPTION s")

    assert check.verdict == "fail"
    assert "replication" in check.message


def test_a_standby(start_postgres: StartPostgres) -> None:
    """
    A standby without its primary is a warning; with it all is well once long reads are not cancelled.
    """
    primary = start_postgres()
    with psycopg.connect(primary.dsn()) as connection:
        create_schema(connection)
        fill(connection, events=20)
    with standby_of(primary) as standby:
        alone = examine(standby.dsn())
        fenced = examine(standby.dsn(), fence=primary.dsn())
        execute(standby.dsn(), "ALTER SYSTEM SET hot_standby_feedback = on")
        execute(standby.dsn(), "SELECT pg_reload_conf()")
        calm = examine(standby.dsn(), fence=primary.dsn())
        wrong = examine(standby.dsn(), fence=standby.dsn())

    assert ("warn", True) == ((check := one("replication", alone)).verdict, "--fence" in check.next_step)
    assert ("warn", True) == ((check := one("replication", fenced)).verdict, "hot_standby" in check.next_step)
    assert ("ok", "ok") == (one("replication", calm).verdict, one("horizon", calm).verdict)
    assert one("replication", wrong).verdict == "fail"


def test_timeouts_of_role_and_database(small: str) -> None:
    """
    Limits set for a role or a database are named; they are set aside in zbackup's own sessions.
    """
    with psycopg.connect(small, autocommit=True) as connection:
        database = Identifier(connection.info.dbname)
        connection.execute(SQL("ALTER DATABASE {} SET statement_timeout = '7s'").format(database))
        connection.execute(SQL("ALTER DATABASE {} SET idle_in_transaction_session_timeout = '9s'").format(database))

    check = one("timeouts", examine(small))

    assert check.verdict == "ok"
    assert "statement_timeout = 7000 ms" in check.message
    assert "idle_in_transaction_session_timeout = 9000 ms" in check.message


def test_snapshots_that_become_too_old(start_postgres: StartPostgres) -> None:
    """
    A server that lets snapshots expire is a warning.
    """
    server = start_postgres(old_snapshot_threshold="1h")
    assert one("timeouts", examine(server.dsn())).verdict == "warn"


def test_no_pg_dump(small: str) -> None:
    """
    A pg_dump that was named and does not fit is a failure.
    """
    check = one("pg_dump", examine(small, pg_dump="/nonexistent/pg_dump"))

    assert check.verdict == "fail"
    assert "--pg-dump" in check.next_step


def test_no_room_for_the_spool(tmp_path: Path) -> None:
    """
    A spool folder that is missing or too small is a failure.
    """
    missing = one("spool", examine(spool=str(tmp_path / "missing")))
    assert ("fail", True) == (missing.verdict, "missing" in missing.message)

    assert one("spool", examine(spool=str(tmp_path), jobs=10**9)).verdict == "fail"


@pytest.mark.parametrize(("ahead", "verdict"), [(0.0, "ok"), (60.0, "warn"), (-3600.0, "fail")])
def test_clocks(archive: Archive, small: str, ahead: float, verdict: str) -> None:
    """
    A clock of ours that differs from the server's and the store's is a finding.
    """
    result = examine(small, archive, now=lambda: datetime.now(UTC) + timedelta(seconds=ahead))

    check = one("clocks", result)
    assert verdict == check.verdict
    assert "database" in check.message
    assert "store" in check.message


class ListsNothing(LocalStore):
    """Stores objects and lists them too late."""

    def list(self, prefix: str, *, fold: bool = False) -> Iterator[Stat]:
        del prefix, fold
        return iter(())


def test_a_store_that_lists_too_late(tmp_path: Path) -> None:
    """
    A store without what a backup needs fails, and what does not open is no archive.
    """
    result = doctor(ListsNothing(tmp_path / "store", create=True), None)

    assert ("fail", "ok") == (one("listing", result).verdict, one("read-back", result).verdict)
    assert ("fail", True) == ((check := one("archive", result)).verdict, "zbackup init" in check.next_step)


class OnlyAStore:
    """Hides what a store can do beyond the contract."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        if name == "write_once":
            raise AttributeError(name)
        return getattr(self._store, name)


def test_a_store_of_unknown_manners(tmp_path: Path) -> None:
    """
    What cannot be seen of a store is a warning, not a failure.
    """
    store: Any = OnlyAStore(LocalStore(tmp_path / "store", create=True))
    result = doctor(store, None)

    assert ("warn", "warn") == (one("create-only", result).verdict, one("checksum", result).verdict)


def test_a_store_that_takes_nothing(tmp_path: Path) -> None:
    """
    Where nothing can be stored the other checks of the store are left out.
    """
    store = LocalStore(tmp_path / "store", create=True)
    (tmp_path / "store").rmdir()
    (tmp_path / "store").write_text("in the way")

    result = doctor(store, None)

    assert one("store", result).verdict == "fail"
    assert "listing" not in {check.name for check in result.checks}


@pytest.mark.parametrize(("storage", "verdict"), [("db", "ok"), ("s3", "warn")])
def test_assets_elsewhere(storage: str, verdict: str) -> None:
    """
    Assets outside the database are in no backup of it.
    """
    config = ZitadelConfig(dsn="", origin="", external_domain="", asset_storage=storage)

    assert verdict == one("assets", examine(zitadel=config)).verdict


@pytest.mark.parametrize(
    ("check", "running", "verdict", "said"),
    [
        ("caches", Running(), "ok", "none outlives a restore"),
        ("caches", Running(redis=Redis(("instance",), "r:1", 11)), "warn", "Caches.Instance: kept in Redis at r:1"),
        ("projections", Running(), "ok", "up to 60 s"),
        ("projections", Running(longest_transaction=timedelta(minutes=6)), "warn", "up to 360 s"),
        ("projections", Running(longest_transaction=timedelta(0)), "warn", "without a limit"),
    ],
)
def test_what_zitadels_configuration_says(check: str, running: Running, verdict: str, said: str) -> None:
    """
    Caches that a restore does not reach, and transactions that hold the horizon back.
    """
    found = one(check, examine(zitadel=ZitadelConfig("", "", "", "db", running)))

    assert (found.verdict, said in found.message) == (verdict, True)
    assert (found.next_step == "") == (verdict == "ok")
    assert one(check, examine()).verdict == "skipped"


def test_connections_beside_zitadel(new_role: Callable[[], str], database: str, back_up: Backup) -> None:
    """
    What the role's limit lets in is enough for a whole backup, and one less is not; ZITADEL's own are counted in.
    """
    role, jobs = new_role(), 2
    name = f'"{role}"'
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill_state(connection)
        fill(connection, events=30_000)
        schemas = existing(connection, SCHEMAS)
        dbname = connection.info.dbname
    execute(database, grants(role, dbname, "postgres", schemas))
    execute(database, f"ALTER ROLE {name} CONNECTION LIMIT {jobs + CONTROL}")
    source = make_conninfo(database, user=role)

    def look(**running: Any) -> Check:
        config = ZitadelConfig("", "", "", "db", Running(**running)) if running else None
        return one("connections", doctor(None, source, zitadel=config, jobs=jobs))

    enough = look()
    made = back_up(source, capture=True, jobs=jobs)
    many = look(max_open_conns=jobs + CONTROL)
    few = look(max_open_conns=0, max_conn_lifetime=timedelta(0))
    execute(database, f"ALTER ROLE {name} CONNECTION LIMIT {jobs + CONTROL - 1}")
    short = look()

    assert (enough.verdict, enough.message) == ("ok", "5 of 5 are free, a backup with 2 jobs needs 5")
    assert made.warnings == made.not_captured == ()
    assert many.verdict == "warn"
    assert "up to 5 (MaxOpenConns), a backup with 2 jobs needs 5, and the role's CONNECTION LIMIT" in many.message
    assert few.verdict == "warn"
    assert "MaxConnLifetime is 0 s" in few.message
    assert short.verdict == "fail"
    assert "4 of 4 are free (the role's CONNECTION LIMIT)" in short.message


@every_version
def test_grants_are_enough(new_role: Callable[[], str], database: str, archive: Archive, back_up: Backup) -> None:
    """
    With nothing but the printed rights every check passes, a backup captures everything, and nothing can be
    written; tables made later can be read too. The SQL may be run twice.
    """
    owner, role = new_role(), new_role()
    with psycopg.connect(database, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(SQL("CREATE ROLE {} LOGIN").format(Identifier(owner)))
        connection.execute(SQL("ALTER DATABASE {} OWNER TO {}").format(Identifier(name), Identifier(owner)))
    execute(database, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
    execute(database, f"REVOKE CONNECT, TEMPORARY ON DATABASE {name} FROM PUBLIC")
    with psycopg.connect(make_conninfo(database, user=owner)) as connection:
        create_schema(connection)
        fill(connection, events=50)
        fill_state(connection)
        printed = examine(make_conninfo(database, user=owner), grants=True).grants
    schemas = ("eventstore", "system", "projections", "auth", "cache", "queue")
    assert printed == grants("zbackup", name, owner, schemas)
    for _ in range(2):
        execute(database, grants(role, name, owner, schemas))
    with psycopg.connect(make_conninfo(database, user=owner)) as connection:
        connection.execute("CREATE SCHEMA zitadel; CREATE TABLE zitadel.instances (id text)")
        push(connection, "i1", ("user", "u1"))
    dsn = make_conninfo(database, user=role)

    result = examine(dsn, archive, grants=True)
    verdicts = {check.name: check for check in result.checks if check.verdict not in {"ok", "skipped"}}
    done = back_up(dsn, capture=True)

    assert verdicts == {}
    assert result.grants is not None
    assert f'"{role}"' in result.grants
    assert done.capture is not None
    assert done.capture.schema
    assert () == done.warnings
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("DELETE FROM zitadel.instances")


@contextmanager
def pooler(dsn: str, *, shared: bool) -> Generator[str]:
    """
    Stand between clients and a server and greet them with other process ids, as poolers do.

    `shared`: all transactions of all clients go through one server process in turn; else each has its own.
    """
    one_process, turn = psycopg.connect(dsn, autocommit=True), threading.Lock()

    def serve(client: socket.socket, pid: int) -> None:
        own = one_process if shared else psycopg.connect(dsn, autocommit=True)
        upstream = socket.fromfd(own.pgconn.socket, socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(OSError), client:
            length = struct.unpack("!I", client.recv(4))[0]
            if struct.unpack("!I", client.recv(length - 4)[:4])[0] == 80877103:  # asks for TLS
                client.sendall(b"N")
                length = struct.unpack("!I", client.recv(4))[0]
                client.recv(length - 4)
            greeting = b"R\0\0\0\x08\0\0\0\0"
            version = str(own.info.parameter_status("server_version"))
            for key, value in (("server_version", version), ("client_encoding", "UTF8")):
                body = f"{key}\0{value}\0".encode()
                greeting += b"S" + struct.pack("!I", len(body) + 4) + body
            client.sendall(greeting + b"K" + struct.pack("!III", 12, pid, 1) + b"Z\0\0\0\x05I")
            while request := client.recv(1 << 16):
                if request[:1] == b"X":
                    break
                with turn if shared else nullcontext():
                    upstream.setblocking(True)
                    upstream.sendall(request)
                    answer = b""
                    while answer[-6:-1] != b"Z\0\0\0\x05":
                        answer += upstream.recv(1 << 16)
                    client.sendall(answer)
        upstream.close()
        if not shared:
            own.close()

    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            for pid in itertools.count(100_000_000):
                client, _ = listener.accept()
                threading.Thread(target=serve, args=(client, pid), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield make_conninfo(dsn, host="127.0.0.1", port=listener.getsockname()[1], sslmode="disable")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        one_process.close()


def test_poolers(small: str) -> None:
    """
    A pooler that keeps sessions apart is well, one that shares server processes is a failure.
    """
    with pooler(small, shared=False) as dsn:
        assert "of its own" in (check := one("pooler", examine(dsn))).message
        assert check.verdict == "ok"

    with pooler(small, shared=True) as dsn:
        result = examine(dsn)

    assert one("pooler", result).verdict == "fail"
    assert "rights" not in {check.name for check in result.checks}
