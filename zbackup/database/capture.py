"""
Read the other tables of ZITADEL in the snapshot of a backup.

Each table is read in a short transaction of its own, or in several where the pace wants them shorter, as COPY text
without generated columns, which a restore computes again. Rows come in the order of the heap: two runs over an
unchanged table give the same bytes, and nothing is sorted. What another session rewrites or truncates meanwhile reads
as empty without an error, so the tables read are compared afterwards with what the catalog shows by then
(`rewritten`).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from psycopg import sql

from zbackup.database.connection import Connection
from zbackup.database.export import copy_blocks
from zbackup.database.snapshot import Holder, Worker
from zbackup.source import FileIdentity


@dataclass(frozen=True, slots=True)
class Listed:
    """A table as the snapshot's catalog shows it."""

    schema: str
    name: str
    columns: tuple[str, ...]
    """without generated ones"""
    files: FileIdentity
    heap_bytes: int
    """about, as of the last VACUUM or ANALYZE"""
    relkind: str
    """r, or what is not read: m (materialized view), f (foreign table), u (unlogged, on a standby)"""

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"


# Of a table that is read in portions, the first, and the most of one: a table may be nearly empty.
FIRST_BLOCKS = 8
MOST_BLOCKS = 4096


class CannotRead(Exception):
    """One table cannot be read; the others can. Its text says why."""


class Locked(CannotRead):
    """Another session holds a strong lock on it; it may let go."""


# Reasons that lie in one table. Whatever else the server says stops the backup.
_IN_THE_TABLE = (
    psycopg.errors.InsufficientPrivilege,
    psycopg.errors.UndefinedTable,  # dropped or renamed since the snapshot
    psycopg.errors.UndefinedColumn,
    psycopg.errors.InvalidSchemaName,
    psycopg.errors.WrongObjectType,
    psycopg.errors.DataCorrupted,
    psycopg.errors.IndexCorrupted,
)

_LIST = """
    SELECT n.nspname, c.relname, c.oid, c.relfilenode,
           CASE WHEN c.relpersistence = 'u' AND pg_is_in_recovery() THEN 'u' ELSE c.relkind::text END,
           c.relpages::bigint * current_setting('block_size')::bigint,
           ARRAY(SELECT a.attname::text FROM pg_attribute a
                  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
                  ORDER BY a.attnum)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'm', 'f') AND c.relpersistence <> 't'
     ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"
"""


def list_tables(connection: Connection, schemas: Iterable[str]) -> tuple[Listed, ...]:
    """Return the tables that may hold rows (partitions, not the tables over them), by name."""
    return tuple(
        Listed(schema, name, tuple(columns), FileIdentity(oid, filenode), heap_bytes, kind)
        for schema, name, oid, filenode, kind, heap_bytes, columns in connection.execute(_LIST, (list(schemas),))
    )


def read_table(worker: Worker | Holder, table: Listed, *, lock_timeout: timedelta | None = None) -> Iterator[bytes]:
    """
    Yield a table's rows as blocks of lines of COPY text.

    Raises CannotRead, Locked when another session keeps the table longer than `lock_timeout` (the worker's).
    """
    try:
        if worker.pace.portion_bytes is None:
            with _reading(worker, lock_timeout) as connection:
                yield from copy_blocks(connection, _copy(table))
        else:
            yield from _read_portions(worker, table, lock_timeout)
    except psycopg.errors.LockNotAvailable as error:
        raise Locked(f"locked by another session: {_said(error)}") from error
    except _IN_THE_TABLE as error:
        raise CannotRead(_said(error)) from error


@contextmanager
def _reading(worker: Worker | Holder, lock_timeout: timedelta | None) -> Generator[Connection]:
    with worker.transaction() as connection:
        # Without this the order of rows would depend on who else reads the table.
        connection.execute("SET LOCAL synchronize_seqscans = off")
        if lock_timeout is not None:
            milliseconds = int(lock_timeout.total_seconds() * 1000)
            connection.execute("SELECT set_config('lock_timeout', %s, true)", (str(milliseconds),))
        yield connection


def _read_portions(worker: Worker | Holder, table: Listed, lock_timeout: timedelta | None) -> Iterator[bytes]:
    """Yield the same rows in the same order, some blocks of the heap at a time, the last ones without an end."""
    first, blocks = 0, FIRST_BLOCKS
    while True:
        read_bytes = 0
        with _reading(worker, lock_timeout) as connection:
            # Before 14 a range of blocks is looked for in all of them.
            whole = connection.info.server_version < 140000
            last = whole or first + blocks >= _blocks(connection, table)
            part = None if whole else (first, None if last else first + blocks)
            for block in copy_blocks(connection, _copy(table, part)):
                read_bytes += len(block)
                yield block
                del block
            worker.pace.count(read_bytes)
        if last:
            return
        first += blocks
        blocks = min(worker.pace.next_portion(blocks, read_bytes), MOST_BLOCKS)


def _blocks(connection: Connection, table: Listed) -> int:
    """Return how many blocks the heap has by now, which are all that the snapshot sees; 0 when it is gone."""
    row = connection.execute(
        "SELECT coalesce(pg_relation_size(%s), 0) / current_setting('block_size')::bigint", (table.files.oid,)
    ).fetchone()
    assert row is not None
    return row[0]


def rewritten(connection: Connection, tables: Iterable[Listed]) -> frozenset[str]:
    """
    Name those that were dropped, replaced, rewritten or truncated since the snapshot.

    To be asked outside the snapshot, after the last row was read. A table named here may have been read as
    empty; one that is not was read as it was.
    """
    listed = tuple(tables)
    now = {str(table): table.files for table in list_tables(connection, {table.schema for table in listed})}
    return frozenset(str(table) for table in listed if now.get(str(table)) != table.files)


def _copy(table: Listed, part: tuple[int, int | None] | None = None) -> sql.Composed:
    """Write the COPY of a table's own rows, or of those in a part of its blocks; what inherits from it is left out."""
    name, columns = sql.Identifier(table.schema, table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns))
    if part is None:
        return sql.SQL("COPY {}{} TO STDOUT").format(
            name, sql.SQL(" ({})").format(columns) if table.columns else sql.SQL("")
        )
    first, end = part
    conditions = [sql.SQL("ctid >= {}::tid").format(sql.Literal(f"({first},0)"))]
    if end is not None:
        conditions.append(sql.SQL("ctid < {}::tid").format(sql.Literal(f"({end},0)")))
    return sql.SQL("COPY (SELECT {} FROM ONLY {} WHERE {}) TO STDOUT").format(
        columns, name, sql.SQL(" AND ").join(conditions)
    )


def _said(error: psycopg.Error) -> str:
    """Say it without the table's name, so that equal reasons are equal."""
    said = error.diag.message_primary or (str(error).splitlines() or ["no reason given"])[0]
    return re.sub(r" for (table|schema|relation) .*", "", said)
