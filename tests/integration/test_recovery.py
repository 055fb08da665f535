"""The whole ZITADEL comes back: every captured instant of every history, table by table, in both modes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests import fixture_data
from tests.fix_archive import Backup, execute, restored, source_rows
from tests.fix_whole import Played, all_rows, one, table_rows
from tests.fixture_data import VERSIONS, full_place, truths
from zbackup.archive.archive import Archive
from zbackup.event import cursor_of, instant_text
from zbackup.restore import RestoreResult
from zbackup.survey import UnitOptions
from zbackup.zitadel import steps, tables
from zbackup.zitadel.handlers import SIDE_EFFECTS, side_effects
from zbackup.zitadel.migrations import parse

FULL = [pytest.param(False, id="compact")]
if full_place() is not None:
    FULL.append(pytest.param(True, id="full"))

MIGRATIONS = "unique_type NOT IN ('migration_started', 'migration_done')"


def data_rows(dsn: str, at: datetime | None = None) -> list[bytes]:
    """Return the events but those of `zitadel setup`."""
    return [
        row
        for row in source_rows(dsn)
        if b"\tsystem.migration." not in row and (at is None or cursor_of(row).created_at <= at)
    ]


def check_states(dsn: str) -> None:
    """Every live instance has its silent handlers, and no event exceeds them."""
    rows = one(
        dsn,
        """SELECT array_agg(ARRAY[projection_name, instance_id]) FROM projections.current_states
            WHERE projection_name = ANY (%s) AND filter_offset = 0
              AND "position" > (SELECT max("position") FROM eventstore.events2)""",
        list(SIDE_EFFECTS),
    )
    live = one(
        dsn,
        """SELECT array_agg(DISTINCT instance_id) FROM eventstore.events2 e WHERE event_type = 'instance.added'
              AND NOT EXISTS (SELECT FROM eventstore.events2 r WHERE r.event_type = 'instance.removed'
                  AND r.instance_id = e.instance_id)""",
    )
    version = one(
        dsn,
        """SELECT payload->'lastRun'->>'version' FROM eventstore.events2 WHERE payload->>'name' = 'projection_tables'
              AND event_type = 'system.migration.repeatable.done' ORDER BY "sequence" DESC LIMIT 1""",
    )
    assert {tuple(row) for row in rows} == {(name, instance) for name in side_effects(version) for instance in live}


def check_migrations(source: str, target: str) -> None:
    """What setup did stays done, but for the markers of projections and fields; rows and events agree."""
    kinds = ("system.migration.started", "system.migration.done", "system.migration.repeatable.done")
    query = """SELECT array_agg(DISTINCT payload->>'name') FROM eventstore.events2
                WHERE aggregate_type = 'system' AND event_type = ANY (%s)"""
    before, after = set(one(source, query, list(kinds))), set(one(target, query, list(kinds)))
    assert before - after == {name for name in before if steps.is_projection_marker(name) or name in steps.FIELD_STEPS}
    assert after <= before
    rows = set(one(target, f"SELECT array_agg(unique_field) FROM eventstore.unique_constraints WHERE NOT {MIGRATIONS}"))
    assert rows <= {name.lower() for name in after}


def check_permissions(source: str, target: str) -> None:
    """The permission rows are the live set as the source's own table has it at its end."""
    assert permissions(target)
    assert permissions(target) == permissions(source)


def permissions(dsn: str) -> set[tuple[str, ...]]:
    return {
        tuple(row)
        for row in one(
            dsn,
            """SELECT array_agg(ARRAY[instance_id, resource_owner, aggregate_id, object_type, object_id,
                      object_revision::text, field_name, value::text, value_must_be_unique::text, should_index::text])
                 FROM eventstore.fields WHERE aggregate_type = 'permission'""",
        )
    }


