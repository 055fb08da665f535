"""Captures of real databases: what is in them comes back, whatever else happens meanwhile."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from tests import fixture_data, history
from tests.fix_postgres import VERSIONS, StartPostgres, every_version
from zbackup.archive.archive import Archive, unpacked
from zbackup.archive.manifest import Capture, CapturedTable, ObjectRef
from zbackup.archive.names import ROWS
from zbackup.archive.table import read_table
from zbackup.capture import NO_CAPTURE, Captured, CaptureOptions, capture
from zbackup.database.connection import connect
from zbackup.database.embedded import EmbeddedPostgres, standby_of
from zbackup.database.kept import Sessions
from zbackup.database.pace import Pace
from zbackup.database.pg_dump import NoProgram, find_program
from zbackup.database.snapshot import Snapshot, Workers
from zbackup.progress import ObjectStored, Progress, Report, Step, silent

AWKWARD = """
    CREATE SCHEMA projections;
    CREATE TABLE projections."Odd ""name"", with \\ all; --" (
        "a b" integer, "COPY" text, "tab\tname" bytea, doubled integer GENERATED ALWAYS AS ("a b" * 2) STORED
    );
    INSERT INTO projections."Odd ""name"", with \\ all; --" VALUES
        (1, E'tab\\t newline\\n return\\r backslash\\\\ bell\\x07 vt\\x0b', '\\x00ff0a5c09'),
        (NULL, '\\N', NULL), (3, '', ''), (4, NULL, '\\x'), (5, '\\.', 'x'), (6, 'größer 😀', 'y');
    CREATE TABLE projections.everything_generated (id serial, two integer GENERATED ALWAYS AS (2) STORED);
    ALTER TABLE projections.everything_generated DROP COLUMN id;
    INSERT INTO projections.everything_generated VALUES (DEFAULT), (DEFAULT);
    CREATE TABLE projections.no_columns (); INSERT INTO projections.no_columns DEFAULT VALUES;
    CREATE TABLE projections.parent (id integer); CREATE TABLE projections.child () INHERITS (projections.parent);
    INSERT INTO projections.parent VALUES (1); INSERT INTO projections.child VALUES (2);
    CREATE TABLE projections.years (year integer, what text) PARTITION BY RANGE (year);
    CREATE TABLE projections.years_old PARTITION OF projections.years FOR VALUES FROM (1) TO (2000);
    CREATE TABLE projections.years_new PARTITION OF projections.years DEFAULT;
    INSERT INTO projections.years VALUES (1984, 'old'), (2026, 'new');
    CREATE UNLOGGED TABLE projections.unlogged (id integer PRIMARY KEY); INSERT INTO projections.unlogged VALUES (7);
    CREATE TABLE projections.numbers (real8 double precision, real4 real, at timestamptz, span interval, n numeric);
    INSERT INTO projections.numbers VALUES
        (0.1 + 0.2, 1e-40, '2026-03-29 01:30:00.123456+00', '1 mon 2 days -03:04:05.6', 'NaN'),
        ('-Infinity', 'NaN', 'infinity', '-1 year', 1e-30), (NULL, NULL, '-infinity', NULL, NULL);
    CREATE TABLE projections.dropped (keep text, gone text);
    INSERT INTO projections.dropped VALUES ('kept', 'gone');
    ALTER TABLE projections.dropped DROP COLUMN gone;
    CREATE TABLE projections.counted (id bigint GENERATED ALWAYS AS IDENTITY, what text);
    INSERT INTO projections.counted (what) VALUES ('one'), ('two');
"""

# Functions, triggers and views that ZITADEL has and the fixtures do not.
PROGRAMS = """
    CREATE TYPE eventstore.command AS (instance_id text, payload jsonb);
    CREATE FUNCTION eventstore.push(commands eventstore.command[]) RETURNS SETOF eventstore.events2
        LANGUAGE sql AS $$
        -- Name: not a header of pg_dump
        SELECT * FROM eventstore.events2 WHERE instance_id = (commands[1]).instance_id;
        $$;
    CREATE VIEW eventstore.instances AS SELECT DISTINCT instance_id FROM eventstore.events2;
    CREATE FUNCTION eventstore.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER nothing AFTER TRUNCATE ON eventstore.fields EXECUTE FUNCTION eventstore.nothing();
    COMMENT ON TABLE eventstore.fields IS E'\\\\restrict is no command here';
