"""
What a target is to a restore of the whole ZITADEL, decided from its catalog and its events.

    no object in ZITADEL's schemas          empty: it gets the captured schema
    set up by ZITADEL, no instance yet      prepared: its tables are filled
    anything else                           refused, saying what was found
"""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from zbackup.database.export import copy_out
from zbackup.database.fill import Name, TargetTable, list_target
from zbackup.database.target import (
    ASIDE,
    EVENTS,
    LEDGER,
    RESTORING,
    SCHEMA,
    Connection,
    Mode,
    Receipt,
    named,
    one_row,
    read_run,
)
from zbackup.errors import TargetRefused
from zbackup.zitadel import migrations
from zbackup.zitadel.events import COLUMN_ORDER
from zbackup.zitadel.migrations import SystemEvent
from zbackup.zitadel.tables import SCHEMAS

_PREPARE = "Run `zitadel init` and `zitadel setup --for-mirror` there, or give an empty database."

# Without these `zitadel setup` was not there, or not to its end.
_NEEDED = (("projections", "current_states"), ("eventstore", "unique_constraints"), ("system", "encryption_keys"))

NAMED = 5
"""objects named in a message"""


@dataclass(frozen=True, slots=True)
class Target:
    mode: Mode
    found: str
    """what it was taken for, and why"""
    tables: dict[Name, TargetTable]
    """none in an empty one"""
    system: tuple[SystemEvent, ...]
    """the events of system/SYSTEM of a prepared one"""

    @property
    def zitadel_version(self) -> str | None:
        return migrations.zitadel_version(self.system)


def find_target(connection: Connection, *, events_only: bool = False) -> Target:
    """Tell what the target is. Raises TargetRefused."""
    _expect_rights(connection)
    if events_only:
        return Target("events", "only the events are asked for", {}, ())
    objects = _objects(connection)
    if not objects:
        return Target("empty", "no object in ZITADEL's schemas", {}, ())
    begun = _begun(connection)
    if begun is not None:
        return begun
    tables = list_target(connection, SCHEMAS)
    if (SCHEMA, EVENTS) not in tables:
        raise TargetRefused(
            f"the target has objects in ZITADEL's schemas, but no {SCHEMA}.{EVENTS}: {_some(objects)}",
            hint="Give an empty database.",
        )
    if one_row(connection, sql.SQL("SELECT EXISTS (SELECT FROM {} WHERE instance_id <> '')").format(named(EVENTS)))[0]:
        # Whoever takes it says with counts why it cannot be had.
        return Target("prepared", "events of instances are there", tables, ())
    system = read_system(connection, EVENTS)
    missing = [f"{schema}.{name}" for schema, name in _NEEDED if (schema, name) not in tables]
    if missing or not any(event.step for event in system):
        what = f"; {', '.join(missing)} missing" if missing else ""
        raise TargetRefused(
            f"the target has ZITADEL's events table, but `zitadel setup` has not run there{what}", hint=_PREPARE
        )
    if open_steps := migrations.unfinished(system):
        raise TargetRefused(
            f"`zitadel setup` has not ended in the target: {', '.join(open_steps)} was started",
            hint="Wait for it, or run `zitadel setup cleanup` and `zitadel setup --for-mirror` again.",
        )
    version = migrations.zitadel_version(system) or "of unknown version"
    return Target("prepared", f"set up by ZITADEL {version}, without an instance", tables, system)


def read_system(connection: Connection, table: str) -> tuple[SystemEvent, ...]:
    """Read the events of system/SYSTEM from one of the tables of events."""
    query = sql.SQL(
        """COPY (SELECT {} FROM {} WHERE instance_id = '' AND aggregate_type = 'system' AND aggregate_id = 'SYSTEM'
                  ORDER BY "sequence") TO STDOUT"""
    ).format(sql.SQL(", ").join(map(sql.Identifier, COLUMN_ORDER)), named(table))
    return migrations.parse(copy_out(connection, query))