def check_tables(source: str, target: str, result: RestoreResult) -> None:
    """Tables that were loaded are those of the source, row for row; the others are empty."""
    assert result.recovered is not None
    computed = {"projections.current_states", "eventstore.fields", "eventstore.unique_constraints"}
    tables = {str(table): table.action for table in result.recovered.unit.tables if str(table) not in computed}
    assert {"load", "empty"} <= set(tables.values())
    loaded = [name for name, action in tables.items() if action == "load"]
    there = all_rows(target, tables)
    assert all_rows(source, loaded) == {name: there[name] for name in loaded}
    assert not [name for name, action in tables.items() if action == "empty" and there[name]]
    warm = result.recovered.unit.warm_handlers
    quoted = ", ".join(f"'{name}'" for name in warm) or "NULL"
    chosen = {
        "projections.current_states": f"projection_name IN ({quoted})",
        "eventstore.fields": "aggregate_type <> 'permission'",
    }
    for name, where in chosen.items():
        if name in there or one(target, "SELECT to_regclass(%s) IS NOT NULL", name):
            cold = name == "eventstore.fields" and result.recovered.unit.fields
            assert table_rows(target, name, where) == ([] if cold else table_rows(source, name, where))


@pytest.mark.parametrize("full", FULL)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_captured_instant_comes_back_whole(
    archive: Archive, back_up: Backup, database_like: Callable[[str], str], version: str, *, full: bool
) -> None:
    """
    A history is played from instant to instant, with a backup after each. The capture's own point has its tables;
    an instant between two has the constraints, permissions and silent states of that instant, row for row, on
    the tables of the backup before it.
    """
    source = database_like(version)
    played = Played(source, version, full)
    played.begin()
    target = source
    for number, truth in enumerate(truths(version, full=full)):
        at = played.until(truth)
        backup = back_up(source, capture=True).backup
        wanted = table_rows(source, "eventstore.unique_constraints", MIGRATIONS)

        for point, cold in ((f"backup:{backup}", False), (instant_text(at), False), (instant_text(at), True)):
            target = database_like(version)
            result = restored(archive, target, point, events_only=False, unit=UnitOptions(cold=cold))

            found = result.recovered
            assert found is not None
            assert found.mode == "empty"
            whole = point.startswith("backup:")
            assert bool(found.unit.cold) == (cold or (not whole and number == 0))
            assert found.constraints.basis == (
                "capture" if whole else "events" if number == 0 else "capture and events since"
            )
            assert wanted == table_rows(target, "eventstore.unique_constraints", MIGRATIONS)
            if found.constraints.difference is not None:
                assert not found.constraints.difference.missing
                assert not found.constraints.difference.unexplained
                assert not found.constraints.difference.explained
            assert data_rows(target) == data_rows(source, at)
            check_states(target)
            check_migrations(source, target)
            check_tables(source, target, result)
            assert one(target, "SELECT count(*) FROM projections.failed_events2") == 0
    if full:
        check_permissions(source, target)


def test_a_constraint_of_an_event_that_came_late_is_back(
    archive: Archive, back_up: Backup, database_like: Callable[[str], str]
) -> None:
    """
    An event that only a later backup found to be of the past has its unique constraint at an instant between.
    """
    source, target = database_like("v4.13.1"), database_like("v4.13.1")
    played = Played(source, "v4.13.1", full=False)
    played.begin()
    begun = played.until(truths("v4.13.1")[-1])
    back_up(source, capture=True)
    at = datetime.now(UTC)
    back_up(source)
    before = table_rows(source, "eventstore.unique_constraints", MIGRATIONS)
    execute(
        source,
        """INSERT INTO eventstore.events2 (instance_id, aggregate_type, aggregate_id, event_type, "sequence", revision,
                  created_at, payload, creator, "owner", "position", in_tx_order)
           SELECT instance_id, aggregate_type, 'late', event_type, 1, revision, %s, '{"name": "Came Late"}', creator,
                  'late', "position", 99 FROM eventstore.events2 WHERE event_type = 'org.added' LIMIT 1""",
        (begun,),
    )
    execute(
        source,
        """INSERT INTO eventstore.unique_constraints SELECT instance_id, 'org_name', 'came late'
             FROM eventstore.events2 WHERE aggregate_id = 'late'""",
    )
    assert back_up(source, audit=True).amended == 1

    result = restored(archive, target, instant_text(at), events_only=False)

    assert result.added == 1
    assert result.recovered is not None
    assert result.recovered.constraints.basis == "capture and events since"
    wanted = table_rows(source, "eventstore.unique_constraints", MIGRATIONS)
    assert [row for row in wanted if row not in before] == [row for row in wanted if "came late" in row]
    assert wanted == table_rows(target, "eventstore.unique_constraints", MIGRATIONS)


