"""
Real histories: a compact part in tests/data, all of it where the full fixtures are at hand.

Rows are COPY text lines in commit order. Every prefix of them is a database that really existed, so loading one
slice after another replays history, late commits included.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal

import psycopg
import zstandard
from psycopg.sql import SQL, Composable, Identifier

from zbackup.event import cursor_of
from zbackup.zitadel.events import COLUMN_ORDER

VERSIONS = ("v4.13.1", "v2.71.19", "main")

EVENTS = "eventstore.events2"
CONSTRAINTS = "eventstore.unique_constraints"

COLLATIONS: dict[str, tuple[str, str, str, str | None]] = {
    "v4.13.1": ("libc", "C.UTF-8", "C.UTF-8", None),
    "v2.71.19": ("icu", "C.UTF-8", "C.UTF-8", "en-US"),
    "main": ("libc", "C", "C", None),
}
"""Of the databases: provider, collation, ctype and ICU locale, as a source tells them."""

COMPACT = Path(__file__).parent / "data"

# What the full fixtures have besides derived tables.
STATE = (
    "eventstore.", "system.", "queue.river_migration", "zitadel.migrations", "projections.current_states",
    "projections.failed_events2", "projections.quotas_periods",
)  # fmt: skip

Tables = Literal["all", "state", "none"]


@dataclass(frozen=True, slots=True)
class Commit:
    """When an event became visible, and by which transaction."""

    time: datetime
    transaction: int


@dataclass(frozen=True, slots=True)
class Truth:
    """An instant at which nobody was writing: events belong to it when created_at <= time."""

    label: str
    time: datetime
    events: int
    """also the number of rows in commit order: rows(version)[:events] is the log of that instant"""
    instances: dict[str, int]
    max_position: Decimal


def full_place() -> Path | None:
    """Return the folder of the full fixtures: $ZBACKUP_FIXTURES, or beside the repository. None: not at hand."""
    named = os.environ.get("ZBACKUP_FIXTURES")
    place = Path(named) if named else Path(__file__).parents[2] / "shared" / "fixtures"
    return place if (place / VERSIONS[0] / "events2.copy.zst").exists() else None


def place_of(version: str, *, full: bool = False) -> Path:
    """Return the folder of a version. Raises FileNotFoundError when the full fixtures are not at hand."""
    if not full:
        return COMPACT / version
    place = full_place()
    if place is None:
        raise FileNotFoundError("no full fixtures: set ZBACKUP_FIXTURES to their folder")
    return place / version


@cache
def rows(version: str, *, full: bool = False) -> tuple[bytes, ...]:
    """Return the events as COPY text lines with their newline, in commit order."""
    return tuple(_unpacked(place_of(version, full=full) / "events2.copy.zst").splitlines(keepends=True))


@cache
def columns(version: str, *, full: bool = False) -> tuple[str, ...]:
    return tuple(json.loads((place_of(version, full=full) / "events2.json").read_text())["columns"])


@cache
def archived(version: str, *, full: bool = False) -> tuple[bytes, ...]:
    """Return the events as an archive holds them: its columns, its order."""
    names = columns(version, full=full)
    places = [names.index(name) for name in COLUMN_ORDER]
    split = (row.rstrip(b"\n").split(b"\t") for row in rows(version, full=full))
    return tuple(sorted((b"\t".join(fields[at] for at in places) + b"\n" for fields in split), key=cursor_of))


def constraints_at(version: str, label: str, *, full: bool = False) -> tuple[bytes, ...]:
    """
    Return the rows of `eventstore.unique_constraints` at an instant, as COPY text lines with their newline.

    The label "end" stands for the end of the server's run, which the compact events do not reach.
    """
    place = place_of(version, full=full)
    end = place / "tables" / f"{CONSTRAINTS}.copy.zst"
    path = end if label == "end" else place / "truth" / label / "unique_constraints.copy.zst"
    return tuple(_unpacked(path).splitlines(keepends=True))


@cache
def commits(version: str, *, full: bool = False) -> tuple[Commit, ...]:
    """Return the commit of each row."""
    lines = _unpacked(place_of(version, full=full) / "commits.tsv.zst").decode().splitlines()
    pairs = (line.split("\t") for line in lines)
    return tuple(Commit(datetime.fromisoformat(time), int(number)) for time, number in pairs)


@cache
def truths(version: str, *, full: bool = False) -> tuple[Truth, ...]:
    plain: list[dict[str, Any]] = json.loads((place_of(version, full=full) / "truths.json").read_text())
    return tuple(
        Truth(
            label=truth["label"],
            time=datetime.fromisoformat(truth["time"]),
            events=truth["events"]["count"],
            instances={entry["instance_id"]: entry["count"] for entry in truth["events"]["instances"]},
            max_position=Decimal(truth["events"]["max_position"]),
        )
        for truth in plain
        if truth["events"]["count"] <= len(rows(version, full=full))
    )


def shapes(version: str, *, full: bool = False) -> dict[str, Any]:
    """Return every table of the server, by its qualified name: columns, key, indexes, defaults."""
    return json.loads((place_of(version, full=full) / "tables.json").read_text())


@cache
def table(version: str, name: str, *, full: bool = False) -> tuple[dict[str, str], ...]:
    """Return the rows of a table as it was at the end, as COPY text by column; none where they are not at hand."""
    source = place_of(version, full=full) / "tables" / f"{name}.copy.zst"
    if not source.exists():
        return ()
    names = [column["name"] for column in shapes(version, full=full)[name]["columns"] if not column["generated"]]
    lines = _unpacked(source).decode().splitlines()
    return tuple(dict(zip(names, line.split("\t"), strict=True)) for line in lines)


def shifted(row: bytes, by: timedelta, names: tuple[str, ...]) -> bytes:
    """Return the row with created_at and position moved in time, by whole microseconds."""
    fields = row.split(b"\t")
    at, where = names.index("created_at"), names.index("position")
    moved = datetime.fromisoformat(fields[at].decode()) + by
    fields[at] = moved.isoformat(" ").encode()
    position = Decimal(fields[where].decode()) + Decimal(by // timedelta(microseconds=1)).scaleb(-6)
    fields[where] = str(position).encode() + (b"\n" if fields[where].endswith(b"\n") else b"")
    return b"\t".join(fields)


def load(
    connection: psycopg.Connection[Any],
    version: str,
    commits: slice = slice(None),
    *,
    tables: Tables = "state",
    full: bool = False,
    shift: timedelta = timedelta(0),
) -> int:
    """
    Append a slice of the events in commit order, and commit; return their number.

    Where there is no events table yet, it and the other tables are made, and filled as they were at the end.
    """
    place = place_of(version, full=full)
    exists = connection.execute("SELECT to_regclass(%s)", (EVENTS,)).fetchone() != (None,)
    if not exists:
        for name, shape in shapes(version, full=full).items():
            if name == EVENTS or tables == "all" or (tables == "state" and name.startswith(STATE)):
                _create(connection, name, shape)
                _fill(connection, name, shape, place / "tables" / f"{name}.copy.zst")
                _index(connection, name, shape)
    chosen = rows(version, full=full)[commits]
    names = columns(version, full=full)
    if shift:
        chosen = [shifted(row, shift, names) for row in chosen]
    copy(connection, EVENTS, names, b"".join(chosen))
    connection.commit()
    return len(chosen)


def _create(connection: psycopg.Connection[Any], name: str, shape: dict[str, Any]) -> None:
    """Make a plain table: unknown types become text, defaults that call ZITADEL's functions are left out."""
    parts: list[Composable] = []
    for column in shape["columns"]:
        known = connection.execute("SELECT to_regtype(%s)", (column["type"],)).fetchone()
        kind = column["type"] if known and known[0] else "text"
        part = SQL("{} {}").format(Identifier(column["name"]), _raw(kind))
        if column["generated"]:
            # The enums of schema zitadel are text here.
            expression = re.sub(r"::zitadel\.\w+", "", column["default"])
            part += SQL(" GENERATED ALWAYS AS ({}) STORED").format(_raw(expression))
        if column["not_null"]:
            part += SQL(" NOT NULL")
        parts.append(part)
    connection.execute(SQL("CREATE SCHEMA IF NOT EXISTS {}").format(Identifier(name.partition(".")[0])))
    connection.execute(SQL("CREATE TABLE {} ({})").format(_qualified(name), SQL(", ").join(parts)))


