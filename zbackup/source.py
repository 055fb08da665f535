"""What is written down about a source: who it is, its events table, its horizon, its counters. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: str
    not_null: bool


@dataclass(frozen=True, slots=True)
class Index:
    name: str
    unique: bool
    definition: str
    """what follows USING in CREATE INDEX"""


@dataclass(frozen=True, slots=True)
class EventTable:
    """The events table as the catalog of the source shows it."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    """in the order of the archived rows"""
    attributes: tuple[str, ...]
    """
    their names in the order of the source's table: a restored one has the same, for ZITADEL's push functions
    insert by position
    """
    key_name: str
    key: str
    """PRIMARY KEY (…)"""
    indexes: tuple[Index, ...]
    """the others"""

    @property
    def indexed_by_time(self) -> bool:
        """Whether a range of created_at is read without the rest of the table."""
        return any(
            index.definition.startswith("btree (created_at") and " WHERE " not in index.definition
            for index in self.indexes
        )


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What changes when a table is rewritten or truncated (pg_class)."""

    oid: int
    relfilenode: int


@dataclass(frozen=True, slots=True)
class Source:
    """Where the rows came from."""

    system_identifier: str
    database: str
    database_oid: int
    timeline: int | None
    server_version: str
    zitadel_version: str | None
    encoding: str
    locale_provider: str
    collation: str
    ctype: str
    icu_locale: str | None
    standby: bool = False


def collation_text(provider: str, collation: str, ctype: str, icu_locale: str | None) -> str:
    """Say by what rules a database compares and lower-cases."""
    names = [icu_locale] if icu_locale else sorted({collation, ctype})
    return f"{provider} {', '.join(names)}"


@dataclass(frozen=True, slots=True)
class Blocker:
    """Who held the horizon back."""

    kind: str
    pid: int | None
    role: str | None
    application: str | None
    since: datetime | None
    detail: str


@dataclass(frozen=True, slots=True)
class Pending:
    """A clock that was not yet proven, and who must be seen without a transaction for it."""

    clock: datetime
    pids: tuple[int, ...]
    server: datetime | None = None
    """when the server with these processes was started; None: not recorded, in older archives"""


@dataclass(frozen=True, slots=True)
class HorizonRecord:
    at: datetime | None
    """None: nothing was ever sealed"""
    basis: str
    margin_seconds: float
    clock: datetime
    blockers: tuple[Blocker, ...] = ()
    pending: Pending | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """The table's statistics as they stood before the snapshot."""

    inserted: int
    updated: int
    deleted: int
    reset: datetime | None
    """when somebody reset those of the database"""
    started: datetime | None
    """when those of the server began: at its last crash, if nobody reset them (measured on 15, 16, 18)"""
