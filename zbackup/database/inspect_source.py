"""Facts about a source that only a look at the server tells: rights, settings, who hides, how large."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from psycopg import sql

from zbackup.database.connection import Connection
from zbackup.database.export import relation
from zbackup.source import EventTable
from zbackup.zitadel import push


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    superuser: bool
    sees_sessions: bool
    """of all roles: pg_read_all_stats"""
    table_owner: str
    """who owns the events table"""


@dataclass(frozen=True, slots=True)
class Sessions:
    hidden: int
    """sessions of other roles, of which nothing is shown"""
    silent: int
    """sessions with track_activities off"""
    silenced: tuple[str, ...]
    """roles and databases for which it is set to off"""


@dataclass(frozen=True, slots=True)
class Room:
    """How many connections a role may have."""

    most: int
    free: int
    """our own session not counted"""
    limited_by: str
    """the setting that leaves the least"""


def read_room(connection: Connection) -> Room:
    """Count what the server, the database and the role still let in."""
    row = connection.execute(
        """WITH sessions AS (
             SELECT datid = (SELECT oid FROM pg_database WHERE datname = current_database()) AS here,
                    usesysid = (SELECT oid FROM pg_roles WHERE rolname = session_user) AS mine
               FROM pg_stat_activity
              WHERE usesysid IS NOT NULL AND datid IS NOT NULL AND pid <> pg_backend_pid())
           SELECT current_setting('max_connections')::int - CASE WHEN r.rolsuper THEN 0 ELSE
                    current_setting('superuser_reserved_connections')::int
                    + coalesce(current_setting('reserved_connections', true)::int, 0) END,
                  (SELECT count(*) FROM sessions),
                  CASE WHEN r.rolsuper THEN -1 ELSE d.datconnlimit END, (SELECT count(*) FROM sessions WHERE here),
                  CASE WHEN r.rolsuper THEN -1 ELSE r.rolconnlimit END, (SELECT count(*) FROM sessions WHERE mine)
             FROM pg_roles r, pg_database d
            WHERE r.rolname = session_user AND d.datname = current_database()"""
    ).fetchone()
    assert row is not None
    server, all_, database, here, role, mine = row
    rooms = [Room(server, server - all_, "max_connections")]
    if database >= 0:
        rooms.append(Room(database, database - here, "the database's CONNECTION LIMIT"))
    if role >= 0:
        rooms.append(Room(role, role - mine, "the role's CONNECTION LIMIT"))
    return min(rooms, key=lambda room: room.free)


def read_role(connection: Connection, table_oid: int) -> Role:
    row = connection.execute(
        """SELECT current_user::text, r.rolsuper, pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
                  pg_get_userbyid(c.relowner)::text
             FROM pg_roles r, pg_class c WHERE r.rolname = current_user AND c.oid = %s""",
        (table_oid,),
    ).fetchone()
    assert row is not None
    return Role(*row)


def existing(connection: Connection, schemas: Iterable[str]) -> tuple[str, ...]:
    """Return those of the schemas that there are, in their order."""
    wanted = tuple(schemas)
    rows = connection.execute("SELECT nspname::text FROM pg_namespace WHERE nspname = ANY (%s)", (list(wanted),))
    found = {row[0] for row in rows}
    return tuple(schema for schema in wanted if schema in found)


def unreadable(connection: Connection, schemas: Iterable[str]) -> tuple[str, ...]:
    """Name the tables that the role may not read: no right, or row-level security that would hide rows."""
    rows = connection.execute(
        """SELECT n.nspname || '.' || c.relname
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'p')
              AND NOT (has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
                       AND NOT row_security_active(c.oid))
            ORDER BY 1""",
        (list(schemas),),
    )
    return tuple(row[0] for row in rows)


def read_sessions(connection: Connection) -> Sessions:
    row = connection.execute(
        """SELECT count(*) FILTER (WHERE state IS NULL), count(*) FILTER (WHERE state = 'disabled'),
                  ARRAY(SELECT coalesce('role ' || nullif(s.setrole, 0)::regrole::text,
                                        'database ' || current_database())
                          FROM pg_db_role_setting s
                         WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                           AND EXISTS (SELECT FROM unnest(s.setconfig) one
                                        WHERE one ~* '^track_activities=(off|false|no|0)$'))
             FROM pg_stat_activity
            WHERE datid = (SELECT oid FROM pg_database WHERE datname = current_database())
              AND usesysid IS NOT NULL AND pid <> pg_backend_pid()"""
    ).fetchone()
    assert row is not None
    hidden, silent, silenced = row
    if connection.execute("SELECT current_setting('track_activities')::bool").fetchone() == (False,) and not silenced:
        silenced = ["the server"]
    return Sessions(hidden, silent, tuple(silenced))


def prepared_count(connection: Connection) -> int:
    """Count the prepared transactions of the database, whatever they hold."""
    row = connection.execute("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()").fetchone()
    assert row is not None
    return row[0]


def resets(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """Return what settings would be in a session that sets nothing: by server, database, role, DSN."""
    rows = connection.execute(
        "SELECT name, reset_val || coalesce(' ' || unit, '') FROM pg_settings WHERE name = ANY (%s)", (list(names),)
    )
    return {row[0]: row[1] for row in rows}


def push_source(connection: Connection) -> str | None:
    """Return the text of ZITADEL's push function, of the newest form; None when there is none."""
    row = connection.execute(
        """SELECT p.prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
            WHERE n.nspname = 'eventstore' AND p.proname = %s
            ORDER BY pg_get_function_identity_arguments(p.oid) ~ 'command2' DESC, p.oid DESC LIMIT 1""",
        (push.FUNCTION,),
    ).fetchone()
    return None if row is None else row[0]


def push_expected(connection: Connection) -> bool:
    """Tell whether ZITADEL's setup made the push function at some time, by its own record."""
    row = connection.execute(
        """SELECT EXISTS (SELECT FROM eventstore.events2
            WHERE instance_id = '' AND aggregate_type = 'system' AND aggregate_id = 'SYSTEM'
              AND event_type = 'system.migration.done' AND starts_with(payload->>'name', %s))""",
        (push.STEP,),
    ).fetchone()
    assert row is not None
    return row[0]


def newest_event(connection: Connection, table: EventTable) -> datetime | None:
    query = sql.SQL("SELECT max(created_at) FROM {}").format(relation(table))
    row = connection.execute(query).fetchone()
    return row[0].astimezone(UTC) if row and row[0] else None


def table_bytes(connection: Connection, oid: int) -> int:
    """Return the size of a table with its TOAST, without indexes."""
    row = connection.execute("SELECT pg_table_size(%s)", (oid,)).fetchone()
    assert row is not None
    return row[0]


def behind_pooler(connection: Connection) -> bool:
    """Tell whether another process answers than the one that greeted us."""
    row = connection.execute("SELECT pg_backend_pid()").fetchone()
    return row is not None and row[0] != connection.info.backend_pid
