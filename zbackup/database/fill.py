"""
Fill the other tables of a target: empty them, load them from a capture, read them back.

Each table is one transaction with its entry in the ledger, so that a killed restore goes on exactly. Triggers do
not fire for what is loaded: it is the state that they led to. What was sent is read back and compared before it
is committed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from psycopg import sql

from zbackup.archive.rows import split_rows
from zbackup.archive.sound import rows_of
from zbackup.database.export import copy_out
from zbackup.database.target import Connection, claim, each, items, note
from zbackup.errors import TargetError
from zbackup.event import unescape
from zbackup.progress import Advance, Report

Name = tuple[str, str]
"""schema and name of a table"""


@dataclass(frozen=True, slots=True)
class TargetTable:
    """A table as the target's catalog shows it."""

    schema: str
    name: str
    columns: tuple[str, ...]
    """without generated ones"""
    required: tuple[str, ...]
    """of these, the ones that somebody must give a value"""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows of a captured table are wanted, by one column."""

    column: str
    values: frozenset[str]
    wanted: bool
    """the rows with these values, or those without"""


@dataclass(frozen=True, slots=True)
class Load:
    """One table to load."""

    schema: str
    name: str
    columns: tuple[str, ...]
    """of the captured rows"""
    into: tuple[str, ...]
    """of these, the ones that the target has"""
    rows: Callable[[], Iterator[bytes]]
    """the captured rows, a frame at a time"""
    expected: int
    """how many there are"""
    choice: Choice | None = None
    read_back: bool = True
    """compare every byte, not only the number of rows"""

    @property
    def item(self) -> str:
        return item_of(self.schema, self.name)


@dataclass(frozen=True, slots=True)
class Filled:
    """What the ledger says about a table."""

    rows: int


def item_of(schema: str, name: str) -> str:
    """Name the entry of a table in the ledger."""
    return f"table {schema}.{name}"


def list_target(connection: Connection, schemas: Collection[str]) -> dict[Name, TargetTable]:
    """Return the tables of these schemas."""
    rows = connection.execute(
        """SELECT n.nspname, c.relname,
                  array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated = ''),
                  array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attgenerated = '' AND a.attnotnull
                            AND NOT a.atthasdef AND a.attidentity = '')
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                  JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            WHERE n.nspname = ANY (%s) AND c.relkind IN ('r', 'p') GROUP BY n.nspname, c.relname""",
        (list(schemas),),
    )
    return {
        (schema, name): TargetTable(schema, name, tuple(columns or ()), tuple(required or ()))
        for schema, name, columns, required in rows
    }


def empty(connection: Connection, tables: Sequence[Name]) -> None:
    """Empty these tables at once, with what refers to them inside the set. Does nothing the second time."""
    with connection.transaction():
        if claim(connection, "emptied") and tables:
            connection.execute(
                sql.SQL("TRUNCATE {}").format(sql.SQL(", ").join(sql.Identifier(*name) for name in tables))
            )


def fill(dsn: str, connection: Connection, loads: Sequence[Load], jobs: int, report: Report) -> None:
    """Load the tables that the ledger does not name yet, those that others refer to first."""

    def one(worker: Connection, load: Load) -> None:
        fill_table(worker, load, report)

    done = items(connection)
    for level in _levels(connection, [load for load in loads if load.item not in done]):
        each(dsn, jobs, level, one)


def fill_table(connection: Connection, load: Load, report: Report) -> None:
    """Load one table, unless the ledger names it. Raises TargetError when it does not hold what was sent."""
    with connection.transaction():
        if not claim(connection, load.item):
            return
        with without_triggers(connection, (load.schema, load.name)):
            sent = _Sent(load)
            if load.into:
                with connection.cursor() as cursor, cursor.copy(_copy_in(load)) as copy:
                    for frame in load.rows():
                        with rows_of(f"{load.schema}.{load.name}"):
                            rows = sent.pick(frame)
                        if rows:
                            copy.write(rows)
                        report(Advance(0, len(frame)))
                        del frame, rows
            else:
                _insert_empty(connection, load, sent)
        if sent.seen != load.expected:
            raise TargetError(
                f"{load.schema}.{load.name}: {sent.seen} rows came from the archive, its capture says {load.expected}",
                hint="Run `zbackup verify`; nothing was published.",
            )
        _read_back(connection, load, sent)
        move_sequences(connection, (load.schema, load.name))
        connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(load.schema, load.name)))
        note(connection, load.item, Filled(sent.rows))


def move_sequences(connection: Connection, table: Name) -> None:
    """Let the sequences of a table go on after its greatest values: the schema's text does not hold theirs."""
    rows = connection.execute(
        """SELECT a.attname, d.refobjid, n.nspname, s.relname
             FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
                  JOIN pg_namespace n ON n.oid = s.relnamespace
                  JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
            WHERE d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i') AND d.refobjid = %s::regclass""",
        (sql.Identifier(*table).as_string(connection),),
    ).fetchall()
    for column, _, schema, sequence in rows:
        connection.execute(
            sql.SQL("SELECT setval({}, greatest(max({}), 1), max({}) IS NOT NULL) FROM {}").format(
                sql.Literal(sql.Identifier(schema, sequence).as_string(connection)),
                sql.Identifier(column),
                sql.Identifier(column),
                sql.Identifier(*table),
            )
        )


