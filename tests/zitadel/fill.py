"""
Give a database that a binary prepared the rows of a fixture, in place of its own.

The fixtures hold no functions, views, triggers and types; `zitadel init` and `zitadel setup --for-mirror` of the same
version make them. What these two write beside (records of setup, permissions of the system, encryption keys) would
clash with the fixture's, which tell of the same schema, since the version is the same: so every table is emptied first.
"""

from __future__ import annotations

from typing import Any

import psycopg
import zstandard
from psycopg.sql import SQL, Identifier

from tests import fixture_data
from tests.fixture_data import EVENTS


def replace_rows(connection: psycopg.Connection[Any], version: str) -> None:
    """Empty every table and load a full fixture as it was at its end, all in one transaction."""
    with connection.transaction():
        # Triggers count rows that the fixture has counted, and foreign keys want an order of tables.
        connection.execute("SET LOCAL session_replication_role = replica")
        tables = connection.execute(
            """SELECT schemaname, tablename FROM pg_tables
               WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"""
        ).fetchall()
        named = SQL(", ").join(Identifier(*table) for table in tables)
        connection.execute(SQL("TRUNCATE {}").format(named))
        _copy(
            connection,
            EVENTS,
            fixture_data.columns(version, full=True),
            b"".join(fixture_data.rows(version, full=True)),
        )
        for name, shape in fixture_data.shapes(version, full=True).items():
            source = fixture_data.place_of(version, full=True) / "tables" / f"{name}.copy.zst"
            if name != EVENTS and source.exists():
                columns = tuple(column["name"] for column in shape["columns"] if not column["generated"])
                unpacked = zstandard.ZstdDecompressor().decompressobj(read_across_frames=True)
                _copy(connection, name, columns, unpacked.decompress(source.read_bytes()))


def _copy(connection: psycopg.Connection[Any], table: str, columns: tuple[str, ...], rows: bytes) -> None:
    listed = SQL(", ").join(map(Identifier, columns))
    statement = SQL("COPY {} ({}) FROM STDIN").format(Identifier(*table.split(".")), listed)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(rows)