def read_aside(connection: Connection, aggregate_type: str, aggregate_id: str) -> list[bytes]:
    """Return an aggregate of the system as the prepared target had it, as lines of COPY text, by sequence."""
    query = sql.SQL(
        """COPY (SELECT {} FROM {} WHERE instance_id = '' AND aggregate_type = {} AND aggregate_id = {}
                  ORDER BY "sequence") TO STDOUT"""
    ).format(
        sql.SQL(", ").join(map(sql.Identifier, COLUMN_ORDER)),
        named(ASIDE),
        sql.Literal(aggregate_type),
        sql.Literal(aggregate_id),
    )
    return list(copy_out(connection, query))


def dropped_with_aside(connection: Connection) -> list[str]:
    """Name the events of the system that a prepared target had and that do not come back: its own settings."""
    rows = connection.execute(
        sql.SQL(
            """SELECT aggregate_type || '/' || aggregate_id || ' ' || event_type FROM {}
                WHERE (aggregate_type, aggregate_id) NOT IN (('system', 'SYSTEM'), ('permission', 'SYSTEM'))
                ORDER BY created_at"""
        ).format(named(ASIDE))
    )
    return [name for (name,) in rows]


def _begun(connection: Connection) -> Target | None:
    """Recognise a target that a restore has taken, finished or not."""
    there = {
        name
        for (name,) in connection.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s",
            (SCHEMA,),
        )
    }
    mode: Mode | None = None
    if LEDGER in there and RESTORING in there:
        run = read_run(connection)
        mode = run.mode if run else None
    elif RESTORING in there or LEDGER in there:
        mode = "events"  # whoever takes it says what is wrong
    elif EVENTS in there:
        comment = one_row(connection, "SELECT obj_description(to_regclass(%s), 'pg_class')", f"{SCHEMA}.{EVENTS}")[0]
        receipt = Receipt.of_text(comment)
        mode = receipt.mode if receipt else None
    if mode is None:
        return None
    state = "not finished" if LEDGER in there else "finished"
    if mode == "events":
        return Target(mode, f"it holds a restore of events alone, {state}", {}, ())
    system = read_system(connection, ASIDE) if ASIDE in there and mode == "prepared" else ()
    return Target(mode, f"a restore is there, {state}", list_target(connection, SCHEMAS), system)


def _expect_rights(connection: Connection) -> None:
    """Refuse a role that could not finish, before it begins."""
    database, role = connection.info.dbname, connection.info.user
    temporary, create, owner, owns = one_row(
        connection,
        """SELECT has_database_privilege(current_database(), 'TEMPORARY'),
                  has_database_privilege(current_database(), 'CREATE') OR to_regnamespace('eventstore') IS NOT NULL,
                  pg_get_userbyid(c.relowner), coalesce(pg_has_role(c.relowner, 'USAGE'), true)
             FROM (SELECT 1) s LEFT JOIN (pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace)
               ON n.nspname = 'eventstore' AND c.relname IN ('events2', 'events2_restoring') AND c.relkind = 'r'""",
    )
    if not (temporary and create):
        raise TargetRefused(
            f"role {role} may not make {'schemas' if temporary else 'temporary tables'} in database {database}",
            hint=f'GRANT CREATE, TEMPORARY ON DATABASE "{database}" TO "{role}";',
        )
    if not owns:
        raise TargetRefused(
            f"role {role} does not own ZITADEL's tables in database {database}: {owner} does",
            hint=f"Connect as {owner}.",
        )


def _objects(connection: Connection) -> list[str]:
    rows = connection.execute(
        """SELECT n.nspname || '.' || o.name FROM pg_namespace n JOIN (
               SELECT relnamespace AS namespace, relname AS name FROM pg_class WHERE relkind <> 'i'
               UNION ALL SELECT pronamespace, proname FROM pg_proc
               UNION ALL SELECT typnamespace, typname FROM pg_type WHERE typtype IN ('d', 'e', 'r')
             ) o ON o.namespace = n.oid WHERE n.nspname = ANY (%s) ORDER BY 1""",
        (list(SCHEMAS),),
    )
    return [name for (name,) in rows]


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