class _Sum:
    """
    A digest of rows in any order: the sum of their SHA-256.

    Where rows land in the heap is the server's choice, even for one session that fills an empty table (seen on 15).
    """

    def __init__(self) -> None:
        self.rows = 0
        self._total = 0

    def add(self, row: bytes) -> None:
        self.rows += 1
        self._total += int.from_bytes(hashlib.sha256(row).digest(), "big")

    def text(self) -> str:
        return format(self._total % (1 << 256), "064x")


class _Sent:
    """What of a captured table is sent, counted and summed up."""

    def __init__(self, load: Load) -> None:
        self.sum = _Sum()
        self.rows = 0
        self.seen = 0
        self._sums = load.read_back
        self._places = None if load.into == load.columns else [load.columns.index(name) for name in load.into]
        self._choice = load.choice
        self._place = load.columns.index(load.choice.column) if load.choice else 0

    def pick(self, frame: bytes) -> bytes:
        if self._places is None and self._choice is None and not self._sums:
            number = frame.count(b"\n")
            self.seen, self.rows = self.seen + number, self.rows + number
            return frame
        rows = split_rows(frame)
        self.seen += len(rows)
        picked = [self._cut(row) for row in rows if self._is_wanted(row)]
        self.rows += len(picked)
        if self._sums:
            for row in picked:
                self.sum.add(row)
        return b"".join(picked)

    def _is_wanted(self, row: bytes) -> bool:
        if self._choice is None:
            return True
        value = unescape(row.rstrip(b"\n").split(b"\t")[self._place]).decode()
        return (value in self._choice.values) == self._choice.wanted

    def _cut(self, row: bytes) -> bytes:
        if self._places is None:
            return row
        fields = row[:-1].split(b"\t")
        return b"\t".join(fields[place] for place in self._places) + b"\n"


def _insert_empty(connection: Connection, load: Load, sent: _Sent) -> None:
    """Insert rows without any value: COPY takes none where all columns are generated."""
    for frame in load.rows():
        sent.pick(frame)
    connection.execute(
        sql.SQL("INSERT INTO {} SELECT FROM generate_series(1, {})").format(
            sql.Identifier(load.schema, load.name), sql.Literal(sent.rows)
        )
    )


def _copy_in(load: Load) -> sql.Composed:
    return sql.SQL("COPY {} {} FROM STDIN").format(sql.Identifier(load.schema, load.name), _listed(load.into))


def _listed(columns: Iterable[str]) -> sql.Composable:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return sql.SQL("({})").format(names) if columns else sql.SQL("")


def _read_back(connection: Connection, load: Load, sent: _Sent) -> None:
    rows, back = 0, _Sum()
    if load.read_back:
        statement = sql.SQL("COPY {} {} TO STDOUT").format(sql.Identifier(load.schema, load.name), _listed(load.into))
        for row in copy_out(connection, statement):
            back.add(row)
        rows = back.rows
    else:
        found = connection.execute(
            sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(load.schema, load.name))
        ).fetchone()
        rows = found[0] if found else 0
    if rows != sent.rows or (load.read_back and back.text() != sent.sum.text()):
        raise TargetError(
            f"{load.schema}.{load.name} holds {rows} rows, not the {sent.rows} that were sent"
            if rows != sent.rows
            else f"{load.schema}.{load.name} holds other rows than were sent",
            hint="Somebody else wrote into the table, or the target's column types alter values. "
            f"--without {load.schema}.{load.name} leaves it empty.",
        )


@contextmanager
def without_triggers(connection: Connection, table: Name) -> Generator[None]:
    """Switch the triggers of a table off that fire now, and the same ones on again, in the caller's transaction."""
    identifier = sql.Identifier(*table)
    triggers = connection.execute(
        """SELECT tgname, tgenabled FROM pg_trigger
            WHERE tgrelid = %s::regclass AND NOT tgisinternal AND tgenabled IN ('O', 'A')""",
        (identifier.as_string(connection),),
    ).fetchall()
    statement = sql.SQL("ALTER TABLE {} {} TRIGGER {}")
    for name, _ in triggers:
        connection.execute(statement.format(identifier, sql.SQL("DISABLE"), sql.Identifier(name)))
    yield
    for name, enabled in triggers:
        verb = sql.SQL("ENABLE ALWAYS" if enabled == "A" else "ENABLE")
        connection.execute(statement.format(identifier, verb, sql.Identifier(name)))


def _levels(connection: Connection, loads: Sequence[Load]) -> Iterator[list[Load]]:
    """Group tables so that each comes after those that its foreign keys refer to."""
    by_name = {(load.schema, load.name): load for load in loads}
    graph: dict[Name, set[Name]] = {name: set() for name in by_name}
    for schema, name, other_schema, other in connection.execute(
        """SELECT n.nspname, c.relname, rn.nspname, r.relname FROM pg_constraint k
             JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
            WHERE k.contype = 'f' AND k.conrelid <> k.confrelid"""
    ):
        if (schema, name) in graph and (other_schema, other) in graph:
            graph[schema, name].add((other_schema, other))
    sorter = TopologicalSorter(graph)
    try:
        sorter.prepare()
    except CycleError as error:
        raise TargetError(
            f"foreign keys of the target go round: {error.args[1]}", hint="Restore into an empty database instead."
        ) from error
    while sorter.is_active():
        ready = sorter.get_ready()
        yield sorted((by_name[name] for name in ready), key=lambda load: -load.expected)
        sorter.done(*ready)
