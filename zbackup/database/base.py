"""
Compare the events that a capture's backup holds with those that will be published.

The tables of a capture are a base for T only if everything its backup held is there, unchanged; then they lack
just the events since: those that will be published and that the backup held neither sealed nor in its tail.
Chunks that both hold need no look; the rows of the others are staged in a temporary table and compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from psycopg import sql

from zbackup.archive.manifest import ChunkRef
from zbackup.archive.plan import PlannedCapture, PlannedChunk, RestorePlan, read_range
from zbackup.archive.rows import split_rows
from zbackup.archive.withhold import EXEMPT
from zbackup.database.edits import EVENTS, NEW, make_stage, same_key
from zbackup.database.export import copy_blocks, copy_out, relation
from zbackup.database.load import Counts, Read
from zbackup.database.target import Connection, columns, one_row, restoring
from zbackup.event import Cursor

_SYSTEM = b"\t" + b"\t".join(EXEMPT) + b"\t"
"""What a row of the aggregate system/SYSTEM has between its other columns."""

_EXEMPT = sql.SQL("(instance_id, aggregate_type, aggregate_id) = ({})").format(
    sql.SQL(", ").join(sql.Literal(part.decode()) for part in EXEMPT)
)


@dataclass(frozen=True, slots=True)
class Base:
    """What a capture is to the events that will be published."""

    problem: str
    """why it is no base for them; empty when it is one"""
    since: int
    """events that it does not know"""
    first_since: datetime | None
    late: dict[str, Decimal]
    """the least position of the events since, by instance"""


def find_base(connection: Connection, plan: RestorePlan, capture: PlannedCapture, read: Read, counts: Counts) -> Base:
    """Stage what tells the two apart, and judge; the tables that are left serve `captured_system`."""
    table = restoring(plan.table)
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE zbackup_base AS SELECT {} FROM {} WITH NO DATA").format(
            columns(table), relation(table)
        )
    )
    _make_since(connection)
    _stage(connection, plan, capture, read, counts)
    if not capture.older:
        return Base("it was made after the instant", 0, None, {})
    _find_since(connection, plan, capture.since)
    problem = _missing(connection, plan)
    if capture.lost:
        problem = f"{capture.lost} events that were in its tables cannot be read any more"
    since, first = one_row(connection, "SELECT count(*), min(created_at) FROM zbackup_since")
    late = connection.execute('SELECT instance_id, min("position") FROM zbackup_since GROUP BY instance_id').fetchall()
    return Base(problem, since, first, dict(late))


def share(connection: Connection, other: Connection, plan: RestorePlan) -> None:
    """Show another session the events as they will be published by what is noted now, and which of them are since."""
    make_stage(other, restoring(plan.table))
    _make_since(other)
    for name in ("zbackup_gone", "zbackup_new", "zbackup_since"):
        there = sql.Identifier("pg_temp", name)
        with other.transaction(), other.cursor() as cursor:
            with cursor.copy(sql.SQL("COPY {} FROM STDIN").format(there)) as copy:
                for block in copy_blocks(connection, sql.SQL("COPY {} TO STDOUT").format(there)):
                    copy.write(block)
            cursor.execute(sql.SQL("ANALYZE {}").format(there))


def system_lines(connection: Connection, plan: RestorePlan) -> list[bytes]:
    """Return the events of system/SYSTEM that will be published, as lines of COPY text, by sequence."""
    query = sql.SQL('SELECT {} FROM {} WHERE {} ORDER BY "sequence"').format(columns(plan.table), EVENTS, _EXEMPT)
    return list(copy_out(connection, sql.SQL("COPY ({}) TO STDOUT").format(query)))


def captured_system(connection: Connection, plan: RestorePlan) -> list[bytes]:
    """Return the events of system/SYSTEM that the capture's backup held, likewise."""
    query = sql.SQL(
        """SELECT {c} FROM (SELECT {c} FROM zbackup_base b WHERE {x}
             UNION ALL SELECT {c} FROM {e} e WHERE {x}
              AND NOT EXISTS (SELECT FROM zbackup_base b WHERE {be})
              AND NOT EXISTS (SELECT FROM zbackup_since s WHERE {se})) s ORDER BY "sequence" """
    ).format(c=columns(plan.table), x=_EXEMPT, e=EVENTS, be=same_key("b", "e"), se=same_key("s", "e"))
    return list(copy_out(connection, sql.SQL("COPY ({}) TO STDOUT").format(query)))


def _make_since(connection: Connection) -> None:
    connection.execute(
        """CREATE TEMPORARY TABLE zbackup_since (instance_id text, aggregate_type text, aggregate_id text,
               "sequence" bigint, created_at timestamptz, "position" numeric)"""
    )


