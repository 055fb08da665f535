"""What a restore decides: modes, bases, handlers, steps of setup, keys; on a small ZITADEL of our own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from tests.fix_archive import Backup, execute, restored, source_rows
from tests.fix_whole import one, table_rows
from tests.fix_zitadel import add_user, clock, found, set_state, step, steps_of, system, whole, zitadel
from tests.forked import killed_restore
from tests.history import Command, create_schema, push
from zbackup.archive.archive import Archive
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.errors import TargetRefused, UsageError
from zbackup.event import instant_text
from zbackup.moment import parse_point
from zbackup.plan import plan
from zbackup.progress import Progress, Warned
from zbackup.restore import RestoreOptions, preview
from zbackup.survey import UnitOptions

# Modes


def test_a_role_without_rights_owns_what_it_restored(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str], postgres: EmbeddedPostgres
) -> None:
    """
    Whoever may make schemas in an empty database can restore into it, and owns every object afterwards.
    """
    execute(source, "CREATE FUNCTION eventstore.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
    back_up(capture=True)
    target = new_database()
    with psycopg.connect(target, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute("DROP ROLE IF EXISTS plain_owner")
        connection.execute("CREATE ROLE plain_owner LOGIN NOCREATEDB NOSUPERUSER")
        connection.execute(
            SQL("GRANT CREATE, CONNECT, TEMPORARY ON DATABASE {} TO plain_owner").format(Identifier(name))
        )
    try:
        whole(archive, postgres.dsn(name, user="plain_owner"))

        owners = one(
            target,
            """SELECT array_agg(DISTINCT pg_get_userbyid(o)) FROM (
                   SELECT relowner AS o FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|information)'
                   UNION SELECT proowner FROM pg_proc WHERE pronamespace::regnamespace::text !~ '^(pg_|information)'
                   UNION SELECT nspowner FROM pg_namespace WHERE nspname !~ '^(pg_|information|public)') s""",
        )
        assert owners == ["plain_owner"]
    finally:
        with psycopg.connect(target, autocommit=True) as connection:
            connection.execute("DROP OWNED BY plain_owner CASCADE")
            connection.execute("DROP ROLE plain_owner")


def test_what_depends_on_the_events_follows_them(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    Functions, views, triggers and comments that name the events table or its row type work under its final name;
    what looks like a head of pg_dump inside a function is none.
    """
    execute(
        source,
        """CREATE TYPE eventstore.command AS (instance_id text);
           CREATE FUNCTION eventstore.push(commands eventstore.command[]) RETURNS SETOF eventstore.events2
               LANGUAGE sql AS $$
--
-- Name: nothing; Type: TABLE; Schema: eventstore; Owner: -
--

               SELECT * FROM eventstore.events2 WHERE instance_id = (commands[1]).instance_id $$;
           CREATE VIEW eventstore.instances AS SELECT DISTINCT instance_id FROM eventstore.events2;
           CREATE FUNCTION eventstore.kind(eventstore.events2) RETURNS text LANGUAGE sql IMMUTABLE
               AS 'SELECT ($1).event_type';
           CREATE FUNCTION eventstore.stop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
           CREATE TRIGGER stop BEFORE TRUNCATE ON eventstore.events2 EXECUTE FUNCTION eventstore.stop();
           COMMENT ON INDEX eventstore.es_wm IS 'of the write model';
           ALTER TABLE eventstore.unique_constraints ADD CHECK (unique_type <> '')""",
    )
    back_up(capture=True)
    target = new_database()

    whole(archive, target)

    called = "SELECT count(*) FROM eventstore.push(ARRAY[ROW('i1')::eventstore.command])"
    assert one(target, called) == one(source, called) > 0
    assert table_rows(target, "eventstore.instances") == table_rows(source, "eventstore.instances")
    assert one(target, "SELECT count(DISTINCT eventstore.kind(e)) FROM eventstore.events2 e") > 3
    triggers = "SELECT array_agg(pg_get_triggerdef(oid)) FROM pg_trigger WHERE NOT tgisinternal"
    assert one(target, triggers) == one(source, triggers)
    indexes = "SELECT array_agg(indexdef ORDER BY indexdef) FROM pg_indexes WHERE schemaname !~ '^pg_'"
    assert one(target, indexes) == one(source, indexes)
    constraints = """SELECT array_agg(pg_get_constraintdef(oid) ORDER BY conrelid::regclass::text, conname)
                       FROM pg_constraint WHERE conrelid > 0 AND connamespace::regnamespace::text !~ '^pg_'"""
    assert one(target, constraints) == one(source, constraints)


