"""Find the events table and describe it from the catalog: columns by name, key, indexes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import psycopg

from zbackup.database.schema_text import check_expression
from zbackup.errors import Damaged, NotSupported, SourceRefused
from zbackup.source import Column, EventTable, FileIdentity, Index
from zbackup.zitadel import events


@dataclass(frozen=True, slots=True)
class FoundTable:
    oid: int
    files: FileIdentity
    table: EventTable


def find_events_table(connection: psycopg.Connection[Any]) -> FoundTable:
    """
    Describe `eventstore.events2`.

    Raises:
        SourceRefused: there is none, or its shape is unknown; every difference is named.
        NotSupported: the database still has the table of v2.38 and before.

    """
    row = connection.execute(
        """SELECT c.oid, c.relfilenode, c.relkind, c.relrowsecurity
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relname = %s""",
        (events.SCHEMA, events.TABLE),
    ).fetchone()
    name = f"{events.SCHEMA}.{events.TABLE}"
    if row is None:
        _refuse_missing(connection, name)
        raise AssertionError
    oid, relfilenode, kind, _ = row
    if kind != "r":
        raise SourceRefused(
            f"{name} is not an ordinary table (pg_class.relkind {kind!r})",
            hint="ZITADEL makes an ordinary table; point --source at ZITADEL's own database.",
        )
    return FoundTable(oid, FileIdentity(oid, relfilenode), _describe(connection, oid, name))


def check_described(table: EventTable) -> None:
    """
    Check what an archive says of the events table before SQL is made of it.

    Raises Damaged when it is not of a shape that a backup accepts.
    """
    columns = {column.name: (column.type, column.not_null) for column in table.columns}
    key = re.fullmatch(r'PRIMARY KEY \(("?[a-z_]+"?(?:, "?[a-z_]+"?)*)\)', table.key)
    problems = events.shape_problems(columns, tuple(key[1].replace('"', "").split(", ")) if key else ())
    if (table.schema, table.name) != (events.SCHEMA, events.TABLE):
        problems.append(f"it is {table.schema}.{table.name}")
    if tuple(column.name for column in table.columns) != events.COLUMN_ORDER:
        problems.append("its columns are not in the order of the archive")
    if sorted(table.attributes) != sorted(columns):
        problems.append("its attributes are not its columns")
    if not all((table.key_name, *(index.name for index in table.indexes))):
        problems.append("its key or an index has no name")
    for index in table.indexes:
        check_expression(index.definition, f"index {index.name}")
    if problems:
        raise Damaged(
            f"the events table of the manifest has a shape that no backup writes: {'; '.join(problems)[:500]}",
            hint="Find out who else can write into the archive, and restore from another copy.",
        )


def events_files(connection: psycopg.Connection[Any]) -> FileIdentity | None:
    """
    Return which files the events table's name means in the transaction's snapshot, None when there is none.

    By name, as workers read it: a table swapped for another keeps its files under its old oid. And from the
    catalog's row, not pg_relation_filenode(), which answers from a cache of the present.
    """
    row = connection.execute(
        """SELECT c.oid, c.relfilenode FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE n.nspname = %s AND c.relname = %s""",
        (events.SCHEMA, events.TABLE),
    ).fetchone()
    return None if row is None else FileIdentity(row[0], row[1])


def _refuse_missing(connection: psycopg.Connection[Any], name: str) -> None:
    tables = {
        row[0]
        for row in connection.execute(
            """SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v')""",
            (events.SCHEMA,),
        )
    }
    if events.OLD_TABLE in tables:
        raise NotSupported(
            f"{events.SCHEMA}.{events.OLD_TABLE} is the events table of ZITADEL v2.38 and before",
            hint="Upgrade ZITADEL to v2.39 or later first; this zbackup reads eventstore.events2 only.",
        )
    if "events2_restoring" in tables:
        raise SourceRefused(
            f"{name} is missing; {events.SCHEMA}.events2_restoring is there: a restore is not finished",
            hint="Run the same `zbackup restore` again.",
        )
    raise SourceRefused(
        f"{name} is missing", hint="Point --source at ZITADEL's own database (its name is often `zitadel`)."
    )


def _describe(connection: psycopg.Connection[Any], oid: int, name: str) -> EventTable:
    columns = {
        row[0]: (row[1], row[2])
        for row in connection.execute(
            """SELECT attname, format_type(atttypid, atttypmod), attnotnull
                 FROM pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum""",
            (oid,),
        )
    }
    key = connection.execute(
        """SELECT o.conname, pg_get_constraintdef(o.oid),
                  ARRAY(SELECT a.attname::text FROM unnest(o.conkey) WITH ORDINALITY k(num, place)
                          JOIN pg_attribute a ON a.attrelid = o.conrelid AND a.attnum = k.num ORDER BY k.place)
             FROM pg_constraint o WHERE o.conrelid = %s AND o.contype = 'p'""",
        (oid,),
    ).fetchone()
    problems = events.shape_problems(columns, tuple(key[2]) if key else ())
    if problems:
        raise SourceRefused(
            f"{name} has a shape zbackup does not know: {'; '.join(problems)}",
            hint="Use a newer zbackup, or report this with your ZITADEL version.",
        )
    assert key is not None
    indexes = connection.execute(
        """SELECT c.relname, x.indisunique, pg_get_indexdef(c.oid)
             FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
            WHERE x.indrelid = %s AND NOT x.indisprimary AND x.indisvalid ORDER BY c.relname""",
        (oid,),
    ).fetchall()
    return EventTable(
        schema=events.SCHEMA,
        name=events.TABLE,
        columns=tuple(Column(column, *columns[column]) for column in events.COLUMN_ORDER),
        attributes=tuple(columns),
        key_name=key[0],
        key=key[1],
        indexes=tuple(
            Index(index, unique, definition.partition(f" ON {name} USING ")[2]) for index, unique, definition in indexes
        ),
    )


def zitadel_version(connection: psycopg.Connection[Any]) -> str | None:
    """
    Return what the last `zitadel setup` said it was, such as v4.13.1, if it said so.

    It stands in the payload of the repeatable step `projection_tables` (seen on v2.71.19, v4.13.1, main).
    """
    row = connection.execute(
        """SELECT payload->'lastRun'->>'version' FROM eventstore.events2
            WHERE instance_id = '' AND aggregate_type = 'system' AND aggregate_id = 'SYSTEM'
              AND event_type = 'system.migration.repeatable.done' AND payload->>'name' = 'projection_tables'
            ORDER BY "sequence" DESC LIMIT 1"""
    ).fetchone()
    return None if row is None else row[0]
