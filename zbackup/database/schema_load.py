"""
Make a schema from the text that pg_dump wrote, in two parts: before and after the data.

The text is taken apart into its entries, so that an error names the object, and so that what concerns the events
table can be left to those who load it: the table has another name until it is published, and its key and indexes
are built apart. For the entries that name the table it gets its final name for the length of one transaction.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from psycopg import sql

from zbackup.database.schema_text import Entry, entries
from zbackup.database.target import EVENTS, RESTORING, SCHEMA, Connection, claim, items, named, note, noted
from zbackup.errors import TargetRefused
from zbackup.progress import Report, Warned
from zbackup.source import EventTable

# As pg_dump's own head has them.
_SETTINGS = {
    "check_function_bodies": "off",
    "search_path": "",
    "xmloption": "content",
    "client_min_messages": "warning",
    "standard_conforming_strings": "on",
}

INDEXES = "keys and indexes"
POST_DATA = "schema after the data"
"""the ledger's entries"""


# An extension or a function that an index needs is missing here.
_LACKING = (
    psycopg.errors.UndefinedObject,
    psycopg.errors.UndefinedFunction,
    psycopg.errors.FeatureNotSupported,
)

# A lost connection, a rollback, a lack of room, a lock, an end: PostgreSQL manual, appendix A.
_NOT_OF_THE_ENTRY = {"08", "40", "53", "55P03", "57"}


@dataclass(frozen=True, slots=True)
class Indexed:
    """What the ledger says about keys and indexes: the entries that were looked at, and what was not made of them."""

    entries: tuple[str, ...]
    statements: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What the ledger says about the schema after the data: indexes that were not made."""

    statements: tuple[str, ...]


def schemas_of(pre_data: bytes) -> tuple[str, ...]:
    """Name the schemas that a text makes, quoted where they must be."""
    return tuple(
        entry.name if re.fullmatch(r"[a-z_][a-z0-9_]*", entry.name) else f'"{entry.name}"'
        for entry in entries(pre_data)
        if entry.kind == "SCHEMA"
    )


def make_schema(connection: Connection, pre_data: bytes) -> None:
    """
    Make all that comes before the data, in the transaction of the caller; the events table gets its loading name.

    Raises TargetRefused, naming the object that the target cannot have.
    """
    _prepare(connection)
    there = {name for (name,) in connection.execute("SELECT nspname FROM pg_namespace")}
    for entry in entries(pre_data):
        if entry.kind == "SCHEMA" and entry.name in there:
            continue
        with _making(entry):
            connection.execute(entry.text)
    connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(named(EVENTS), sql.Identifier(RESTORING)))


def drop_schema(connection: Connection, made: tuple[str, ...], filled: tuple[str, ...]) -> None:
    """Undo `make_schema`: drop the schemas that it made, and what is in those that were there."""
    for name in made:
        connection.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE".encode())
    for query in (
        """SELECT format('DROP %s IF EXISTS %s CASCADE', CASE relkind WHEN 'v' THEN 'VIEW' WHEN 'S' THEN 'SEQUENCE'
                         WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END,
                         oid::regclass)
             FROM pg_class WHERE relnamespace = ANY (%(schemas)s::regnamespace[]) AND relkind IN
                  ('r', 'p', 'v', 'm', 'f', 'S')""",
        """SELECT format('DROP ROUTINE IF EXISTS %s CASCADE', oid::regprocedure) FROM pg_proc
            WHERE pronamespace = ANY (%(schemas)s::regnamespace[])""",
        """SELECT format('DROP TYPE IF EXISTS %s CASCADE', oid::regtype) FROM pg_type
            WHERE typnamespace = ANY (%(schemas)s::regnamespace[]) AND (typtype IN ('d', 'e', 'r') OR typtype = 'c'
                  AND EXISTS (SELECT FROM pg_class c WHERE c.oid = typrelid AND c.relkind = 'c'))""",
    ):
        text = query.replace("format('DROP %s IF", "format('DROP %%s IF").replace("EXISTS %s", "EXISTS %%s")
        for (statement,) in connection.execute(text.encode(), {"schemas": list(filled)}).fetchall():
            connection.execute(statement.encode())


def make_indexes(connection: Connection, post_data: bytes, without: Collection[str], report: Report) -> None:
    """
    Make the keys and indexes of tables that are filled, once; `finish_schema` does the rest.

    Those `without` are tables to come, and the events table is there under another name: nothing that names one of
    them is made.
    """
    later = [name.encode() for name in (EVENTS, *without)]
    with connection.transaction():
        if POST_DATA in items(connection) or not claim(connection, INDEXES):
            return
        _prepare(connection)
        chosen = [
            entry
            for entry in entries(post_data)
            if entry.kind in {"CONSTRAINT", "INDEX"} and not any(name in entry.text for name in later)
        ]
        left_out = [text for entry in chosen for text in _make(connection, entry, report)]
        note(connection, INDEXES, Indexed(tuple(map(str, chosen)), tuple(left_out)))


def finish_schema(connection: Connection, post_data: bytes, table: EventTable, report: Report) -> list[str]:
    """
    Make all that comes after the data, once; return what to say of indexes that the target cannot have.

    `table` tells the key and indexes of the events table, which are there already.
    """
    names = (table.key_name, *(index.name for index in table.indexes))
    built = {(SCHEMA, name) for name in names} | {(SCHEMA, f"{EVENTS} {name}") for name in names}
    with connection.transaction():
        if not claim(connection, POST_DATA):
            return list(LeftOut(**noted(connection, POST_DATA)).statements)
        indexed = Indexed(**noted(connection, INDEXES)) if INDEXES in items(connection) else Indexed((), ())
        there, left_out = frozenset(indexed.entries), list(indexed.statements)
        _prepare(connection)
        connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(named(RESTORING), sql.Identifier(EVENTS)))
        for entry in entries(post_data):
            if entry.kind in {"CONSTRAINT", "INDEX"} and ((entry.schema, entry.name) in built or str(entry) in there):
                continue
            left_out += _make(connection, entry, report)
        connection.execute(sql.SQL("ALTER TABLE {} RENAME TO {}").format(named(EVENTS), sql.Identifier(RESTORING)))
        note(connection, POST_DATA, LeftOut(tuple(left_out)))
    return left_out


def _make(connection: Connection, entry: Entry, report: Report) -> list[str]:
    """Make an entry; say of an index that the target cannot have that it was left out."""
    with _making(entry):
        try:
            with connection.transaction():
                connection.execute(entry.text)
        except _LACKING as error:
            if entry.kind != "INDEX" or entry.text.lstrip().startswith(b"CREATE UNIQUE"):
                raise
            statement = " ".join(entry.text.decode().split())
            said = f"{entry} was left out ({error.diag.message_primary}); to make it: {statement}"
            report(Warned(said))
            return [said]
    return []


def _prepare(connection: Connection) -> None:
    for name, value in _SETTINGS.items():
        connection.execute("SELECT set_config(%s, %s, true)", (name, value))


@contextmanager
def _making(entry: Entry) -> Generator[None]:
    """Raise what the server says against an entry as TargetRefused; what is not about the entry passes."""
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is None or not _NOT_OF_THE_ENTRY.isdisjoint((error.sqlstate, error.sqlstate[:2])):
            raise
        raise TargetRefused(
            f"the target cannot have {entry} of the captured schema: {error.diag.message_primary or error}",
            hint="Give the role what it lacks (owner of the database, extensions), or restore into a database prepared "
            "by `zitadel init` and `zitadel setup --for-mirror`.",
        ) from error