@pytest.mark.skipif(full_place() is None, reason="the full fixtures are not at hand")
def test_a_prepared_database_is_filled(archive: Archive, back_up: Backup, database_like: Callable[[str], str]) -> None:
    """
    What `zitadel init` and `zitadel setup --for-mirror` left keeps its own steps; all else is the source's.
    """
    version = "v4.13.1"
    source = database_like(version)
    played = Played(source, version, full=True)
    played.begin()
    target = source
    for truth in truths(version, full=True):
        at = played.until(truth)
        back_up(source, capture=True)
        target, beside = prepared(database_like), prepared(database_like)
        fresh = {row for row in source_rows(target) if b"\tsystem\tSYSTEM\t" in row}

        result = restored(archive, target, instant_text(at), events_only=False)

        found = result.recovered
        assert found is not None
        assert (found.mode, found.zitadel_version) == ("prepared", version)
        assert table_rows(source, "eventstore.unique_constraints", MIGRATIONS) == table_rows(
            target, "eventstore.unique_constraints", MIGRATIONS
        )
        there = source_rows(target)
        own = [row for row in there if b"\tsystem\tSYSTEM\t" in row]
        assert [row for row in there if row not in set(own)] == [
            row for row in source_rows(source) if b"\tsystem\tSYSTEM\t" not in row and cursor_of(row).created_at <= at
        ]
        events = parse(own)
        told = [event for event in events if event.sequence not in {event.sequence for event in parse(fresh)}]
        assert [(event.step, event.last_run) for event in told] == [
            ("config_change", '{"externalDomain": "localhost", "externalPort": 18100, "externalSecure": false}')
        ]
        assert {event.line for event in events if event not in told} == fresh - {
            event.line for event in parse(fresh) if event.step in steps.FIELD_STEPS
        }
        assert not one(target, "SELECT count(*) FROM pg_class WHERE relname LIKE 'events2_before%'")
        check_states(target)
        check_tables(source, target, result)
        for name in ("queue.river_migration", "eventstore.unique_constraints"):
            own = own_of(name)
            assert unprepared(table_rows(target, name, own)) == unprepared(table_rows(beside, name, own))
    check_permissions(source, target)


def own_of(name: str) -> str:
    """Say which rows of a table are the prepared database's own."""
    return f"NOT ({MIGRATIONS})" if name == "eventstore.unique_constraints" else "true"


def unprepared(rows: list[str]) -> set[str]:
    """Leave out the steps that are to run again."""
    return {row for row in rows if not any(step in row for step in steps.FIELD_STEPS)}


def prepared(database_like: Callable[[str], str]) -> str:
    import psycopg

    dsn = database_like("v4.13.1")
    with psycopg.connect(dsn) as connection:
        fixture_data.load(connection, "v4.13.1-prepared", tables="all", full=True)
    return dsn


def test_the_knowledge_has_no_table_without_a_fate() -> None:
    """
    Every table that a restore may meet has a fate.
    """
    assert {known.restore for known in tables.TABLES} == {"load", "warm", "compute", "empty", "schema", "never"}
