"""What a hostile review of the whole restore opened; each case showed a way to a wrong or unusable database."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from tests.fix_archive import Backup, execute, restored
from tests.fix_postgres import every_version
from tests.fix_whole import one, table_rows
from tests.fix_zitadel import add_user, clock, set_state, step, steps_of, system, whole, zitadel
from tests.history import Command, push
from zbackup import restore as use_case
from zbackup.archive.archive import Archive
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.errors import TargetError, TargetRefused, UsageError
from zbackup.event import instant_text
from zbackup.survey import UnitOptions

New = Callable[[], str]


class Died(Exception):
    pass


@pytest.fixture
def die_before_publishing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let the next restore end just before it publishes, and those after it not."""

    def arm() -> None:
        def die(*_: Any, **__: Any) -> None:
            monkeypatch.undo()
            raise Died

        monkeypatch.setattr(use_case, "publish", die)

    return arm


def last_of(dsn: str, name: str) -> str:
    return [what for step_name, what in steps_of(dsn) if step_name == name][-1]


def test_a_repeatable_step_that_was_only_started_is_forgotten(
    archive: Archive, source: str, back_up: Backup, new_database: New
) -> None:
    """
    A setup that died in `config_change` does not let the next one wait for ever.
    """
    with psycopg.connect(source) as connection:
        push(connection, "", system("system.migration.started", {"name": "config_change"}))
    back_up(capture=True)
    target = new_database()

    whole(archive, target)

    assert last_of(source, "config_change") == "started"
    assert last_of(target, "config_change") == "repeatable.done"


@pytest.mark.parametrize("finished", [True, False])
def test_a_whole_restore_does_not_go_on_with_events_alone(
    archive: Archive,
    source: str,
    back_up: Backup,
    new_database: New,
    die_before_publishing: Callable[[], None],
    *,
    finished: bool,
) -> None:
    """
    What a restore of the events alone left is refused by a whole one; given up, it can be taken.
    """
    back_up(capture=True)
    target = new_database()
    if not finished:
        die_before_publishing()
        with pytest.raises(Died):
            restored(archive, target)
    else:
        restored(archive, target)

    with pytest.raises(TargetRefused, match="events alone"):
        whole(archive, target)
    if not finished:
        assert whole(archive, target, restart=True).mode == "empty"


def test_state_of_schema_zitadel_is_loaded_by_the_columns_both_have(
    archive: Archive, source: str, back_up: Backup, new_database: New
) -> None:
    """
    A column less in a newer version costs that column, not the tables of the whole schema.
    """
    tables = "CREATE SCHEMA zitadel; CREATE TABLE zitadel.users (id TEXT{}); CREATE TABLE zitadel.orgs (id TEXT)"
    execute(source, tables.format(", old TEXT"))
    execute(source, "INSERT INTO zitadel.users VALUES ('u', 'x'); INSERT INTO zitadel.orgs VALUES ('o')")
    with psycopg.connect(source) as connection:
        set_state(connection, "relational_tables")
    back_up(capture=True)
    target = new_database()
    zitadel(target)
    execute(target, tables.format(""))

    recovered = whole(archive, target)

    assert table_rows(target, "zitadel.users") == ["(u)"]
    assert table_rows(target, "zitadel.orgs") == ["(o)"]
    assert any("zitadel.users" in warning and "old" in warning for warning in recovered.warnings)


def test_a_table_whose_handler_lost_its_state_stays_empty(
    archive: Archive, source: str, back_up: Backup, new_database: New
) -> None:
    """
    An operator who deleted a state to have a projection rebuilt gets it rebuilt, not doubled; leftovers of older
    versions are loaded.
    """
    execute(source, "CREATE TABLE projections.users13 (id TEXT); INSERT INTO projections.users13 VALUES ('old')")
    execute(source, "INSERT INTO projections.users14 VALUES ('u', 'i1', 'n')")
    execute(source, "INSERT INTO projections.orgs1 VALUES ('o', 'i1', 'n')")
    with psycopg.connect(source) as connection:
        set_state(connection, "projections.users14")
    back_up(capture=True)
    target = new_database()

    recovered = whole(archive, target)

    assert [table_rows(target, f"projections.{name}") for name in ("users13", "users14", "orgs1")] == [
        ["(old)"],
        ["(u,i1,n)"],
        [],
    ]
    why = {str(table): table.why for table in recovered.unit.tables}
    assert "no state of its handler" in why["projections.orgs1"]