REFUSED = {
    "init alone": ("", "has not run there"),
    "a step under way": (
        """INSERT INTO eventstore.events2 VALUES ('', 'system', 'SYSTEM', 'system.migration.started', 99, 1, now(),
           '{"name": "70_next"}', '', 'SYSTEM', 1, 1)""",
        "70_next was started",
    ),
    "an older ZITADEL": (
        """UPDATE eventstore.events2 SET payload = '{"name": "projection_tables", "lastRun": {"version": "v4.9.9"}}'
            WHERE payload->>'name' = 'projection_tables'""",
        "prepared by ZITADEL v4.9.9",
    ),
    "no events": ("DROP TABLE eventstore.events2 CASCADE", "no eventstore.events2"),
    "an instance": (
        "INSERT INTO eventstore.events2 VALUES ('x', 'org', '1', 'org.added', 1, 1, now(), NULL, '', '1', 1, 1)",
        "1 events of 1 instances",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_targets_are_refused(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str], what: str
) -> None:
    """
    What is neither empty nor prepared is refused, by what was found, and left as it was.
    """
    back_up(capture=True)
    statement, message = REFUSED[what]
    target = new_database()
    if statement:
        zitadel(target)
        execute(target, statement)
    else:
        with psycopg.connect(target) as connection:
            create_schema(connection, state=False)
    before = one(target, "SELECT array_agg(relname ORDER BY relname) FROM pg_class WHERE relkind = 'r'")

    with pytest.raises(TargetRefused, match=message):
        whole(archive, target)

    assert before == one(target, "SELECT array_agg(relname ORDER BY relname) FROM pg_class WHERE relkind = 'r'")


@pytest.mark.parametrize("whole_backup", [True, False], ids=["whole", "instant"])
def test_positions_of_the_prepared_target_ahead_of_the_clock_are_refused(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str], *, whole_backup: bool
) -> None:
    """
    What the target had before and gets back must not be ahead of its clock either, whether T cuts a chunk or not.
    """
    last = clock(source)
    back_up(capture=True)
    target = new_database()
    zitadel(target)
    execute(target, 'UPDATE eventstore.events2 SET "position" = 4000000000 WHERE "sequence" = 1')

    with pytest.raises(TargetRefused, match=r"position 4000000000 is .* ahead of the target's clock"):
        whole(archive, target, "latest" if whole_backup else instant_text(last))


