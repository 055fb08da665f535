"""A small ZITADEL of our own: its tables, the steps of its setup, instances and people, and how to restore it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from tests.fix_archive import restored
from tests.fix_whole import one
from tests.history import Command, create_schema, push
from zbackup.archive.archive import Archive
from zbackup.recover import Recovered

PROJECTIONS = """
    CREATE TABLE projections.users14 (id TEXT, instance_id TEXT, name TEXT, PRIMARY KEY (instance_id, id));
    CREATE TABLE projections.users14_humans (
        user_id TEXT, instance_id TEXT, email TEXT, PRIMARY KEY (instance_id, user_id),
        FOREIGN KEY (instance_id, user_id) REFERENCES projections.users14 (instance_id, id)
    );
    CREATE TABLE projections.orgs1 (id TEXT, instance_id TEXT, name TEXT, PRIMARY KEY (instance_id, id));
"""


@pytest.fixture
def source(database: str) -> str:
    """The DSN of a ZITADEL that was set up and has one instance."""
    zitadel(database)
    with psycopg.connect(database) as connection:
        found(connection, "i1")
    return database


STEPS = (
    "14_events_push",
    "01_tables",
    "28_add_search_table",
    "03_default_instance",
    "29_init_fields_for_project_grant",
)


def zitadel(dsn: str, version: str = "v4.13.1", domain: str = "login.example.com") -> None:
    """Set a database up as `zitadel setup` does, without an instance."""
    with psycopg.connect(dsn) as connection:
        create_schema(connection)
        connection.execute(PROJECTIONS)
        for name in STEPS:
            step(connection, name)
        step(connection, "config_change", {"externalDomain": domain, "externalPort": 443, "externalSecure": True})
        step(connection, "projection_tables", {"version": version})
        push(connection, "", system("system.id.generated", {"id": f"id of {dsn[-4:]}"}))
        connection.execute("INSERT INTO system.encryption_keys VALUES ('oidcKey', %s)", (f"key of {dsn[-6:]}",))


def system(event: str, payload: dict[str, Any]) -> Command:
    return Command("system", "SYSTEM", event, payload, creator="system", owner="SYSTEM")


def step(connection: psycopg.Connection[Any], name: str, last_run: dict[str, Any] | None = None) -> None:
    """Record a step of setup, as events and as rows."""
    push(connection, "", system("system.migration.started", {"name": name}))
    started = "INSERT INTO eventstore.unique_constraints VALUES ('', 'migration_started', %s)"
    if last_run is None:
        push(connection, "", system("system.migration.done", {"name": name}))
        connection.execute(started, (name,))
        connection.execute("INSERT INTO eventstore.unique_constraints VALUES ('', 'migration_done', %s)", (name,))
    else:
        push(connection, "", system("system.migration.repeatable.done", {"name": name, "lastRun": last_run}))
    connection.commit()


def found(connection: psycopg.Connection[Any], instance: str) -> None:
    """Make an instance with its domain, a permission and an organisation."""
    push(
        connection,
        instance,
        Command("instance", instance, "instance.added", {"name": instance.upper()}, owner=instance),
        Command("instance", instance, "instance.domain.added", {"domain": f"{instance}.login.example.com"}),
        Command("permission", instance, "permission.added", {"role": "OWNER", "permission": "org.read"}),
        Command("org", "o1", "org.added", {"name": "Org"}, owner="o1"),
    )
    connection.execute(
        """INSERT INTO eventstore.unique_constraints
           VALUES ('', 'instance_domain', lower(%s)), (%s, 'org_name', 'org')""",
        (f"{instance}.login.example.com", instance),
    )
    connection.commit()


def add_user(connection: psycopg.Connection[Any], name: str, instance: str = "i1") -> None:
    """Add a user whose name is unique without its organisation; the caller commits."""
    push(connection, instance, Command("user", f"u-{name}", "user.human.added", {"userName": name}, owner="o1"))
    row = (instance, "usernames", name)
    connection.execute("INSERT INTO eventstore.unique_constraints VALUES (%s, %s, %s)", row)


def set_state(connection: psycopg.Connection[Any], handler: str, instance: str = "i1") -> None:
    """Let a handler have read everything that is visible."""
    connection.execute(
        """INSERT INTO projections.current_states
               (projection_name, instance_id, last_updated, "position", filter_offset)
           SELECT %s, %s, now(), max("position"), 0 FROM eventstore.events2
           ON CONFLICT (projection_name, instance_id) DO UPDATE SET "position" = excluded."position" """,
        (handler, instance),
    )
    connection.commit()


def clock(dsn: str) -> datetime:
    """Return an instant between what was and what comes."""
    time.sleep(0.002)
    now: datetime = one(dsn, "SELECT clock_timestamp()")
    time.sleep(0.002)
    return now.astimezone(UTC)


def whole(archive: Archive, dsn: str, point: str = "latest", **changes: Any) -> Recovered:
    result = restored(archive, dsn, point, events_only=False, **changes)
    assert result.recovered is not None
    return result.recovered


def steps_of(dsn: str) -> list[tuple[str, str]]:
    """Return the events of setup that a database has: step and what happened."""
    rows = one(
        dsn,
        """SELECT array_agg(ARRAY[payload->>'name', replace(event_type, 'system.migration.', '')] ORDER BY "sequence")
             FROM eventstore.events2 WHERE aggregate_type = 'system' AND event_type LIKE 'system.migration.%'""",
    )
    return [(name, what) for name, what in rows]