def test_a_capture_without_schema_is_passed_over(
    archive: Archive, source: str, back_up: Backup, new_database: New
) -> None:
    """
    One night on which pg_dump gave up leaves an empty target the capture before it, and says so; a prepared one
    takes the newer state.
    """
    first = back_up(capture=True).backup
    execute(source, "INSERT INTO system.assets VALUES ('i1', '4', 'o1', 'logo', 'p', DEFAULT, 'x', now())")
    second = back_up(capture=True, pg_dump="/nowhere/pg_dump").backup
    at = clock(source)
    with psycopg.connect(source) as connection:
        add_user(connection, "later")
    back_up()
    empty, prepared = new_database(), new_database()
    zitadel(prepared)

    into_empty = restored(archive, empty, instant_text(at), events_only=False)
    into_prepared = whole(archive, prepared, instant_text(at))

    assert into_empty.recovered is not None
    assert into_empty.recovered.capture == first
    assert any(second in warning and "has no schema" in warning for warning in into_empty.warnings)
    assert into_prepared.capture == second
    assert table_rows(prepared, "system.assets") == table_rows(source, "system.assets") != []


@every_version
def test_dollars_in_literals_swallow_nothing(archive: Archive, source: str, back_up: Backup, new_database: New) -> None:
    """
    An index over a literal with two dollars takes neither triggers nor foreign keys with it.
    """
    execute(
        source,
        """CREATE FUNCTION projections.f() RETURNS trigger LANGUAGE plpgsql AS $f$BEGIN RETURN NULL; END$f$;
           CREATE TRIGGER t AFTER INSERT ON projections.users14 EXECUTE FUNCTION projections.f();
           CREATE INDEX aaa ON eventstore.fields (aggregate_id) WHERE aggregate_id <> '$$';
           COMMENT ON INDEX eventstore.aaa IS 'it''s $$ "quoted';
           CREATE FUNCTION eventstore.g(text) RETURNS text LANGUAGE sql AS 'SELECT $1'""",
    )
    back_up(capture=True)
    target = new_database()

    whole(archive, target)

    for query in (
        "SELECT array_agg(pg_get_triggerdef(oid)) FROM pg_trigger WHERE NOT tgisinternal",
        "SELECT array_agg(conname ORDER BY conname) FROM pg_constraint WHERE contype IN ('f', 'p')",
        "SELECT array_agg(indexdef ORDER BY indexdef) FROM pg_indexes WHERE schemaname !~ '^pg_'",
        "SELECT obj_description('eventstore.aaa'::regclass)",
    ):
        assert one(target, query) == one(source, query)


def test_a_source_from_before_v2_39_fits_a_prepared_target(
    archive: Archive, source: str, back_up: Backup, new_database: New
) -> None:
    """
    Its in_tx_order is a bigint, that of a fresh setup an integer: values that fit are taken, others are refused
    with nothing published. Restored into an empty database, it is recognised when it is done.
    """
    execute(source, "ALTER TABLE eventstore.events2 ALTER in_tx_order TYPE bigint")
    execute(source, "CREATE TABLE eventstore.events_old (instance_id TEXT)")
    back_up(capture=True)
    target, empty = new_database(), new_database()
    zitadel(target)

    assert whole(archive, target).mode == "prepared"
    whole(archive, empty)
    assert restored(archive, empty, events_only=False).done_before

    execute(source, "UPDATE eventstore.events2 SET in_tx_order = 3000000000 WHERE event_type = 'org.added'")
    back_up(capture=True, audit=True)
    other = new_database()
    zitadel(other)
    with pytest.raises(TargetError, match="out of range"):
        whole(archive, other)
    assert one(other, "SELECT to_regclass('eventstore.events2') IS NULL")


def test_circular_keys_do_not_stop_a_rerun(
    archive: Archive, source: str, back_up: Backup, new_database: New, die_before_publishing: Callable[[], None]
) -> None:
    """
    Foreign keys that go round come after the data; a run that died behind them goes on.
    """
    execute(
        source,
        """CREATE TABLE projections.a1 (id INT PRIMARY KEY, b INT);
           CREATE TABLE projections.b1 (id INT PRIMARY KEY, a INT REFERENCES projections.a1);
           ALTER TABLE projections.a1 ADD FOREIGN KEY (b) REFERENCES projections.b1;
           INSERT INTO projections.a1 VALUES (1); INSERT INTO projections.b1 VALUES (1, 1)""",
    )
    back_up(capture=True)
    target = new_database()
    die_before_publishing()
    with pytest.raises(Died):
        whole(archive, target)

    whole(archive, target)

    assert table_rows(target, "projections.b1") == ["(1,1)"]


def test_triggers_on_the_events_do_not_see_the_edits(
    archive: Archive, source: str, back_up: Backup, new_database: New
) -> None:
    """
    A guard that lets nobody delete events lets publishing pass, and guards again afterwards.
    """
    execute(
        source,
        """CREATE FUNCTION eventstore.guard() RETURNS trigger LANGUAGE plpgsql
               AS $$BEGIN RAISE EXCEPTION 'events are for ever'; END$$;
           CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON eventstore.events2
               FOR EACH ROW EXECUTE FUNCTION eventstore.guard();
           ALTER TABLE eventstore.events2 ENABLE ALWAYS TRIGGER guard""",
    )
    back_up(capture=True)
    target = new_database()

    whole(archive, target)

    assert one(target, "SELECT tgenabled FROM pg_trigger WHERE tgname = 'guard'") == "A"
    with pytest.raises(psycopg.errors.RaiseException):
        execute(target, "DELETE FROM eventstore.events2")


