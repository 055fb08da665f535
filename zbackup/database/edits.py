"""
What publishing will change about the loaded events: rows to go and rows to come, each with its reason.

They stand in temporary tables of the session until the table is published, so that everything that depends on
the final set of events can be computed before, from a view, while the loaded table still is exactly what the
archive holds. Aggregates are keyed as ZITADEL does; the reasons are words of the result.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from psycopg import sql

from zbackup.archive.plan import RestorePlan, first_of
from zbackup.archive.rows import rows_until
from zbackup.archive.sound import rows_of
from zbackup.database.cut import find_withheld, stage_after
from zbackup.database.export import ORDER, relation
from zbackup.database.fill import without_triggers
from zbackup.database.load import Read
from zbackup.database.target import RESTORING, SCHEMA, Connection, columns, one_row, restoring
from zbackup.errors import TargetError
from zbackup.event import KEY_COLUMNS, Cursor, cursor_of
from zbackup.progress import Report
from zbackup.source import EventTable

MOST_LISTED = 1000
"""so many withheld events are listed in the result"""

WITHHELD = "withheld"
ADDED = "added by a later amendment"

EVENTS = sql.Identifier("pg_temp", "zbackup_events")
"""the events as they will be published"""

NEW = sql.Identifier("pg_temp", "zbackup_new")
"""those of them that publishing inserts"""

_GONE = sql.Identifier("pg_temp", "zbackup_gone")
_LOADED = sql.Identifier("pg_temp", "zbackup_loaded")
_COMING = sql.Identifier("pg_temp", "zbackup_coming")

KEY = sql.SQL('instance_id, aggregate_type, aggregate_id, "sequence"')
_KEYS = sql.SQL(", ").join(map(sql.Identifier, KEY_COLUMNS))


@dataclass(frozen=True, slots=True)
class Edit:
    """One kind of change that publishing makes to the events."""

    why: str
    removed: int
    inserted: int


@dataclass(frozen=True, slots=True)
class Cut:
    """What T itself asks for."""

    added: int
    """rows of later amendments"""
    withheld: int
    """of the loaded rows and of those"""
    withheld_events: tuple[tuple[str, ...], ...]
    """cursors of the first"""


def prepare(connection: Connection, plan: RestorePlan, read: Read, report: Report) -> None:
    """Make the temporary tables, and read what lies after T."""
    make_stage(connection, restoring(plan.table))
    if plan.at is not None:
        stage_after(connection, plan, plan.at, read, report)


def stage(connection: Connection, plan: RestorePlan, read: Read) -> Cut:
    """Note what T asks for: late rows of amendments, and events to withhold; the table has its indexes by now."""
    if plan.at is None:
        return Cut(0, 0, ())
    table = restoring(plan.table)
    added = _stage_added(connection, plan, plan.at, read)
    withheld = find_withheld(connection, _LOADED if added else relation(table))
    listed = _first_withheld(connection)
    connection.execute(
        sql.SQL(
            "INSERT INTO {} SELECT {keys}, {} FROM zbackup_withheld w WHERE NOT EXISTS (SELECT FROM {} n WHERE {same})"
        ).format(_GONE, sql.Literal(WITHHELD), NEW, keys=KEY, same=same_key("n", "w"))
    )
    connection.execute(sql.SQL("DELETE FROM {} n USING zbackup_withheld w WHERE {}").format(NEW, same_key("n", "w")))
    connection.execute(sql.SQL("ANALYZE {}").format(_GONE))
    return Cut(added, withheld, listed)


def make_stage(connection: Connection, table: EventTable) -> None:
    """Make the temporary tables, empty, over the table that is restored, and the views."""
    connection.execute(
        sql.SQL(
            """CREATE TEMPORARY TABLE zbackup_gone (instance_id text, aggregate_type text, aggregate_id text,
                   "sequence" bigint, why text NOT NULL, PRIMARY KEY (instance_id, aggregate_type, aggregate_id,
                   "sequence"))"""
        )
    )
    for name, extra in (("zbackup_new", sql.SQL(", ''::text AS why")), ("zbackup_coming", sql.SQL(""))):
        connection.execute(
            sql.SQL("CREATE TEMPORARY TABLE {} AS SELECT {}{} FROM {} WITH NO DATA").format(
                sql.Identifier(name), columns(table), extra, relation(table)
            )
        )
    connection.execute(sql.SQL("ALTER TABLE {} ADD PRIMARY KEY ({})").format(NEW, KEY))
    connection.execute(
        sql.SQL("CREATE TEMPORARY VIEW zbackup_loaded AS SELECT {0} FROM {1} UNION ALL SELECT {0} FROM {2}").format(
            columns(table), relation(table), NEW
        )
    )
    connection.execute(
        sql.SQL(
            """CREATE TEMPORARY VIEW zbackup_events AS
               SELECT {0} FROM {1} e WHERE NOT EXISTS (SELECT FROM {2} g WHERE g.instance_id = e.instance_id
                  AND g.aggregate_type = e.aggregate_type AND g.aggregate_id = e.aggregate_id
                  AND g."sequence" = e."sequence")
               UNION ALL SELECT {0} FROM {3}"""
        ).format(columns(table), relation(table), _GONE, NEW)
    )


def same_key(one: str, other: str) -> sql.Composed:
    """Write the condition that two rows are the same event."""
    return sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(one, name), sql.Identifier(other, name))
        for name in ("instance_id", "aggregate_type", "aggregate_id", "sequence")
    )


def let_go(connection: Connection, keys: Iterable[tuple[str, str, str, int]], why: str) -> None:
    """Note events that publishing takes away; those that were only to come do not come."""
    with connection.cursor() as cursor:
        for key in keys:
            cursor.execute(
                sql.SQL(
                    """DELETE FROM {} WHERE instance_id = %s AND aggregate_type = %s AND aggregate_id = %s
                          AND "sequence" = %s"""
                ).format(NEW),
                key,
            )
            if not cursor.rowcount:
                cursor.execute(
                    sql.SQL("INSERT INTO {} VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING").format(_GONE),
                    (*key, why),
                )


def let_come(connection: Connection, table: EventTable, lines: Iterable[bytes], why: str) -> None:
    """Note events, as lines of COPY text, that publishing inserts, in the place of a loaded one with the same key."""
    connection.execute(sql.SQL("TRUNCATE {}").format(_COMING))
    _copy(connection, table, lines)
    connection.execute(
        sql.SQL("INSERT INTO {} ({}, why) SELECT {}, {} FROM {}").format(
            NEW, columns(table), columns(table), sql.Literal(why), _COMING
        )
    )


def keep_prepared(connection: Connection, table: EventTable, lines: list[bytes]) -> None:
    """Let the events of an aggregate that a prepared target had come back, unless the loaded ones know it, too."""
    if not lines:
        return
    cursor = cursor_of(lines[0])
    known = one_row(
        connection,
        sql.SQL(
            "SELECT EXISTS (SELECT FROM {} WHERE instance_id = %s AND aggregate_type = %s AND aggregate_id = %s)"
        ).format(EVENTS),
        cursor.instance_id.decode(),
        cursor.aggregate_type.decode(),
        cursor.aggregate_id.decode(),
    )[0]
    if not known:
        let_come(connection, table, lines, "the prepared target's own permissions of the system")


def staged(connection: Connection) -> tuple[Edit, ...]:
    """List the changes by their reason."""
    rows = connection.execute(
        sql.SQL(
            """SELECT why, sum(removed)::int, sum(inserted)::int FROM (
                   SELECT why, count(*) AS removed, 0 AS inserted FROM {} GROUP BY why
                   UNION ALL SELECT why, 0, count(*) FROM {} GROUP BY why) s GROUP BY why ORDER BY why"""
        ).format(_GONE, NEW)
    )
    return tuple(Edit(*row) for row in rows)


def apply(connection: Connection, table: EventTable) -> tuple[int, int]:
    """Make the changes; return how many rows went and came. Raises TargetError when other rows were there."""
    target = relation(restoring(table))
    wanted = one_row(
        connection, sql.SQL("SELECT (SELECT count(*) FROM {}), (SELECT count(*) FROM {})").format(_GONE, NEW)
    )
    with without_triggers(connection, (SCHEMA, RESTORING)):
        removed = connection.execute(
            sql.SQL("DELETE FROM {} e USING {} g WHERE {}").format(target, _GONE, same_key("e", "g"))
        ).rowcount
        inserted = connection.execute(
            sql.SQL("INSERT INTO {} ({}) SELECT {} FROM {}").format(target, columns(table), columns(table), NEW)
        ).rowcount
    if (removed, inserted) != wanted:
        raise TargetError(
            f"publishing removed {removed} events and inserted {inserted} instead of {wanted[0]} and {wanted[1]}",
            hint="Somebody else writes into the target. Stop that and run the same again.",
        )
    return removed, inserted


def _stage_added(connection: Connection, plan: RestorePlan, at: datetime, read: Read) -> int:
    """Note the rows at or before T that later amendments added and that are not there already."""
    for chunk in plan.added:
        if first_of(chunk) > at:
            continue
        connection.execute(sql.SQL("TRUNCATE {}").format(_COMING))
        with rows_of(chunk.name):
            _copy(connection, plan.table, (rows_until(frame, at) for frame in read(chunk)))
        connection.execute(
            sql.SQL(
                """INSERT INTO {new} ({columns}, why) SELECT {columns}, {why} FROM {coming} c
                    WHERE NOT EXISTS (SELECT FROM {there} e WHERE {same}) ON CONFLICT DO NOTHING"""
            ).format(
                new=NEW,
                columns=columns(plan.table),
                why=sql.Literal(ADDED),
                coming=_COMING,
                there=relation(restoring(plan.table)),
                same=same_key("e", "c"),
            )
        )
    return one_row(connection, sql.SQL("SELECT count(*) FROM {}").format(NEW))[0]


def _copy(connection: Connection, table: EventTable, lines: Iterable[bytes]) -> None:
    statement = sql.SQL("COPY {} ({}) FROM STDIN").format(_COMING, columns(table))
    with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement) as copy:
        for line in lines:
            copy.write(line)


def _first_withheld(connection: Connection) -> tuple[tuple[str, ...], ...]:
    rows = connection.execute(
        sql.SQL("SELECT {} FROM zbackup_withheld ORDER BY {} LIMIT {}").format(_KEYS, ORDER, sql.Literal(MOST_LISTED))
    )
    return tuple(
        Cursor(created, position, place, instance.encode(), kind.encode(), aggregate.encode(), sequence).texts()
        for created, position, place, instance, kind, aggregate, sequence in rows
    )