"""


def run(
    archive: Archive,
    dsn: str,
    previous: Capture | None = None,
    *,
    report: Report = silent,
    lock_timeout: timedelta = timedelta(milliseconds=200),
    jobs: int = 2,
    pace: Pace | None = None,
    **options: Any,
) -> Captured:
    with (
        connect(dsn) as control,
        Snapshot(Sessions(dsn)) as snapshot,
        Workers(Sessions(dsn), snapshot, jobs, lock_timeout, pace) as workers,
        ThreadPoolExecutor(jobs) as pool,
    ):
        return capture(
            archive, control, snapshot, workers, pool, previous, CaptureOptions(**options), source="1/db", report=report
        )  # fmt: skip


@contextmanager
def as_owner(dsn: str) -> Generator[psycopg.Connection[Any]]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def execute(dsn: str, statements: str) -> None:
    with as_owner(dsn) as connection:
        connection.execute(statements)  # type: ignore[arg-type]


def meanwhile(dsn: str, statements: str) -> Report:
    """Do something in another session, after the snapshot and before the first table is read."""

    def report(progress: Progress) -> None:
        if isinstance(progress, Step) and progress.name == "capture":
            execute(dsn, statements)

    return report


def rows(archive: Archive, table: CapturedTable) -> bytes:
    return b"".join(read_table(archive, table))


def names(captured: Captured) -> set[str]:
    return {f"{table.schema}.{table.name}" for table in captured.capture.tables}


def text_of(archive: Archive, ref: ObjectRef | None) -> str:
    assert ref is not None
    return unpacked(archive.get(ref), ref.name).decode()


def restore(archive: Archive, captured: Captured, dsn: str) -> None:
    """Restore a capture with nothing but what it holds."""
    with as_owner(dsn) as connection:
        execute(dsn, text_of(archive, captured.capture.pre_data))
        for table in captured.capture.tables:
            name = Identifier(table.schema, table.name)
            columns = SQL(" ({})").format(SQL(", ").join(map(Identifier, table.columns)))
            statement = SQL("COPY {}{} FROM STDIN").format(name, columns if table.columns else SQL(""))
            if not table.columns and table.name == "everything_generated":
                continue  # COPY takes no rows that consist of generated columns alone
            with connection.cursor() as cursor, cursor.copy(statement) as copy:
                copy.write(rows(archive, table))
        execute(dsn, text_of(archive, captured.capture.post_data))


def content(dsn: str, tables: set[str]) -> dict[str, list[str]]:
    """Read whole rows, generated columns included, as text."""
    found: dict[str, list[str]] = {}
    with as_owner(dsn) as connection:
        for table in sorted(tables):
            query = SQL("SELECT t::text FROM ONLY {} t ORDER BY 1").format(Identifier(*table.split(".", 1)))
            found[table] = [row[0] for row in connection.execute(query)]
    return found


@every_version
def test_every_table_comes_back(archive: Archive, database: str, new_database: Callable[[], str]) -> None:
    """
    Schema and rows of a capture give the same tables in an empty database: odd names, odd bytes, partitions,
    unlogged tables, generated columns.
    """
    with as_owner(database) as connection:
        connection.execute(AWKWARD)
    captured = run(archive, database)
    target = new_database()

    restore(archive, captured, target)

    everything = names(captured)
    assert {"projections.years_old", "projections.years_new", "projections.unlogged"} <= everything
    assert not {"projections.years"} & everything
    everything.discard("projections.everything_generated")
    assert content(database, everything) == content(target, everything)
    assert sum(table.rows for table in captured.capture.tables) == captured.ref.rows == 20


@every_version
def test_portions_of_tables_are_the_same_rows(archive: Archive, database: str) -> None:
    """
    Read some blocks at a time, every table gives the bytes that it gives at once, so that nothing is stored anew:
    awkward ones, and one of many blocks that is full of holes.
    """
    with as_owner(database) as connection:
        connection.execute(AWKWARD)
        connection.execute(
            """CREATE TABLE projections.long AS
                   SELECT number, repeat('x', number % 997) AS text FROM generate_series(1, 20000) number;
               DELETE FROM projections.long WHERE number BETWEEN 3000 AND 9000 OR number % 7 = 0;
               INSERT INTO projections.long SELECT number, 'late' FROM generate_series(1, 2000) number"""
        )
    captured = run(archive, database)
    pace = Pace(10**9)
    pace.portion_bytes = 300_000
    again = run(archive, database, pace=pace)

    assert "projections.long" in names(again)
    assert again.capture.tables == captured.capture.tables
    assert again.warnings == captured.warnings


@every_version
def test_a_zitadel_database_comes_back(archive: Archive, database: str, new_database: Callable[[], str]) -> None:
    """
    All tables of a real history are captured but those that are left out for a reason, and come back.
    """
    with psycopg.connect(database) as connection:
        full = fixture_data.full_place() is not None
        fixture_data.load(connection, "v4.13.1", slice(0, 100), tables="all" if full else "state", full=full)
    execute(database, PROGRAMS)
    captured = run(archive, database)
    target = new_database()

    restore(archive, captured, target)

    assert captured.warnings == ()
    assert "eventstore.events2" not in names(captured) | captured.capture.missing.keys()
    assert all(why.startswith("ephemeral: ") for why in captured.capture.missing.values())
    assert content(database, names(captured)) == content(target, names(captured))
    assert [entry["schema"] for entry in columns_of(database)] == [entry["schema"] for entry in columns_of(target)]
    assert columns_of(database) == columns_of(target)


def columns_of(dsn: str) -> list[dict[str, str]]:
    with as_owner(dsn) as connection:
        found = connection.execute(
            """SELECT table_schema, table_name, column_name, data_type, column_default, is_nullable
                 FROM information_schema.columns WHERE table_schema !~ '^(pg_|information_schema)'
                ORDER BY table_schema, table_name, column_name"""
        )
        return [{"schema": row[0], "table": row[1], "column": row[2], "shape": str(row[3:])} for row in found]


@every_version
def test_the_same_schema_gives_the_same_bytes(archive: Archive, database: str) -> None:
    """
    Two runs over unchanged tables write the same objects: nothing new is stored, nothing random is in the text.
    """
    with psycopg.connect(database) as connection:
        history.create_schema(connection)
        history.fill_state(connection)
    execute(database, PROGRAMS)
    first = run(archive, database)
    before = {entry.name for entry in archive.objects()}

    again = run(archive, database, first.capture)
    without_previous = run(archive, database)

    assert again.capture == without_previous.capture == first.capture
    assert (first.ref.new_bytes, again.ref.new_bytes) == (first.ref.table_bytes, 0)
    assert {entry.name for entry in archive.objects()} == before
    pre_data = text_of(archive, first.capture.pre_data)
    assert "CREATE FUNCTION eventstore.push" in pre_data
    assert "-- Name: not a header of pg_dump" in pre_data
    assert "\\restrict is no command here" in pre_data
    assert not any(line.startswith(("\\", "-- Dumped")) for line in pre_data.splitlines())
    assert "Owner" not in pre_data.replace("Owner: -", "")
    assert "CREATE INDEX es_projection" in text_of(archive, first.capture.post_data)


def test_only_what_changed_is_stored(archive: Archive, database: str) -> None:
    """
    A changed table is stored, the others are referenced again; the old objects stay as they were.
    """
    with psycopg.connect(database) as connection:
        history.create_schema(connection)
        history.fill_state(connection)
    first = run(archive, database)
    execute(database, "INSERT INTO system.encryption_keys VALUES ('new', 'key')")

    stored: list[Progress] = []
    second = run(archive, database, first.capture, report=stored.append)

    changed = {
        after.name for before, after in zip(first.capture.tables, second.capture.tables, strict=True) if before != after
    }
    assert changed == {"encryption_keys"}
    assert len([record for record in stored if isinstance(record, ObjectStored)]) == 1


def test_large_tables_are_stored_in_parts(archive: Archive, database: str) -> None:
    """
    A table larger than a part becomes several objects of whole rows, which together are its rows; unchanged
    ones are not stored again even when a later one is.
    """
    execute(database, "CREATE SCHEMA projections; CREATE TABLE projections.users14 (name integer, data bytea)")
    with as_owner(database) as connection:
        for number in range(6):
            connection.execute("INSERT INTO projections.users14 VALUES (%s, %s)", (number, os.urandom(4 << 20)))
    first = run(archive, database, part_bytes=20 << 20)
    table = first.capture.tables[0]

    assert 3 == len(table.parts)
    assert hashlib.sha256(rows(archive, table)).hexdigest() == table.raw_sha256
    assert (6, table.raw_bytes) == (table.rows, len(rows(archive, table)))

    execute(database, "INSERT INTO projections.users14 VALUES (6, 'x')")
    second = run(archive, database, first.capture, part_bytes=20 << 20)

    assert second.capture.tables[0].parts[:2] == table.parts[:2]
    assert second.ref.new_bytes == second.capture.tables[0].parts[2].stored_bytes


def test_one_changed_asset_is_stored_alone(archive: Archive, database: str, new_database: Callable[[], str]) -> None:
    """
    A logo that changed is one object, and the list of all; the others are found, wherever the table has them by
    now. Each capture gives the assets of its moment.
    """
    with psycopg.connect(database) as connection:
        history.create_schema(connection)
        history.fill_state(connection, assets=300)
    first = run(archive, database)
    before = content(database, {"system.assets"})
    execute(database, "UPDATE system.assets SET data = 'new', updated_at = now() WHERE name LIKE 'users/7/%'")
    execute(database, "DELETE FROM system.assets WHERE name LIKE 'users/8/%'")
    execute(database, "CREATE INDEX by_data ON system.assets (md5(data)); CLUSTER system.assets USING by_data")
    stored: list[Progress] = []

    second = run(archive, database, first.capture, report=stored.append)

    assert [300, 299] == [parts_of(captured) for captured in (first, second)]
    objects = [record.name for record in stored if isinstance(record, ObjectStored)]
    assert 1 == sum(name.startswith(ROWS) for name in objects)
    assert len(objects) <= 4, "the row, the list, and the schema in two parts"
    assert second.ref.stored_bytes < 5000
    for captured, rows in ((first, before), (second, content(database, {"system.assets"}))):
        target = new_database()
        restore(archive, Captured(captured.ref, archive.capture(captured.ref), (), ()), target)
        assert rows == content(target, {"system.assets"})


def parts_of(captured: Captured) -> int:
    return next(len(table.parts) for table in captured.capture.tables if table.name == "assets")


def test_empty_tables_need_no_object(archive: Archive, database: str) -> None:
    """
    An empty table is captured as such, which is something else than missing.
    """
    execute(database, "CREATE SCHEMA system; CREATE TABLE system.encryption_keys (id text, key text)")

    captured = run(archive, database)

    assert [("encryption_keys", 0, ())] == [(one.name, one.rows, one.parts) for one in captured.capture.tables]


def test_an_unreadable_table_stops_nothing(archive: Archive, database: str, reader: Callable[..., str]) -> None:
    """
    A table that the role may not read is missing with its reason; the others are captured, the schema is not.
    """
    with psycopg.connect(database) as connection:
        history.create_schema(connection)
        history.fill_state(connection)
    dsn = reader(database)
    execute(database, "REVOKE SELECT ON system.assets FROM PUBLIC, zb_reader")
    execute(database, "REVOKE ALL ON SCHEMA queue FROM zb_reader")

    captured = run(archive, dsn)

    missing = captured.capture.missing
    assert ("permission denied", "permission denied") == (missing["system.assets"], missing["queue.river_migration"])
    assert "system.encryption_keys" in names(captured)
    assert captured.capture.pre_data is None
    assert "permission denied" in captured.capture.schema_note
    assert any("system.assets" in warning for warning in captured.warnings)


@pytest.fixture
def reader(postgres: EmbeddedPostgres) -> Iterator[Callable[[str], str]]:
    """Make a role that may read ZITADEL's tables in a database; return its DSN."""
    made: list[str] = []

    def make(dsn: str) -> str:
        if not made:
            execute(dsn, "CREATE ROLE zb_reader LOGIN")
        made.append(dsn)
        for schema in ("eventstore", "system", "projections", "auth", "queue"):
            execute(dsn, f"GRANT USAGE ON SCHEMA {schema} TO zb_reader")
            execute(dsn, f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO zb_reader")
        return make_conninfo(dsn, user="zb_reader")

    yield make
    for dsn in made:
        execute(dsn, "DROP OWNED BY zb_reader")
    if made:
        execute(postgres.dsn(), "DROP ROLE zb_reader")


@pytest.mark.parametrize(
    "what",
    [
        "TRUNCATE system.assets",
        "ALTER TABLE system.assets ALTER content_type TYPE varchar(99) USING content_type || '!'",
        "VACUUM FULL system.assets",
        "DROP TABLE system.assets",
        "ALTER TABLE system.assets RENAME TO assets_old; CREATE TABLE system.assets (LIKE system.assets_old)",
        "ALTER TABLE system.assets RENAME updated_at TO changed_at",
        "ALTER SCHEMA system RENAME TO sys; CREATE SCHEMA system; ALTER TABLE sys.encryption_keys SET SCHEMA system",
    ],
)
def test_a_table_rewritten_meanwhile_is_not_captured(archive: Archive, database: str, what: str) -> None:
    """
    A table that another session truncates, rewrites, drops or replaces during the capture is marked, not stored
    as empty.
    """
    with psycopg.connect(database) as connection:
        history.create_schema(connection)
        history.fill_state(connection)

    captured = run(archive, database, report=meanwhile(database, what))

    assert "system.assets" in captured.capture.missing
    assert "system.assets" not in names(captured)
    assert {"system.encryption_keys", "eventstore.unique_constraints"} <= names(captured)


def test_a_row_that_is_too_long_costs_its_table_alone(archive: Archive, database: str) -> None:
    """
    The tables that are read after it, in the same session, are captured.
    """
    with as_owner(database) as connection:
        connection.execute(
            """CREATE SCHEMA projections;
               CREATE TABLE projections.huge AS SELECT repeat('x', (128 << 20) + 1) AS text;
               ANALYZE projections.huge;
               CREATE TABLE projections.small AS SELECT 1 AS number"""
        )
    captured = run(archive, database, jobs=1)

    assert "is the most" in captured.capture.missing["projections.huge"]
    assert names(captured) == {"projections.small"}


def test_a_locked_table_is_tried_again(archive: Archive, database: str) -> None:
    """
    A table that somebody locks is read after the others; when it stays locked it is missing, with the reason.
    """
    with psycopg.connect(database) as connection:
        history.create_schema(connection)
        history.fill_state(connection)
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE system.assets")

        captured = run(archive, database)

        assert "locked by another session" in captured.capture.missing["system.assets"]
        assert "LOCK TABLE system.assets" in captured.capture.schema_note

        def let_go(progress: Progress) -> None:
            if isinstance(progress, ObjectStored) or "system.assets" in str(progress):
                other.rollback()

        again = run(archive, database, report=let_go, lock_timeout=timedelta(seconds=20))

    assert "system.assets" in names(again)


def test_keys_alone(archive: Archive, database: str) -> None:
    """
    Without a capture the encryption keys are still taken, and the record says what else there was.
    """
    with psycopg.connect(database) as connection:
        history.create_schema(connection)
        history.fill_state(connection)

    captured = run(archive, database, keys_only=True)

    assert {"system.encryption_keys"} == names(captured)
    assert NO_CAPTURE == captured.capture.missing["system.assets"] == captured.capture.schema_note
    assert captured.warnings == ()


def test_logins_under_way_are_captured_on_request(
    archive: Archive, database: str, new_database: Callable[[], str]
) -> None:
    """
    What somebody is typing right now is left out with the reason, unless asked for; then it comes back.
    """
    with psycopg.connect(database) as connection:
        history.create_schema(connection)
        history.fill_state(connection)
    execute(database, "INSERT INTO auth.auth_requests (instance_id, id) VALUES ('i', 'under way')")

    usual = run(archive, database)
    asked = run(archive, database, usual.capture, auth_requests=True)

    assert "what was typed so far" in usual.capture.missing["auth.auth_requests"]
    assert "auth.auth_requests" not in names(usual) | asked.capture.missing.keys()
    assert asked.warnings == ()
    target = new_database()
    restore(archive, asked, target)
    assert content(database, {"auth.auth_requests"}) == content(target, {"auth.auth_requests"})


def test_unknown_tables_are_captured_and_named(archive: Archive, database: str) -> None:
    """
    What no version of ZITADEL so far has made is captured, with a warning; what is not a table is missing.
    """
    with psycopg.connect(database) as connection:
        history.create_schema(connection)
    execute(
        database,
        "CREATE TABLE projections.novelty AS SELECT 1 AS one;"
        "CREATE MATERIALIZED VIEW projections.seen AS SELECT 1 AS one",
    )

    captured = run(archive, database)

    assert "projections.novelty" in names(captured)
    assert any("projections.novelty" in warning for warning in captured.warnings)
    assert "materialized view" in captured.capture.missing["projections.seen"]


def test_a_standby_can_be_captured(archive: Archive, start_postgres: StartPostgres) -> None:
    """
    A standby gives everything but unlogged tables, whose rows it does not have.
    """
    primary = start_postgres()
    with psycopg.connect(primary.dsn()) as connection:
        history.create_schema(connection)
        history.fill_state(connection)
    execute(primary.dsn(), "CREATE UNLOGGED TABLE projections.users14 AS SELECT 1 AS one")
    with standby_of(primary) as standby:
        captured = run(archive, standby.dsn())

    assert "unlogged" in captured.capture.missing["projections.users14"]
    assert {"system.assets", "system.encryption_keys"} <= names(captured)
    assert captured.ref.schema


@pytest.fixture
def spying_pg_dump(tmp_path: Path, pg_version: int) -> Path:
    """A pg_dump that writes down how it was called before it does its work."""
    spy = tmp_path / "pg_dump"
    spy.write_text(
        f"#!/bin/sh\ntr '\\0' '\\n' < /proc/$$/cmdline >> {tmp_path}/argv\nenv >> {tmp_path}/env\n"
        f'exec {find_program(pg_version).path} "$@"\n'
    )
    spy.chmod(spy.stat().st_mode | stat.S_IXUSR)
    return spy


def test_no_secret_in_argv(
    archive: Archive,
    postgres: EmbeddedPostgres,
    database: str,
    tmp_path: Path,
    spying_pg_dump: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    pg_dump gets the password by a variable, wherever it came from, and goes to the server of the snapshot
    whatever else the environment names.
    """
    execute(database, "CREATE SCHEMA system; CREATE TABLE system.encryption_keys (id text, key text)")
    name = conninfo_to_dict(database)["dbname"]
    passfile = tmp_path / "pgpass"
    passfile.write_text(f"*:*:*:*:{postgres.password}\n")
    passfile.chmod(0o600)
    service = tmp_path / "service.conf"
    service.write_text(f"[zitadel]\nhost=127.0.0.1\nport={postgres.port}\nuser=postgres\ndbname={name}\n")
    monkeypatch.setenv("PGSERVICEFILE", str(service))
    monkeypatch.setenv("PGSERVICE", "zitadel")
    monkeypatch.setenv("PGPASSFILE", str(passfile))

    captured = run(archive, "service=zitadel", pg_dump=str(spying_pg_dump))

    assert captured.capture.pre_data is not None, captured.warnings
    argv = (tmp_path / "argv").read_text()
    assert "--schema-only" in argv
    assert postgres.password not in argv
    assert f"PGPASSWORD={postgres.password}\n" in (tmp_path / "env").read_text()
    assert "PGSERVICE" not in (tmp_path / "env").read_text()


def test_what_pg_dump_says_is_shown_without_secrets(
    archive: Archive, postgres: EmbeddedPostgres, database: str, tmp_path: Path
) -> None:
    """
    A failing pg_dump is a note and a warning that do not repeat the password; all tables are captured.
    """
    execute(database, "CREATE SCHEMA system; CREATE TABLE system.encryption_keys (id text, key text)")
    broken = tmp_path / "pg_dump"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "pg_dump (PostgreSQL) 99.1" && exit\n'
        'echo "pg_dump: error: $PGPASSWORD is wrong" >&2; exit 1\n'
    )
    broken.chmod(0o755)
    name = conninfo_to_dict(database)["dbname"]
    dsn = postgres.dsn(str(name), tcp=True)

    captured = run(archive, dsn, pg_dump=str(broken))

    assert captured.capture.schema_note.endswith("failed: error: *** is wrong")
    assert not captured.ref.schema
    assert "system.encryption_keys" in names(captured)


@pytest.mark.parametrize("given", [None, "/nonexistent/pg_dump", "sh"])
def test_without_a_fitting_pg_dump(given: str | None) -> None:
    """
    A pg_dump that is missing, too old, or something else is a reason in words.
    """
    with pytest.raises(NoProgram, match="pg_dump"):
        find_program(99, given)


def test_the_nearest_pg_dump_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Of several the one nearest to the server is taken, so that the text fits it; the newest when no other will do.
    """
    newest = tmp_path / "pg_dump"
    newest.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 99.3 (Test)'\n")
    newest.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert {major: find_program(major).major for major in VERSIONS} == {major: major for major in VERSIONS}
    assert (newest, "99.3 (Test)") == (find_program(90).path, find_program(90).version)
