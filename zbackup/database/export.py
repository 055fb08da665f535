"""Read rows of the events table: where to cut, and the rows of one range in the archive's order."""

from __future__ import annotations

import hashlib
import math
import select
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import psycopg
from psycopg import pq, sql

from zbackup.archive.facts import count_rows
from zbackup.archive.rows import HUGE_BYTES, rows_in
from zbackup.errors import SourceError
from zbackup.event import BEGINNING, END, Cursor
from zbackup.source import Counters, EventTable

ORDER = sql.SQL(
    'created_at, "position", in_tx_order, instance_id COLLATE "C", aggregate_type COLLATE "C",'
    ' aggregate_id COLLATE "C", "sequence"'
)
"""The order of `event.Cursor`."""

# A slice is a narrow range in the order of an index: read along it, rows stream without sorting or spilling.
# Left alone the planner may scan the whole table in parallel and sort, for every slice (2 000 000 events, 15).
ALONG_INDEX = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}

BLOCK_BYTES = 256 << 10
"""Rows are handed on in blocks of this size: a step for each row costs a fifth of what reading does (0005)."""

MOST_SLICES = 10_000
"""More would only make work for the planner of slices: 10 000 of 64 MiB are 600 GiB."""


def read_along_index(connection: psycopg.Connection[Any]) -> None:
    """Have the session read ranges along the index from now on."""
    connection.execute(
        "SELECT set_config(name, value, false) FROM unnest(%s::text[], %s::text[]) AS s (name, value)",
        (list(ALONG_INDEX), list(ALONG_INDEX.values())),
    )


def select_rows(
    table: EventTable, lo: datetime, hi: datetime, *, after: Cursor | None = None, most: int | None = None
) -> sql.Composed:
    """Write the query for the rows with lo <= created_at < hi, or the first of them `after` one, as archived."""
    return sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {}{}").format(
        sql.SQL(", ").join(sql.Identifier(column.name) for column in table.columns),
        relation(table),
        _within(lo, hi) if after is None else _beyond(after, hi),
        ORDER,
        sql.SQL("" if most is None else " LIMIT {}").format(sql.Literal(most)),
    )


def relation(table: EventTable) -> sql.Composable:
    return sql.Identifier(table.schema, table.name)


def read_rows(
    connection: psycopg.Connection[Any],
    table: EventTable,
    lo: datetime,
    hi: datetime,
    *,
    after: Cursor | None = None,
    most: int | None = None,
) -> Iterator[bytes]:
    """
    Yield the rows of a range, or the first of them `after` one, as blocks of lines of COPY text (see `copy_blocks`).

    After the last one the server's own count is compared with what arrived.

    Raises SourceError when they differ; psycopg's errors as they are.
    """
    query = select_rows(table, lo, hi, after=after, most=most)
    yield from copy_blocks(connection, sql.SQL("COPY ({}) TO STDOUT").format(query))


def copy_out(connection: psycopg.Connection[Any], statement: sql.Composed) -> Iterator[bytes]:
    """Yield each row of a COPY TO STDOUT in text form."""
    yield from rows_in(copy_blocks(connection, statement))


def copy_blocks(connection: psycopg.Connection[Any], statement: sql.Composed) -> Iterator[bytes]:
    """
    Yield the rows of a COPY TO STDOUT in text form, some at a time; a huge one comes alone.

    Goes to libpq directly: a call per row is what an export costs, and psycopg's own iteration takes three
    times as long (measured on 15). But it never waits inside libpq, where nothing else of the program would go on,
    no signal be answered: psycopg's call keeps the interpreter to itself.
    """
    conn = connection.pgconn
    incoming = select.poll()
    incoming.register(conn.socket, select.POLLIN)
    conn.send_query(statement.as_bytes(connection))
    started = _result(conn, incoming)
    if started is None or started.status != pq.ExecStatus.COPY_OUT:
        while _result(conn, incoming) is not None:
            pass
        raise _error(connection, started)
    rows = 0
    complete = False
    try:
        for block in _received(conn, incoming):
            rows += len(block)
            yield b"".join(block) if len(block) > 1 else block.pop()
        result = _result(conn, incoming)
        while _result(conn, incoming) is not None:
            pass
        complete = True
    finally:
        if not complete:
            # The reader gave up in the middle, or nothing comes any more: the protocol state is spoilt.
            conn.finish()
    if result is None or result.status != pq.ExecStatus.COMMAND_OK:
        raise _error(connection, result)
    if result.command_tuples != rows:
        raise SourceError(f"{rows} rows arrived, the server sent {result.command_tuples}", hint="Run the backup again.")


