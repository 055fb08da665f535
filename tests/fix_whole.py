"""
Real histories played again in our own time, so that captures can lie before the instants that are asked for.

Every event gets a new time by its rank, in the same order; the unique constraints are those of the truth at each
instant, other tables those of the end. Databases have the collation of the server that the history is from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from psycopg.sql import Identifier

from tests import fixture_data
from tests.fix_postgres import databases
from tests.fixture_data import Truth, columns
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.zitadel.constraints import COLUMNS

MICROSECOND = timedelta(microseconds=1)

# As the servers had them that the histories are from.
COLLATIONS = {
    "v4.13.1": "LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'",
    "v2.71.19": "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'",
    "main": "LC_COLLATE 'C' LC_CTYPE 'C'",
}


@pytest.fixture
def database_like(postgres: EmbeddedPostgres) -> Iterator[Callable[[str], str]]:
    """Make empty databases with the collation of a version's fixture; they are dropped after the test."""
    with databases(postgres) as new:

        def like(version: str) -> str:
            try:
                return new(COLLATIONS[version])
            except psycopg.errors.FeatureNotSupported:
                pytest.skip("this PostgreSQL has no ICU")

        yield like


@dataclass
class Played:
    """A history that is played slice by slice."""

    dsn: str
    version: str
    full: bool
    done: int = 0
    """events that are there"""

    def begin(self) -> None:
        """Make the tables, with no event yet and the rows of the end."""
        with psycopg.connect(self.dsn) as connection:
            tables = "all" if self.full else "state"
            fixture_data.load(connection, self.version, slice(0, 0), tables=tables, full=self.full)

    def until(self, truth: Truth) -> datetime:
        """Play on to an instant, dated now, and return when that is."""
        names = columns(self.version, full=self.full)
        lines = fixture_data.rows(self.version, full=self.full)[self.done : truth.events]
        with psycopg.connect(self.dsn) as connection:
            now = connection.execute("SELECT clock_timestamp()").fetchone()
            assert now is not None
            stamped, last = restamped(lines, names, now[0].astimezone(UTC))
            fixture_data.copy(connection, fixture_data.EVENTS, names, b"".join(stamped))
            rows = b"".join(fixture_data.constraints_at(self.version, truth.label, full=self.full))
            connection.execute("TRUNCATE eventstore.unique_constraints")
            fixture_data.copy(connection, fixture_data.CONSTRAINTS, COLUMNS, rows)
            # The events have taken their time by now.
            connection.execute("SELECT pg_sleep(0.05)")
        self.done = truth.events
        return last


def restamped(lines: tuple[bytes, ...], names: tuple[str, ...], start: datetime) -> tuple[list[bytes], datetime]:
    """Give each line the time of its rank after `start`, and the position that goes with it."""
    at, where = names.index("created_at"), names.index("position")
    split = [line.rstrip(b"\n").split(b"\t") for line in lines]
    ranks = {time: rank for rank, time in enumerate(sorted({fields[at] for fields in split}, key=_instant), 1)}
    for fields in split:
        moved = start + ranks[fields[at]] * MICROSECOND
        position = Decimal(int(moved.timestamp())) + Decimal(moved.microsecond).scaleb(-6)
        fields[at], fields[where] = moved.isoformat(" ").encode(), str(position).encode()
    return [b"\t".join(fields) + b"\n" for fields in split], start + len(ranks) * MICROSECOND


def _instant(text: bytes) -> datetime:
    return datetime.fromisoformat(text.decode())


def table_rows(dsn: str, name: str, where: str = "true") -> list[str]:
    """Return whole rows of a table as text, generated columns included, in a fixed order."""
    with psycopg.connect(dsn) as connection:
        return _rows(connection, name, where)


def all_rows(dsn: str, names: Iterable[str]) -> dict[str, list[str] | None]:
    """Return the rows of many tables; None for one that is not there."""
    with psycopg.connect(dsn) as connection:
        there = {name for (name,) in connection.execute("SELECT schemaname || '.' || tablename FROM pg_tables")}
        return {name: _rows(connection, name) if name in there else None for name in names}


def _rows(connection: psycopg.Connection[Any], name: str, where: str = "true") -> list[str]:
    connection.execute("SET TimeZone = 'UTC'")
    query = (
        f"SELECT t::text FROM ONLY {Identifier(*name.split('.', 1)).as_string(connection)} t WHERE {where} ORDER BY 1"
    )
    return [row[0] for row in connection.execute(query.encode())]


def one(dsn: str, query: str, *values: object) -> Any:
    """Return the only value of a query."""
    with psycopg.connect(dsn) as connection:
        row = connection.execute(query.encode(), values or None).fetchone()
        assert row is not None
        return row[0]