def _stage(connection: Connection, plan: RestorePlan, capture: PlannedCapture, read: Read, counts: Counts) -> None:
    statement = sql.SQL("COPY zbackup_base ({}) FROM STDIN").format(columns(plan.table))
    for chunk in capture.own:
        if not capture.older and not has_system(chunk, counts):
            continue
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(statement) as copy:
            for frame in read(chunk):
                copy.write(frame if capture.older else b"".join(row for row in split_rows(frame) if _SYSTEM in row))
    connection.execute("ANALYZE zbackup_base")


def has_system(chunk: ChunkRef, counts: Counts) -> bool:
    """Tell whether a chunk may hold events of system/SYSTEM."""
    instances, types = counts(chunk)
    return EXEMPT[0].decode() in instances and EXEMPT[1].decode() in types


def _find_since(connection: Connection, plan: RestorePlan, since: Iterable[PlannedChunk]) -> None:
    table = restoring(plan.table)
    connection.execute("CREATE TEMPORARY TABLE zbackup_ranges (lo timestamptz, hi timestamptz)")
    with connection.cursor() as cursor, cursor.copy("COPY zbackup_ranges FROM STDIN") as copy:
        for lo, hi in _merged(read_range(chunk, plan.at) for chunk in since):
            copy.write(f"{lo.isoformat()}\t{hi.isoformat()}\n")
    statement = sql.SQL(
        """INSERT INTO zbackup_since SELECT {key}, e.created_at, e."position" FROM {there} e
            WHERE NOT EXISTS (SELECT FROM zbackup_base b WHERE {same}) {more}"""
    )
    within = sql.SQL("AND EXISTS (SELECT FROM zbackup_ranges r WHERE e.created_at >= r.lo AND e.created_at < r.hi)")
    qualified = sql.SQL('e.instance_id, e.aggregate_type, e.aggregate_id, e."sequence"')
    for there, more in ((relation(table), within), (NEW, sql.SQL(""))):
        connection.execute(statement.format(key=qualified, there=there, same=same_key("b", "e"), more=more))
    connection.execute("ANALYZE zbackup_since")


def _missing(connection: Connection, plan: RestorePlan) -> str:
    """Say what the capture's backup held that will not be published, or not as it was."""
    gone = one_row(
        connection,
        sql.SQL(
            """SELECT count(*) FROM zbackup_gone g WHERE NOT {} AND NOT EXISTS (SELECT FROM zbackup_since s WHERE {})"""
        ).format(_EXEMPT, same_key("s", "g")),
    )[0]
    connection.execute(sql.SQL("DELETE FROM zbackup_since s USING zbackup_gone g WHERE {}").format(same_key("s", "g")))
    if gone:
        return f"{gone} events that are withheld were in its tables"
    names = [column.name for column in plan.table.columns]
    both = (sql.SQL(", ").join(sql.Identifier(alias, name) for name in names) for alias in ("b", "e"))
    first = connection.execute(
        sql.SQL(
            """SELECT b.created_at, b."position", b.in_tx_order, {key}, count(*) OVER ()
                 FROM zbackup_base b LEFT JOIN {events} e ON {same}
                WHERE NOT {exempt} AND ({}) IS DISTINCT FROM ({}) LIMIT 1"""
        ).format(
            *both,
            key=sql.SQL('b.instance_id, b.aggregate_type, b.aggregate_id, b."sequence"'),
            events=EVENTS,
            same=same_key("b", "e"),
            exempt=_qualified_exempt(),
        )
    ).fetchone()
    if first is None:
        return ""
    created, position, place, instance, kind, aggregate, sequence, rows = first
    cursor = Cursor(created, position, place, instance.encode(), kind.encode(), aggregate.encode(), sequence)
    return (
        f"{rows} events were others when it was made, the first {', '.join(cursor.texts()[3:])} of {cursor.texts()[0]}"
    )


def _qualified_exempt() -> sql.Composed:
    return sql.SQL("(b.instance_id, b.aggregate_type, b.aggregate_id) = ({})").format(
        sql.SQL(", ").join(sql.Literal(part.decode()) for part in EXEMPT)
    )


def _merged(ranges: Iterable[tuple[datetime, datetime]]) -> Iterator[tuple[datetime, datetime]]:
    """Join ranges that follow one another."""
    last: tuple[datetime, datetime] | None = None
    for lo, hi in ranges:
        if last is not None and last[1] == lo:
            last = last[0], hi
            continue
        if last is not None:
            yield last
        last = lo, hi
    if last is not None:
        yield last