def _received(conn: pq.abc.PGconn, incoming: select.poll) -> Iterator[list[bytes]]:
    """Yield the rows that come, until there are no more; huge ones alone, to be let go before the next one comes."""
    rows: list[bytes] = []
    size = 0
    while (received := conn.get_copy_data(1))[0] >= 0:
        length, data = received
        if not length:
            incoming.poll()
            conn.consume_input()
            continue
        if length >= HUGE_BYTES and rows:
            yield rows
            rows, size = [], 0
        rows.append(bytes(data))
        size += length
        if size >= BLOCK_BYTES:
            del received, data
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def _result(conn: pq.abc.PGconn, incoming: select.poll) -> pq.abc.PGresult | None:
    while conn.is_busy():
        incoming.poll()
        conn.consume_input()
    return conn.get_result()


def _error(connection: psycopg.Connection[Any], result: pq.abc.PGresult | None) -> psycopg.Error:
    if result is None:
        return psycopg.OperationalError(connection.pgconn.get_error_message())
    state = (result.error_field(pq.DiagnosticField.SQLSTATE) or b"").decode()
    message = (result.error_field(pq.DiagnosticField.MESSAGE_PRIMARY) or b"").decode() or (
        connection.pgconn.get_error_message()
    )
    try:
        kind = psycopg.errors.lookup(state)
    except KeyError:
        kind = psycopg.OperationalError
    return kind(message)


def digest_of(blocks: Iterable[bytes]) -> tuple[str, int]:
    """Hash rows as they would be archived; return the digest and their number."""
    digest, number = hashlib.sha256(), 0
    for block in blocks:
        digest.update(block)
        number += count_rows(block)
        del block
    return digest.hexdigest(), number


def count(connection: psycopg.Connection[Any], table: EventTable, lo: datetime, hi: datetime) -> int:
    """Count the rows of a range exactly."""
    query = sql.SQL("SELECT count(*) FROM {} WHERE {}").format(relation(table), _within(lo, hi))
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def holds(connection: psycopg.Connection[Any], table: EventTable, key: dict[str, object]) -> bool:
    """Tell whether the row with these values is there."""
    condition = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in key.items()
    )
    query = sql.SQL("SELECT 1 FROM {} WHERE {}").format(relation(table), condition)
    return connection.execute(query).fetchone() is not None


def cut(
    connection: psycopg.Connection[Any], table: EventTable, lo: datetime, hi: datetime, slice_bytes: int, jobs: int
) -> tuple[list[tuple[datetime, datetime]], int]:
    """
    Cut a range into slices of about `slice_bytes` by what the planner knows; return them and its guess of rows.

    Where there are several, each of the `jobs` gets as many. A wrong guess costs balance, not rows: a slice that
    turns out large becomes several chunks.
    """
    explain = sql.SQL("EXPLAIN (FORMAT JSON) {}").format(select_rows(table, lo, hi))
    row = connection.execute(explain).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    wanted = min(math.ceil(plan["Plan Rows"] * plan["Plan Width"] / slice_bytes), MOST_SLICES)
    if wanted <= 1:
        return [(lo, hi)], plan["Plan Rows"]
    wanted = math.ceil(wanted / jobs) * jobs
    marks = _histogram(connection, table, lo, hi) or _extremes(connection, table, lo, hi)
    edges = sorted({_at(marks, number / wanted) for number in range(1, wanted)} if marks else set[datetime]())
    edges = [lo, *(edge for edge in edges if lo < edge < hi), hi]
    return list(pairwise(edges)), plan["Plan Rows"]