@pytest.mark.parametrize("name", ["eventstore.unique_constraints", "projections.current_states", "eventstore.fields"])
def test_a_computed_table_that_wants_more_is_refused_at_once(
    archive: Archive, source: str, back_up: Backup, new_database: New, name: str
) -> None:
    """
    A newer version's column that zbackup cannot fill is found before anything is loaded.
    """
    back_up(capture=True)
    target = new_database()
    zitadel(target)
    execute(
        target, f"ALTER TABLE {name} ADD extra TEXT NOT NULL DEFAULT ''; ALTER TABLE {name} ALTER extra DROP DEFAULT"
    )

    with pytest.raises(TargetRefused, match=name):
        whole(archive, target)

    assert one(target, "SELECT to_regclass('eventstore.events2') IS NOT NULL")


def test_silent_handlers_are_ahead_after_a_rerun_too(
    archive: Archive, source: str, back_up: Backup, new_database: New, die_before_publishing: Callable[[], None]
) -> None:
    """
    What a restore dates itself keeps its date when it is run again, so the states written before stay beyond it.
    """
    back_up(capture=True)
    target = new_database()
    zitadel(target, domain="elsewhere.example.com")
    die_before_publishing()
    with pytest.raises(Died):
        whole(archive, target)
    time.sleep(0.01)

    whole(archive, target)

    assert one(target, "SELECT count(*) FROM eventstore.events2 WHERE payload->>'name' = 'config_change'") == 3
    assert one(
        target,
        """SELECT (SELECT min("position") FROM projections.current_states) >
                  (SELECT max("position") FROM eventstore.events2)""",
    )


