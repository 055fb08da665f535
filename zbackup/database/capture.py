"""
Read the other tables of ZITADEL in the snapshot of a backup.

Each table is read in a short transaction of its own, as COPY text without generated columns, which a restore
computes again. Rows come in the order of the heap: two runs over an unchanged table give the same bytes, and
nothing is sorted. What another session rewrites or truncates meanwhile reads as empty without an error, so the
tables read are compared afterwards with what the catalog shows by then (`rewritten`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import psycopg
from psycopg import sql

from zbackup.database.connection import Connection
from zbackup.database.export import copy_out
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
    Yield a table's rows as lines of COPY text.

    Raises CannotRead, Locked when another session keeps the table longer than `lock_timeout` (the worker's).
    """
    try:
        with worker.transaction() as connection:
            # Without these the order of rows would depend on who else reads the table.
            connection.execute("SET LOCAL synchronize_seqscans = off")
            if lock_timeout is not None:
                milliseconds = int(lock_timeout.total_seconds() * 1000)
                connection.execute("SELECT set_config('lock_timeout', %s, true)", (str(milliseconds),))
            yield from copy_out(connection, _copy(table))
    except psycopg.errors.LockNotAvailable as error:
        raise Locked(f"locked by another session: {_said(error)}") from error
    except _IN_THE_TABLE as error:
        raise CannotRead(_said(error)) from error


def rewritten(connection: Connection, tables: Iterable[Listed]) -> frozenset[str]:
    """
    Name those that were dropped, replaced, rewritten or truncated since the snapshot.

    To be asked outside the snapshot, after the last row was read. A table named here may have been read as
    empty; one that is not was read as it was.
    """
    listed = tuple(tables)
    now = {str(table): table.files for table in list_tables(connection, {table.schema for table in listed})}
    return frozenset(str(table) for table in listed if now.get(str(table)) != table.files)


def _copy(table: Listed) -> sql.Composed:
    """Write the COPY of a table's own rows: COPY of a table, unlike a query, leaves out what inherits from it."""
    columns = sql.SQL(" ({})").format(sql.SQL(", ").join(map(sql.Identifier, table.columns)))
    return sql.SQL("COPY {}{} TO STDOUT").format(
        sql.Identifier(table.schema, table.name), columns if table.columns else sql.SQL("")
    )


def _said(error: psycopg.Error) -> str:
    """Say it without the table's name, so that equal reasons are equal."""
    said = error.diag.message_primary or (str(error).splitlines() or ["no reason given"])[0]
    return re.sub(r" for (table|schema|relation) .*", "", said)
