"""
Load chunks into the table that is being restored, then give it key, indexes and statistics.

Each chunk is one transaction with its entry in the ledger, committed after the chunk has proved itself: its
rows are in the table and in the ledger, or in neither.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from datetime import datetime
from threading import Event

import psycopg
from psycopg import sql

from zbackup.archive.chunk import texts
from zbackup.archive.facts import inspect_frame
from zbackup.archive.manifest import ChunkRef
from zbackup.archive.plan import PlannedChunk, RestorePlan
from zbackup.archive.rows import rows_until
from zbackup.archive.sound import rows_of
from zbackup.database.export import relation
from zbackup.database.target import (
    SCHEMA,
    Connection,
    Loaded,
    claim,
    columns,
    each,
    note,
    one_row,
    raw,
    read_loaded,
    restoring,
)
from zbackup.event import Cursor
from zbackup.progress import Advance, Report, Step, Warned
from zbackup.source import EventTable, Index

Read = Callable[[ChunkRef], Iterator[bytes]]
"""yields the rows of a chunk a frame at a time; proven when it has ended by itself"""

Counts = Callable[[ChunkRef], tuple[dict[str, int], dict[str, int]]]
"""tells a chunk's rows per instance and per aggregate type"""


def load(dsn: str, connection: Connection, plan: RestorePlan, read: Read, jobs: int, report: Report) -> None:
    """Load the chunks that the ledger does not name yet."""
    done = read_loaded(connection)
    missing = [chunk for chunk in plan.chunks if chunk.ref.name not in done]
    known = [chunk.ref for chunk in plan.chunks if chunk.ref.name in done]
    report(Step("load", f"{len(plan.chunks)} chunks" + (f", {len(known)} of them loaded before" if known else "")))
    total = plan.totals
    report(Advance(sum(ref.rows for ref in known), sum(ref.raw_bytes for ref in known), total.rows, total.raw_bytes))

    def one(worker: Connection, chunk: PlannedChunk) -> None:
        _load_chunk(worker, plan, chunk, read, report)

    each(dsn, jobs, missing, one)


def _load_chunk(connection: Connection, plan: RestorePlan, chunk: PlannedChunk, read: Read, report: Report) -> None:
    sent = _Sent(plan.at if chunk.cut else None)
    total = plan.totals.rows, plan.totals.raw_bytes
    copy_in = sql.SQL("COPY {} ({}) FROM STDIN").format(relation(restoring(plan.table)), columns(plan.table))
    with connection.transaction():
        if not claim(connection, chunk.ref.name):
            return
        with connection.cursor() as cursor, cursor.copy(copy_in) as copy:
            for frame in read(chunk.ref):
                with rows_of(chunk.ref.name):
                    rows = sent.pick(frame)
                if rows:
                    copy.write(rows)
                report(Advance(0, len(frame), *total))
                del frame, rows
        with rows_of(chunk.ref.name):
            loaded = sent.loaded(chunk.ref)
        note(connection, chunk.ref.name, loaded)
    # Counting rows frame by frame would cost more than decoding them does.
    report(Advance(chunk.ref.rows, 0, *total))


class _Sent:
    """What of a chunk is sent; counted and hashed where it is cut, known from the chunk where it is not."""

    def __init__(self, at: datetime | None) -> None:
        self._at = at
        self._digest = hashlib.sha256()
        self._rows = 0
        self._last: Cursor | None = None
        self._instances: Counter[bytes] = Counter()
        self._types: Counter[bytes] = Counter()

    def pick(self, frame: bytes) -> bytes:
        if self._at is None:
            return frame
        picked = rows_until(frame, self._at)
        if picked:
            facts = inspect_frame(picked, self._last)
            self._digest.update(picked)
            self._rows += facts.rows
            self._instances.update(facts.instances)
            self._types.update(facts.aggregate_types)
            self._last = facts.last
        return picked

    def loaded(self, ref: ChunkRef) -> Loaded:
        if self._at is None:
            return Loaded(ref.rows, ref.raw_sha256, ref.last, {}, {})
        return Loaded(
            self._rows,
            self._digest.hexdigest(),
            self._last.texts() if self._last else (),
            texts(self._instances),
            texts(self._types),
        )


def stoppable(read: Read, stop: Event) -> Read:
    """Let a reader raise CancelledError at the next frame when it is told to stop."""

    def reading(ref: ChunkRef) -> Iterator[bytes]:
        for frame in read(ref):
            if stop.is_set():
                raise CancelledError
            yield frame
            del frame

    return reading


def _cost(index: Index) -> int:
    """Tell what takes long to build, so that it does not come last: many columns, of all rows."""
    return 0 if " WHERE " in index.definition else index.definition.count(",")


def build(dsn: str, connection: Connection, table: EventTable, jobs: int, report: Report) -> list[str]:
    """
    Add the key and the indexes that are not there yet.

    An index that the target cannot have (an extension or function is missing there) is left out; returns what to
    say of those.
    """
    target = restoring(table)
    place = f"{SCHEMA}.{target.name}"
    there: dict[str, str] = dict(
        connection.execute(
            """SELECT c.relname, split_part(pg_get_indexdef(c.oid), ' ON eventstore.events2_restoring USING ', 2)
                 FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = %s::regclass""",
            (place,),
        ).fetchall()
    )
    report(Step("index", f"key and {len(table.indexes)} indexes"))
    # The key is built beside the others, which ALTER TABLE would not allow.
    key = Index(table.key_name, True, "btree " + table.key.removeprefix("PRIMARY KEY "))
    left_out: list[str] = []

    def one(worker: Connection, index: Index) -> None:
        statement = sql.SQL("CREATE {} {} ON {} USING {}")
        # As many processes as jobs: with parallel workers of their own, two builds took a fifth longer on two cores.
        worker.execute("SET max_parallel_maintenance_workers = 0")
        kind, name = sql.SQL("UNIQUE INDEX" if index.unique else "INDEX"), sql.Identifier(index.name)
        try:
            worker.execute(statement.format(kind, name, relation(target), raw(index.definition)))
        except (psycopg.ProgrammingError, psycopg.NotSupportedError) as error:
            if index is key or isinstance(error, psycopg.errors.DuplicateTable):
                raise
            later = statement.format(kind, name, relation(table), raw(index.definition)).as_string(worker)
            left_out.append(f"index {index.name} was left out ({error.diag.message_primary}); to make it: {later};")
            report(Warned(left_out[-1]))

    for index in table.indexes:
        if there.get(index.name, index.definition) != index.definition:
            report(
                Warned(
                    f"index {index.name} of the target is {there[index.name]}, archived is {index.definition}",
                    hint="It was left as it is; ZITADEL's setup decides about its indexes.",
                )
            )
    missing = [index for index in (key, *table.indexes) if index.name not in there]
    each(dsn, jobs, sorted(missing, key=_cost, reverse=True), one)
    keyed = "SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = %s::regclass AND indisprimary)"
    if not one_row(connection, keyed, place)[0]:
        connection.execute(
            sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} PRIMARY KEY USING INDEX {}").format(
                relation(target), sql.Identifier(table.key_name), sql.Identifier(table.key_name)
            )
        )
    return left_out


def analyze(connection: Connection, table: EventTable) -> None:
    """Gather statistics, which what is asked of the table after the proof needs; the proof itself does not."""
    connection.execute(sql.SQL("ANALYZE {}").format(relation(restoring(table))))