def _fill(connection: psycopg.Connection[Any], name: str, shape: dict[str, Any], source: Path) -> None:
    if name != EVENTS and source.exists():
        names = tuple(column["name"] for column in shape["columns"] if not column["generated"])
        copy(connection, name, names, _unpacked(source))


def _index(connection: psycopg.Connection[Any], name: str, shape: dict[str, Any]) -> None:
    if shape["primary_key"]:
        key = SQL("ALTER TABLE {} ADD {}").format(_qualified(name), _raw(shape["primary_key"]))
        connection.execute(key)
    if name.startswith("eventstore."):
        for definition in shape["indexes"]:
            if "_pkey " not in definition:
                connection.execute(definition)


def copy(connection: psycopg.Connection[Any], name: str, names: tuple[str, ...], data: bytes) -> None:
    listed = SQL(", ").join(map(Identifier, names))
    statement = SQL("COPY {} ({}) FROM STDIN").format(_qualified(name), listed)
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        copy.write(data)


def _qualified(name: str) -> Identifier:
    return Identifier(*name.split("."))


def _raw(text: str) -> SQL:
    """Take SQL from our own data files as it is."""
    return SQL(text)  # type: ignore[arg-type]


def _unpacked(path: Path) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj(read_across_frames=True).decompress(path.read_bytes())
