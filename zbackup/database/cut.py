"""
Find in the target which events to withhold (archive/withhold.py says why), with little memory here.

The keys after T are reduced, a few frames at a time, to the least sequence of each aggregate and sent to a
temporary table; the closure over pushes and aggregates is made in SQL, round by round.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from psycopg import sql

from zbackup.archive.manifest import ChunkRef
from zbackup.archive.plan import RestorePlan
from zbackup.archive.sound import rows_of
from zbackup.archive.withhold import EXEMPT, LeastAfter
from zbackup.database.load import Read
from zbackup.database.target import Connection
from zbackup.event import END, KEY_COLUMNS
from zbackup.progress import Advance, Report

# About 64 MiB of rows, so that memory stays bounded and few COPY commands are needed.
AGGREGATES_AT_ONCE = 200_000

_AFTER = sql.Identifier("zbackup_after")
_WITHHELD = sql.Identifier("zbackup_withheld")

_KEYS = sql.SQL(", ").join(map(sql.Identifier, KEY_COLUMNS))
_AGGREGATE = sql.SQL("instance_id, aggregate_type, aggregate_id")


def stage_after(connection: Connection, plan: RestorePlan, at: datetime, read: Read, report: Report) -> None:
    """
    Put the least sequence after T of each aggregate into a temporary table of the session.

    Where there are many aggregates it may have some of them again, with a larger one, which changes nothing.
    """
    connection.execute(
        sql.SQL(
            "CREATE TEMPORARY TABLE {} (instance_id text, aggregate_type text, aggregate_id text, least bigint)"
        ).format(_AFTER)
    )
    read_too = (*plan.after, *plan.added)
    total = sum(ref.rows for ref in read_too), sum(ref.raw_bytes for ref in read_too)
    least = LeastAfter(at, END, [column.name for column in plan.table.columns])
    _stage(connection, plan.after, read, least, report, total)
    # Rows that amendments added later count as far as the answering backup could have seen them.
    least.until = plan.snapshot
    _stage(connection, plan.added, read, least, report, total)


def _stage(
    connection: Connection,
    chunks: Iterable[ChunkRef],
    read: Read,
    least: LeastAfter,
    report: Report,
    total: tuple[int, int],
) -> None:
    for chunk in chunks:
        for frame in read(chunk):
            with rows_of(chunk.name):
                started = least.add(frame)
            if started:
                connection.execute(sql.SQL("TRUNCATE {}").format(_AFTER))
            if len(least.least) >= AGGREGATES_AT_ONCE:
                _send(connection, least)
            report(Advance(0, len(frame), *total))
        report(Advance(chunk.rows, 0, *total))
    _send(connection, least)


def _send(connection: Connection, least: LeastAfter) -> None:
    with connection.cursor() as cursor, cursor.copy(sql.SQL("COPY {} FROM STDIN").format(_AFTER)) as copy:
        copy.write(b"".join(b"%s\t%d\n" % item for item in least.take().items()))


def find_withheld(connection: Connection, events: sql.Composable) -> int:
    """
    Put the events to withhold into the temporary table zbackup_withheld; return their number.

    `events` must hold exactly the events at or before T.
    """
    connection.execute(
        sql.SQL("CREATE TEMPORARY TABLE {} AS SELECT {}, 0 AS round FROM {} WITH NO DATA").format(
            _WITHHELD, _KEYS, events
        )
    )
    connection.execute(
        sql.SQL('ALTER TABLE {} ADD PRIMARY KEY (instance_id, aggregate_type, aggregate_id, "sequence")').format(
            _WITHHELD
        )
    )
    with connection.transaction():
        # All events are read once, past a table of the aggregates; merging would sort these, and read along the key.
        connection.execute("SELECT set_config('work_mem', '64MB', true), set_config('enable_mergejoin', 'off', true)")
        found = _insert(connection, events, 0, _AFTER, _AGGREGATE)
    number, new = 0, found
    while new:
        connection.execute(sql.SQL("ANALYZE {}").format(_WITHHELD))
        last = sql.SQL("{} WHERE round = {}").format(_WITHHELD, sql.Literal(number))
        number += 1
        pushes = sql.SQL("(SELECT DISTINCT instance_id, created_at, NULL::bigint AS least FROM {})").format(last)
        later = sql.SQL('(SELECT {0}, min("sequence") AS least FROM {1} GROUP BY {0})').format(_AGGREGATE, last)
        new = _insert(connection, events, number, pushes, sql.SQL("instance_id, created_at"))
        new += _insert(connection, events, number, later, _AGGREGATE)
        found += new
    return found


def _insert(
    connection: Connection, events: sql.Composable, number: int, cause: sql.Composable, using: sql.Composable
) -> int:
    """Note the events that share `using` with a cause, those of an aggregate only beyond its least sequence."""
    statement = sql.SQL(
        """INSERT INTO {withheld} ({keys}, round) SELECT {keys}, {number} FROM {events} e JOIN {cause} c USING ({using})
            WHERE (c.least IS NULL OR e."sequence" > c.least) AND ({aggregate}) <> ({exempt}) ON CONFLICT DO NOTHING"""
    ).format(
        withheld=_WITHHELD,
        keys=_KEYS,
        number=sql.Literal(number),
        events=events,
        cause=cause,
        using=using,
        aggregate=_AGGREGATE,
        exempt=sql.SQL(", ").join(sql.Literal(part.decode()) for part in EXEMPT),
    )
    return connection.execute(statement).rowcount