def counters(connection: psycopg.Connection[Any], oid: int) -> Counters | None:
    """
    Read how many rows of the table were ever inserted, updated, deleted; rolled-back ones count too.

    To be read before the snapshot: what is counted by then is seen in it, what is not will be next time.
    None when the server does not know the table yet, or does not count (track_counts is off).
    """
    row = connection.execute(
        """SELECT s.n_tup_ins, s.n_tup_upd, s.n_tup_del, d.stats_reset, b.stats_reset
             FROM pg_stat_all_tables s, pg_stat_database d, pg_stat_bgwriter b
            WHERE s.relid = %s AND d.datname = current_database() AND current_setting('track_counts')::boolean""",
        (oid,),
    ).fetchone()
    return None if row is None else Counters(*row)


def counts(connection: psycopg.Connection[Any]) -> bool:
    """Tell whether the server counts what is written to tables."""
    row = connection.execute("SELECT current_setting('track_counts')::boolean").fetchone()
    return row is not None and row[0]


def _within(lo: datetime, hi: datetime) -> sql.Composed:
    conditions: list[sql.Composable] = []
    if lo > BEGINNING:
        conditions.append(sql.SQL("created_at >= {}").format(_literal(lo)))
    if hi < END:
        conditions.append(sql.SQL("created_at < {}").format(_literal(hi)))
    return sql.SQL(" AND ").join(conditions or [sql.SQL("true")])


def _beyond(cursor: Cursor, hi: datetime) -> sql.Composed:
    """Write the condition for what follows a row; its instant stands alone, too, because an index serves that."""
    place = sql.SQL(", ").join(
        (
            _literal(cursor.created_at),
            sql.SQL("{}::numeric").format(sql.Literal(format(cursor.position, "f"))),
            sql.Literal(cursor.in_tx_order),
            *(sql.Literal(text.decode()) for text in (cursor.instance_id, cursor.aggregate_type, cursor.aggregate_id)),
            sql.Literal(cursor.sequence),
        )
    )
    return sql.SQL("{} AND ({}) > ({})").format(_within(cursor.created_at, hi), ORDER, place)


def _literal(instant: datetime) -> sql.Composed:
    return sql.SQL("{}::timestamptz").format(sql.Literal(instant.isoformat()))


def _histogram(connection: psycopg.Connection[Any], table: EventTable, lo: datetime, hi: datetime) -> list[datetime]:
    row = connection.execute(
        """SELECT histogram_bounds::text::timestamptz[] FROM pg_stats
            WHERE schemaname = %s AND tablename = %s AND attname = 'created_at'""",
        (table.schema, table.name),
    ).fetchone()
    bounds: list[datetime] = (row and row[0]) or []
    inside = [bound for bound in bounds if lo < bound < hi]
    if len(inside) < 2:
        return []
    return [
        max(lo, bounds[0]) if lo > BEGINNING else bounds[0],
        *inside,
        *_extremes(connection, table, inside[-1], hi)[1:],
    ]


def _extremes(connection: psycopg.Connection[Any], table: EventTable, lo: datetime, hi: datetime) -> list[datetime]:
    query = sql.SQL("SELECT min(created_at), max(created_at) FROM {} WHERE {}").format(relation(table), _within(lo, hi))
    row = connection.execute(query).fetchone()
    return [] if row is None or row[0] is None else list(row)


def _at(marks: list[datetime], part: float) -> datetime:
    """Interpolate between marks that hold equal shares of the rows."""
    place = part * (len(marks) - 1)
    below = min(int(place), len(marks) - 2)
    span = marks[below + 1] - marks[below]
    return marks[below] + timedelta(microseconds=int(span / timedelta(microseconds=1) * (place - below)))