def test_metadata_of_the_schema_must_be_there(
    archive: Archive, source: str, back_up: Backup, new_database: New, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Without River's own version setup would fail on its tables: an empty target is refused.
    """

    def claimed(*_: object) -> frozenset[str]:
        return frozenset({"queue.river_migration"})

    monkeypatch.setattr("zbackup.capture.rewritten", claimed)
    back_up(capture=True)
    target = new_database()

    with pytest.raises(TargetRefused, match=r"queue\.river_migration: it was not captured"):
        whole(archive, target)


def test_given_up_in_schemas_that_somebody_else_made(
    archive: Archive,
    source: str,
    back_up: Backup,
    new_database: New,
    postgres: EmbeddedPostgres,
    die_before_publishing: Callable[[], None],
) -> None:
    """
    Schemas that were there stay there, and only what is in them goes.
    """
    back_up(capture=True)
    target = new_database()
    schemas = ("eventstore", "system", "projections", "auth", "queue", "cache")
    execute(target, "DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN")
    try:
        for schema in schemas:
            execute(target, f"CREATE SCHEMA {schema}; GRANT ALL ON SCHEMA {schema} TO guest")
        dsn = postgres.dsn(one(target, "SELECT current_database()"), user="guest")
        die_before_publishing()
        with pytest.raises(Died):
            whole(archive, dsn)

        whole(archive, dsn, restart=True)

        owner = "SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'eventstore'"
        assert one(target, owner) == "postgres"
        assert table_rows(target, "system.encryption_keys") == table_rows(source, "system.encryption_keys")
    finally:
        execute(target, "DROP OWNED BY guest CASCADE; DROP ROLE guest")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (UnitOptions(auth_requests=True), "--auth-requests would have no effect"),
        (UnitOptions(without=frozenset({"eventstore.unique_constraints"})), "would have no effect"),
        (UnitOptions(without=frozenset({"projections.failed_events2"})), "would have no effect"),
    ],
)
def test_options_without_effect_are_errors(
    archive: Archive, source: str, back_up: Backup, new_database: New, options: UnitOptions, message: str
) -> None:
    """
    What a capture cannot give, or what is worked out anyway, cannot be asked for or left out.
    """
    back_up(capture=True)

    with pytest.raises(UsageError, match=message):
        whole(archive, new_database(), unit=options)


def test_a_rerun_after_the_end_says_what_to_do(
    archive: Archive, source: str, back_up: Backup, new_database: New
) -> None:
    """
    Who was cut off at the commit learns the next steps from the same command.
    """
    back_up(capture=True)
    target = new_database()
    first = restored(archive, target, events_only=False)

    again = restored(archive, target, events_only=False)

    assert again.done_before
    assert again.next_steps == first.next_steps
    assert again.notices == first.notices
    assert any(found.command and "--init-projections=true" in found.command for found in again.next_steps)


def test_other_relations_than_tables_are_no_reason_to_refuse(
    archive: Archive, source: str, back_up: Backup, new_database: New
) -> None:
    """
    A materialized view of the operator's comes back without its rows, and the result says so.
    """
    execute(source, "CREATE MATERIALIZED VIEW projections.my_stats AS SELECT 1 AS n")
    back_up(capture=True)
    target = new_database()

    recovered = whole(archive, target)

    assert any("my_stats" in warning and "REFRESH" in warning for warning in recovered.warnings)
    execute(target, "REFRESH MATERIALIZED VIEW projections.my_stats")


def test_columns_are_found_by_their_names(archive: Archive, source: str, back_up: Backup, new_database: New) -> None:
    """
    Constraints in another order of columns, and a column more in the keys, change nothing.
    """
    execute(
        source,
        """CREATE TABLE eventstore.u2 AS
               SELECT unique_type, unique_field, instance_id FROM eventstore.unique_constraints;
           DROP TABLE eventstore.unique_constraints; ALTER TABLE eventstore.u2 RENAME TO unique_constraints;
           ALTER TABLE system.encryption_keys ADD note TEXT""",
    )
    back_up(capture=True)
    empty, prepared = new_database(), new_database()
    zitadel(prepared)

    recovered = whole(archive, empty)
    whole(archive, prepared)

    assert recovered.constraints.difference is not None
    assert not recovered.constraints.difference.missing
    query = (
        "SELECT array_agg(ARRAY[instance_id, unique_type, unique_field] ORDER BY 1) FROM eventstore.unique_constraints"
    )
    assert "org_name" in [row[1] for row in one(empty, query)]
    assert one(prepared, "SELECT array_agg(key) FROM system.encryption_keys") == one(
        source, "SELECT array_agg(key) FROM system.encryption_keys"
    )


def test_other_options_are_told_apart(
    archive: Archive, source: str, back_up: Backup, new_database: New, die_before_publishing: Callable[[], None]
) -> None:
    """
    The refusal of an unfinished restore names the option that differs.
    """
    back_up(capture=True)
    target = new_database()
    die_before_publishing()
    with pytest.raises(Died):
        whole(archive, target, unit=UnitOptions(cold=True))

    with pytest.raises(TargetRefused, match="--cold") as refused:
        whole(archive, target)

    assert "--cold" in refused.value.hint


def test_tables_nobody_knows_make_room_in_a_prepared_target(
    archive: Archive, source: str, back_up: Backup, new_database: New
) -> None:
    """
    Rows that are there go before the captured ones come.
    """
    statement = "CREATE TABLE eventstore.pushers (name TEXT PRIMARY KEY); INSERT INTO eventstore.pushers VALUES ('a')"
    execute(source, statement)
    back_up(capture=True)
    target = new_database()
    zitadel(target)
    execute(target, statement)

    whole(archive, target)

    assert table_rows(target, "eventstore.pushers") == ["(a)"]


def test_with_an_instance_go_all_its_rows(archive: Archive, source: str, back_up: Backup, new_database: New) -> None:
    """
    Constraints that no event explains go with their instance, as ZITADEL deletes them; permissions, too.
    """
    execute(source, "INSERT INTO eventstore.unique_constraints VALUES ('i1', 'usernames', 'ghost')")
    back_up(capture=True)
    with psycopg.connect(source) as connection:
        push(connection, "i1", Command("instance", "i1", "instance.removed", {}, owner="i1"))
    at = clock(source)
    back_up()
    target = new_database()

    recovered = whole(archive, target, instant_text(at))

    assert not recovered.instances
    assert not table_rows(target, "eventstore.unique_constraints", "instance_id = 'i1'")
    assert not table_rows(target, "eventstore.fields")
    assert not one(target, "SELECT count(*) FROM projections.current_states")
    assert any("no instance lives" in warning for warning in recovered.warnings)


def test_a_target_older_than_the_instant_is_refused_at_once(
    archive: Archive, source: str, back_up: Backup, new_database: New
) -> None:
    """
    An upgrade between capture and instant is seen in the archive, before anything is loaded; before it the older
    target does.
    """
    back_up(capture=True)
    before = clock(source)
    with psycopg.connect(source) as connection:
        step(connection, "projection_tables", {"version": "v4.14.0"})
    at = datetime.now(UTC)
    back_up()
    target, other = new_database(), new_database()
    zitadel(target)
    zitadel(other)

    with pytest.raises(TargetRefused, match=r"v4\.14\.0"):
        whole(archive, target, instant_text(at))
    assert one(target, "SELECT to_regclass('eventstore.events2_restoring') IS NULL")
    assert whole(archive, other, instant_text(before)).zitadel_version == "v4.13.1"