def test_without_a_schema_an_empty_target_is_refused(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    Where pg_dump could not run there is nothing to make; the hint says what can be done.
    """
    back_up(capture=True, pg_dump="/nowhere/pg_dump")
    target = new_database()

    with pytest.raises(TargetRefused, match="no schema to make") as refused:
        whole(archive, target)
    assert "--events-only" in refused.value.hint
    assert restored(archive, target).events == len(source_rows(source))


def test_a_prepared_target_of_a_newer_version(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    Tables are loaded by the columns both have; a handler whose tables differ is cold; state that has no place is
    refused until it is given up by name.
    """
    with psycopg.connect(source) as connection:
        connection.execute(
            "INSERT INTO system.assets VALUES ('i1', '4', 'o1', 'logo', 'image/png', DEFAULT, 'x', now())"
        )
        connection.execute("INSERT INTO projections.users14 VALUES ('u1', 'i1', 'one')")
        connection.execute("INSERT INTO projections.orgs1 VALUES ('o1', 'i1', 'Org')")
        connection.execute("CREATE TABLE system.unheard_of (id INT); INSERT INTO system.unheard_of VALUES (1)")
        for handler in ("projections.users14", "projections.orgs1", "projections.notifications"):
            set_state(connection, handler)
    back_up(capture=True)
    target = new_database()
    zitadel(target, "v4.14.0")
    with psycopg.connect(target) as connection:
        push(connection, "", Command("feature", "SYSTEM", "feature.system.login.set", {}, owner="SYSTEM"))
    execute(target, "ALTER TABLE projections.users14 ADD COLUMN needed TEXT NOT NULL; DROP TABLE system.assets")
    execute(target, "ALTER TABLE system.encryption_keys ADD COLUMN made TIMESTAMPTZ DEFAULT now()")

    with pytest.raises(TargetRefused, match=r"system\.assets.*system\.unheard_of") as refused:
        whole(archive, target)
    assert "--without system.assets --without system.unheard_of" in refused.value.hint
    with pytest.raises(UsageError, match="knows no such table"):
        whole(archive, target, unit=UnitOptions(without=frozenset({"system.nothing"})))
    recovered = whole(archive, target, unit=UnitOptions(without=frozenset({"system.assets", "system.unheard_of"})))

    warm = {handler.name: handler.warm for handler in recovered.unit.handlers}
    assert warm == {"projections.users14": False, "projections.orgs1": True}
    assert not table_rows(target, "projections.users14")
    assert table_rows(target, "projections.orgs1") == table_rows(source, "projections.orgs1")
    keys = "SELECT array_agg(ARRAY[id, key]) FROM system.encryption_keys"
    assert one(target, keys) == one(source, keys)
    assert recovered.zitadel_version == "v4.13.1"
    assert recovered.zitadel_needed == "v4.14.0"
    assert any("feature/SYSTEM feature.system.login.set" in warning for warning in recovered.warnings)
    assert not one(target, "SELECT count(*) FROM eventstore.events2 WHERE aggregate_type = 'feature'")
    names = {state for (state,) in rows_of(target, "SELECT DISTINCT projection_name FROM projections.current_states")}
    assert names == {
        "projections.orgs1",
        "projections.notifications",
        "projections.notifications_quota",
        "projections.notifications_back_channel_logout",
        "projections.telemetry",
    }


def rows_of(dsn: str, query: str) -> Iterator[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        yield from connection.execute(query.encode())


# Bases and handlers


def test_an_event_that_came_late_makes_its_handlers_cold(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    A handler that had read past an event when that became visible would never see it: it begins anew, others go on.
    """
    with psycopg.connect(source) as late, psycopg.connect(source) as connection:
        found(connection, "i2")
        set_state(connection, "projections.orgs1", "i2")
        add_user(late, "late")
        add_user(connection, "early")
        connection.commit()
        set_state(connection, "projections.users14", "i1")
        connection.execute("INSERT INTO projections.users14 VALUES ('u-early', 'i1', 'early')")
        connection.commit()
        back_up(capture=True)
        late.commit()
    at = clock(source)
    back_up()
    target = new_database()

    recovered = whole(archive, target, instant_text(at))

    cold = {handler.name: handler.why for handler in recovered.unit.handlers if not handler.warm}
    assert cold.keys() == {"projections.users14"}
    assert "became visible after it had read" in cold["projections.users14"]
    assert not table_rows(target, "projections.users14")
    assert table_rows(source, "eventstore.unique_constraints", "unique_type = 'usernames'") == table_rows(
        target, "eventstore.unique_constraints", "unique_type = 'usernames'"
    )
    assert any("users14" in warning for warning in recovered.warnings)


def test_tables_that_know_what_will_not_be_there_are_no_base(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    What the capture knows and the restore leaves out cannot be taken out of derived tables: they stay empty, and
    the constraints come from the events alone.
    """
    with psycopg.connect(source) as connection:
        set_state(connection, "projections.users14")
        add_user(connection, "torn")
        connection.commit()
        push(connection, "i1", Command("user", "u-torn", "user.username.changed", {"userName": "new"}, owner="o1"))
    back_up(capture=True)
    at = clock(source)
    execute(source, "UPDATE eventstore.events2 SET created_at = now() WHERE event_type = 'user.human.added'")
    back_up(audit=True)
    target = new_database()

    result = restored(archive, target, instant_text(at), events_only=False)

    assert result.withheld == 1
    assert result.recovered is not None
    assert "events that are withheld were in its tables" in result.recovered.unit.cold
    assert result.recovered.constraints.basis == "events"
    assert not table_rows(target, "eventstore.unique_constraints", "unique_type = 'usernames'")


def test_permissions_are_those_of_the_instant(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    A right that was revoked before the instant does not return with the captured table.
    """
    with psycopg.connect(source) as connection:
        connection.execute(
            """INSERT INTO eventstore.fields (id, instance_id, resource_owner, aggregate_type, aggregate_id,
                   object_type, object_id, field_name, value, value_must_be_unique, should_index) VALUES
               ('a', 'i1', 'i1', 'permission', 'i1', 'role_permission', 'OWNER', 'permission', '"org.read"',
                false, true),
               ('b', 'i1', 'o1', 'org', 'o1', 'org', 'o1', 'name', '"Org"', false, true)"""
        )
        connection.commit()
        back_up(capture=True)
        for role, kind in (("OWNER", "removed"), ("READER", "added")):
            payload = {"role": role, "permission": "org.read"}
            push(connection, "i1", Command("permission", "i1", f"permission.{kind}", payload))
    at = clock(source)
    back_up()
    target = new_database()

    recovered = whole(archive, target, instant_text(at))

    fields = "SELECT array_agg(ARRAY[aggregate_type, object_id, value::text] ORDER BY 1) FROM eventstore.fields"
    assert not recovered.unit.fields
    assert one(target, fields) == [["org", "o1", '"Org"'], ["permission", "READER", '"org.read"']]


# Steps of setup


def test_an_upgrade_between_capture_and_instant(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    The schema is the capture's, and so are its steps; what wrote data is done where the data has it and may not be
    run again, else it runs again; the external domain is that of the instant.
    """
    back_up(capture=True)
    with psycopg.connect(source) as connection:
        step(connection, "99_new_column")
        step(connection, "59_setup_webkeys")
        step(connection, "60_generate_system_id")
        step(connection, "config_change", {"externalDomain": "new.example.com"})
        step(connection, "projection_tables", {"version": "v4.14.0"})
    at = clock(source)
    back_up()
    with psycopg.connect(source) as connection:
        step(connection, "98_later_still")
    back_up()
    target = new_database()

    result = restored(archive, target, instant_text(at), events_only=False)
    recovered = result.recovered

    assert recovered is not None
    assert any("v4.14.0" in one_step.what for one_step in result.next_steps)
    names = {name for name, _ in steps_of(target)}
    assert not names & {"99_new_column", "59_setup_webkeys", "98_later_still", "29_init_fields_for_project_grant"}
    assert {"01_tables", "03_default_instance", "60_generate_system_id"} <= names
    assert [name for name, _ in steps_of(target)].count("config_change") == 4
    assert {name for name, _ in recovered.rerun} == {
        "99_new_column",
        "59_setup_webkeys",
        "29_init_fields_for_project_grant",
    }
    assert (recovered.zitadel_version, recovered.zitadel_needed) == ("v4.14.0", "v4.14.0")
    assert one(target, "SELECT max(payload->'lastRun'->>'version') FROM eventstore.events2") == "v4.13.1"
    constraints = one(
        target,
        "SELECT array_agg(unique_field) FROM eventstore.unique_constraints WHERE unique_type = 'migration_done'",
    )
    assert set(constraints) == {name for name, what in steps_of(target) if what == "done"}
    assert sum(edit.removed for edit in recovered.edits) == 8


def test_the_first_capture_after_the_instant(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    Before the first capture its schema serves, with the steps that made it; data comes from the events alone.
    """
    with psycopg.connect(source) as connection:
        add_user(connection, "before")
        set_state(connection, "projections.users14")
        at = clock(source)
        add_user(connection, "after")
        step(connection, "99_new_column")
        step(connection, "59_setup_webkeys")
        step(connection, "config_change", {"externalDomain": "new.example.com"})
    back_up(capture=True)
    target = new_database()

    recovered = whole(archive, target, instant_text(at))

    assert "made after the instant" in recovered.unit.cold
    assert recovered.constraints.basis == "events"
    assert [row for row in table_rows(target, "eventstore.unique_constraints") if "usernames" in row] == [
        "(i1,usernames,before)"
    ]
    names = [name for name, _ in steps_of(target)]
    assert names.count("99_new_column") == 2
    assert "59_setup_webkeys" not in names
    assert names.count("config_change") == 2
    assert {edit.why: (edit.removed, edit.inserted) for edit in recovered.edits} == {
        "setup: fields catch up": (2, 0),
        "setup: the steps that made the captured schema": (0, 2),
    }


def test_an_instant_inside_a_setup_does_not_hang_the_next(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    A step that was started and not ended at the instant is forgotten, so that setup begins it anew.
    """
    with psycopg.connect(source) as connection:
        back_up(capture=True)
        push(connection, "", system("system.migration.started", {"name": "60_generate_system_id"}))
        connection.commit()
        at = clock(source)
        push(connection, "", system("system.migration.done", {"name": "60_generate_system_id"}))
    back_up()
    target = new_database()

    recovered = whole(archive, target, instant_text(at))

    assert "60_generate_system_id" not in {name for name, _ in steps_of(target)}
    assert ("60_generate_system_id", "it was started and not ended: setup would wait for ever") in recovered.rerun


# Tables


def test_keys_of_both_captures_are_there(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    The newest value of each key, those that are gone by now, and those that came after the instant.
    """
    execute(source, "INSERT INTO system.encryption_keys VALUES ('goes', 'old'), ('changes', 'old')")
    back_up(capture=True)
    at = clock(source)
    execute(source, "UPDATE system.encryption_keys SET key = 'new' WHERE id = 'changes'")
    execute(source, "DELETE FROM system.encryption_keys WHERE id = 'goes'")
    execute(source, "INSERT INTO system.encryption_keys VALUES ('comes', 'new')")
    with psycopg.connect(source) as connection:
        add_user(connection, "later")
    back_up()
    target = new_database()

    whole(archive, target, instant_text(at))

    keys = dict(rows_of(target, "SELECT id, key FROM system.encryption_keys WHERE id <> 'oidcKey'"))
    assert keys == {"goes": "old", "changes": "new", "comes": "new"}


def test_sequences_go_on_after_the_last_row(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    A row added after the restore gets a number that none has; rows without any value come back, too.
    """
    execute(
        source,
        """CREATE TABLE projections.unheard_of (id BIGSERIAL PRIMARY KEY, what TEXT);
           INSERT INTO projections.unheard_of (what) VALUES ('a'), ('b');
           CREATE TABLE projections.identities (id INT GENERATED ALWAYS AS IDENTITY, what TEXT);
           INSERT INTO projections.identities (what) VALUES ('a'), ('b'), ('c');
           CREATE TABLE projections.generated (two INT GENERATED ALWAYS AS (2) STORED);
           INSERT INTO projections.generated DEFAULT VALUES; CREATE TABLE projections.nothing ();
           INSERT INTO projections.nothing DEFAULT VALUES""",
    )
    back_up(capture=True)
    target = new_database()

    whole(archive, target)

    for dsn in (source, target):
        execute(dsn, "INSERT INTO projections.unheard_of (what) VALUES ('next')")
        execute(dsn, "INSERT INTO projections.identities (what) VALUES ('next')")
    for name in ("unheard_of", "identities", "generated", "nothing"):
        assert table_rows(source, f"projections.{name}") == table_rows(target, f"projections.{name}") != []


def test_logins_under_way_come_back_on_request(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    They must be asked for twice: when they are captured and when they are restored.
    """
    execute(source, "INSERT INTO auth.auth_requests (id, instance_id) VALUES ('r', 'i1')")
    back_up(capture=True, auth_requests=True)
    with_them, without = new_database(), new_database()

    whole(archive, with_them, unit=UnitOptions(auth_requests=True))
    whole(archive, without)

    assert table_rows(with_them, "auth.auth_requests") == table_rows(source, "auth.auth_requests") != []
    assert not table_rows(without, "auth.auth_requests")


def test_state_that_was_not_captured_is_refused(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str], postgres: EmbeddedPostgres
) -> None:
    """
    A restore that would lose a state table says so before it begins.
    """
    with psycopg.connect(source, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute("DROP ROLE IF EXISTS half_blind")
        connection.execute("CREATE ROLE half_blind LOGIN IN ROLE pg_read_all_stats")
        connection.execute("GRANT EXECUTE ON FUNCTION pg_catalog.pg_control_system() TO half_blind")
        for schema in ("eventstore", "system", "projections", "auth", "queue", "cache"):
            connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO half_blind".encode())
            connection.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO half_blind".encode())
        connection.execute("REVOKE SELECT ON system.assets FROM half_blind")
    try:
        back_up(postgres.dsn(name, user="half_blind"), capture=True)
    finally:
        with psycopg.connect(source, autocommit=True) as connection:
            connection.execute("DROP OWNED BY half_blind CASCADE")
            connection.execute("DROP ROLE half_blind")
    target = new_database()
    zitadel(target)

    with pytest.raises(TargetRefused, match=r"system\.assets: it was not captured \(permission denied\)"):
        whole(archive, target)
    recovered = whole(archive, target, unit=UnitOptions(without=frozenset({"system.assets"})))

    assert not table_rows(target, "system.assets")
    assert recovered.mode == "prepared"


# Again


@pytest.mark.parametrize("kind", ["empty", "prepared"])
def test_a_finished_restore_is_recognised(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str], kind: str
) -> None:
    """
    Run again it says done; with other options it is refused and says what is there.
    """
    back_up(capture=True)
    target = new_database()
    if kind == "prepared":
        zitadel(target)

    whole(archive, target)

    assert restored(archive, target, events_only=False).done_before
    with pytest.raises(TargetRefused, match="restored before"):
        restored(archive, target, events_only=False, unit=UnitOptions(cold=True))
    with pytest.raises(TargetRefused, match="restored before"):
        restored(archive, target)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["empty", "prepared"])
def test_a_killed_restore_goes_on(
    archive: Archive,
    source: str,
    back_up: Backup,
    new_database: Callable[[], str],
    tmp_path: Path,
    kind: str,
) -> None:
    """
    Killed at any record of its progress, the events have their final name or they have not, and a rerun ends with
    the same database and the same report; given up, the target can be taken for something else.
    """
    with psycopg.connect(source) as connection:
        add_user(connection, "one")
        connection.execute("INSERT INTO projections.users14 VALUES ('u-one', 'i1', 'one')")
        connection.execute("INSERT INTO projections.users14_humans VALUES ('u-one', 'i1', 'one@example.com')")
        connection.commit()
        set_state(connection, "projections.users14")
    back_up(capture=True)

    def target_of(kind: str) -> str:
        dsn = new_database()
        if kind == "prepared":
            zitadel(dsn)
        return dsn

    whole_one = target_of(kind)
    wanted = whole(archive, whole_one)
    moment, died = 4, True
    while died:
        target = target_of(kind)
        died = killed_restore(moment, tmp_path / "archive", target)
        if died:
            assert one(target, "SELECT to_regclass('eventstore.events2') IS NULL") or moment < 12
            if moment % 2:
                recovered = whole(archive, target)
                assert (recovered.permissions, recovered.states, recovered.edits, recovered.rerun) == (
                    wanted.permissions,
                    wanted.states,
                    wanted.edits,
                    wanted.rerun,
                )
            else:
                with pytest.raises(TargetRefused, match="unfinished restore of another plan"):
                    whole(archive, target, unit=UnitOptions(cold=True))
                assert whole(archive, target, unit=UnitOptions(cold=True), restart=True).unit.cold
                assert not table_rows(target, "projections.users14")
                moment += 3
                continue
        for name in ("projections.users14_humans", "eventstore.unique_constraints", "system.encryption_keys"):
            assert table_rows(target, name) == table_rows(whole_one, name)
        assert [row for row in source_rows(target) if b"SYSTEM" not in row] == [
            row for row in source_rows(whole_one) if b"SYSTEM" not in row
        ]
        moment += 3
    assert moment > 20


def test_the_same_words_go_on_with_what_they_meant(
    archive: Archive,
    source: str,
    back_up: Backup,
    new_database: Callable[[], str],
    tmp_path: Path,
) -> None:
    """
    `latest` of a killed restore is finished as it was, although cron has backed up meanwhile; a finished one is not
    taken for the newer.
    """
    first = back_up(capture=True).backup
    target = new_database()
    assert killed_restore(7, tmp_path / "archive", target)
    with psycopg.connect(source) as connection:
        add_user(connection, "later")
    second = back_up(capture=True).backup

    result = restored(archive, target, events_only=False)

    assert first == result.backup
    assert not table_rows(target, "eventstore.unique_constraints", "unique_type = 'usernames'")
    with pytest.raises(TargetRefused, match=f"restored before.*{second}"):
        restored(archive, target, events_only=False)


def test_rights_are_checked_first(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str], postgres: EmbeddedPostgres
) -> None:
    """
    A role that could not finish is refused before anything is loaded, with the statement that helps.
    """
    back_up(capture=True)
    empty, owned = new_database(), new_database()
    zitadel(owned)
    name = one(empty, "SELECT current_database()")
    execute(empty, "DROP ROLE IF EXISTS half_right; CREATE ROLE half_right LOGIN")
    try:
        execute(
            empty, f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC; GRANT CREATE ON DATABASE {name} TO half_right"
        )
        with pytest.raises(TargetRefused, match="temporary tables") as refused:
            whole(archive, postgres.dsn(name, user="half_right"))
        assert refused.value.hint == f'GRANT CREATE, TEMPORARY ON DATABASE "{name}" TO "half_right";'
        with pytest.raises(TargetRefused, match="does not own ZITADEL's tables") as refused:
            whole(archive, postgres.dsn(one(owned, "SELECT current_database()"), user="half_right"))
        assert refused.value.hint == "Connect as postgres."
    finally:
        execute(empty, "DROP OWNED BY half_right; DROP ROLE half_right")


def test_another_collation_is_a_warning(
    archive: Archive, source: str, back_up: Backup, database_like: Callable[[str], str]
) -> None:
    """
    Names are lower-cased by the database: a target that does it otherwise is said to, by a plan too.
    """
    back_up(capture=True)
    target = database_like("main")
    seen: list[Progress] = []

    made = plan(archive, parse_point("latest", datetime.now(UTC)))
    preview(archive, target, made, RestoreOptions(), report=seen.append)
    result = restored(archive, target, events_only=False)

    other = "collation is libc C, the source's is libc C.UTF-8"
    assert any(other in warning for warning in result.warnings)
    assert [event.message for event in seen if isinstance(event, Warned) and other in event.message]
