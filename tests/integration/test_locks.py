"""Nobody waits for a backup longer than for one slice or one table; seen in a real lock queue, by order of events."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
import pytest

from tests.fix_archive import Backup, archived_rows, newest, source_rows
from tests.history import create_schema, fill_state
from zbackup.archive.archive import Archive
from zbackup.archive.rows import FRAME_BYTES
from zbackup.progress import Advance, ObjectStored, Progress, Report, Step

PATIENCE = 60.0
"""Seconds after which something hangs; nothing is measured by it."""


@dataclass
class Queue:
    """Who asked for what, in the order in which they got it."""

    dsn: str
    order: list[str] = field(default_factory=list[str])
    threads: list[threading.Thread] = field(default_factory=list[threading.Thread])

    def ask(self, name: str, statement: str) -> None:
        """Run a statement in a session of its own, and return when it waits for its lock."""

        def run() -> None:
            with psycopg.connect(self.dsn, application_name=name, autocommit=True) as connection:
                connection.execute(statement.encode())
            self.order.append(name)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.threads.append(thread)
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            deadline = time.monotonic() + PATIENCE
            while thread.is_alive() and time.monotonic() < deadline:
                waits = connection.execute(
                    "SELECT FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'", (name,)
                )
                if waits.fetchone() is not None:
                    self.order.append(f"{name} waits")
                    return
                time.sleep(0.005)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(PATIENCE)


@pytest.fixture
def large(database: str) -> str:
    """The DSN of a ZITADEL whose events and one of whose tables take many slices and frames."""
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill_state(connection)
        connection.execute(
            """INSERT INTO eventstore.events2 (instance_id, aggregate_type, aggregate_id, event_type, "sequence",
                   revision, created_at, payload, creator, "owner", "position", in_tx_order)
               SELECT 'i1', 'user', n::text, 'user.added', 1, 1, at, to_jsonb(repeat(md5(n::text), 50)), '', '',
                   extract(epoch FROM at), 1
                 FROM generate_series(1, 16000) n,
                      LATERAL (SELECT '2026-01-01Z'::timestamptz + n * '1s'::interval) instant (at)"""
        )
        connection.execute(
            """CREATE TABLE projections.large1 AS
               SELECT n AS id, repeat(md5(n::text), 20) AS what FROM generate_series(1, 20000) n"""
        )
        connection.execute("CREATE TABLE projections.small1 AS SELECT 1 AS id")
        connection.execute("ANALYZE")
    return database


def watch(queue: Queue, when: Callable[[str, Progress], bool], table: str, column: str) -> Report:
    """In the middle of a slice or a table ask for its lock twice: to change it, and to read it behind that."""
    step = ""
    asked = threading.Event()
    lock = threading.Lock()

    def report(progress: Progress) -> None:
        nonlocal step
        if isinstance(progress, Step):
            step = progress.name
            queue.order.append(step)
        elif isinstance(progress, ObjectStored):
            queue.order.append(f"{step} stored")
        with lock:
            if not asked.is_set() and when(step, progress):
                asked.set()
                queue.ask("alter", f"ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT")
                queue.ask("select", f"SELECT count(*) FROM {table} WHERE {column} IS NULL")

    return report


def test_who_changes_the_events_waits_for_the_slices_under_way(large: str, back_up: Backup, archive: Archive) -> None:
    """
    ALTER TABLE on the events comes through while most slices are still to be read, and so does who reads behind it.
    """
    queue = Queue(large)

    def in_a_slice(step: str, progress: Progress) -> bool:
        return step == "export" and isinstance(progress, Advance)

    # More than one frame to a slice: rows that are told of are those of a slice that still is read.
    chunk_bytes = 3 * FRAME_BYTES // 2
    result = back_up(large, report=watch(queue, in_a_slice, "eventstore.events2", "creator"), chunk_bytes=chunk_bytes)
    queue.join()

    order = queue.order
    assert ["alter waits", "select waits"] == [what for what in order if what.endswith("waits")]
    assert order.index("alter") < order.index("commit")
    assert order.index("select") < order.index("commit")
    before = order[order.index("alter waits") : order.index("alter")].count("export stored")
    after = order[order.index("alter") :].count("export stored")
    assert before <= 4
    assert after > 10
    assert archived_rows(archive) == source_rows(large)
    assert result.events == len(source_rows(large))


def test_who_changes_a_captured_table_waits_for_that_table(large: str, back_up: Backup, archive: Archive) -> None:
    """
    ALTER TABLE on a captured table comes through when it has been read, not when the backup is done; so does who
    reads behind it. The table is captured whole.
    """
    queue = Queue(large)

    def in_the_table(step: str, progress: Progress) -> bool:
        return step == "capture" and isinstance(progress, Advance) and progress.raw_bytes > FRAME_BYTES / 2

    back_up(large, report=watch(queue, in_the_table, "projections.large1", "id"), capture=True)
    queue.join()

    order = queue.order
    assert ["alter waits", "select waits"] == [what for what in order if what.endswith("waits")]
    assert order.index("alter") < order.index("commit")
    assert order.index("select") < order.index("commit")
    reference = newest(archive).capture
    assert reference is not None
    (table,) = [table for table in archive.capture(reference).tables if table.name == "large1"]
    assert table.rows == 20_000
