"""A source that is read gently: the same rows, no faster than was asked for, with its locks given back in between."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fix_archive import Backup, archived_rows, execute, newest, options, source_rows
from tests.fix_postgres import databases, every_version
from tests.history import create_schema, fill, push
from zbackup import lease
from zbackup.archive import FORMAT, names
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ArchiveRecord
from zbackup.archive.rows import rows_in
from zbackup.backup import backup
from zbackup.compact import FACTOR
from zbackup.database.connection import connect
from zbackup.database.embedded import EmbeddedPostgres
from zbackup.database.export import read_rows
from zbackup.database.kept import Sessions
from zbackup.database.pace import Pace
from zbackup.database.portions import read_range
from zbackup.database.shape import find_events_table
from zbackup.database.snapshot import Snapshot, Workers
from zbackup.event import BEGINNING, END
from zbackup.progress import Advance, Progress
from zbackup.store.local import LocalStore
from zbackup.verify import verify

GENTLE: dict[str, Any] = {"low_impact": True, "rate_limit": 64 << 20}


@pytest.fixture
def source(database: str) -> str:
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=3000, seed=3)
    return database


def large_rows(dsn: str, rows: int, row_bytes: int) -> None:
    """Append events of about so many bytes each, a second apart."""
    execute(
        dsn,
        """INSERT INTO eventstore.events2 (instance_id, aggregate_type, aggregate_id, event_type, "sequence", revision,
               created_at, payload, creator, "owner", "position", in_tx_order)
           SELECT 'i1', 'large', number::text, 'large.added', 1, 1, at, to_jsonb(repeat('x', %s)), '', '',
               extract(epoch FROM at), 1
             FROM generate_series(1, %s) number,
                  LATERAL (SELECT '2026-02-01Z'::timestamptz + number * '1s'::interval) instant (at)""",
        (row_bytes, rows),
    )


def chunks(archive: Archive) -> list[tuple[int, str]]:
    head = newest(archive)
    return [(chunk.rows, chunk.raw_sha256) for chunk in (*archive.chunks(head.log), *head.tail)]


@every_version
def test_portions_meet_without_gap_or_overlap(database: str) -> None:
    """
    Read in portions, rows come as they do at once, also where a portion ends among rows of one instant and position.
    """
    expect_portions_to_meet(database)


def test_portions_meet_whatever_the_locale(postgres: EmbeddedPostgres) -> None:
    """
    So they do where the database's own locale orders texts otherwise than by their bytes.
    """
    with databases(postgres) as new:
        try:
            source = new("LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C.UTF-8'")
        except (psycopg.errors.FeatureNotSupported, psycopg.errors.SyntaxError) as error:
            pytest.skip(f"PostgreSQL {postgres.version}: {error.diag.message_primary}")
        expect_portions_to_meet(source)


def expect_portions_to_meet(source: str) -> None:
    with psycopg.connect(source) as connection:
        create_schema(connection)
        fill(connection, events=3000, seed=3)
    execute(
        source,
        """INSERT INTO eventstore.events2 (instance_id, aggregate_type, aggregate_id, event_type, "sequence", revision,
               created_at, payload, creator, "owner", "position", in_tx_order)
           SELECT 'i1', kind, id || number, 'tied', 1, 1, '2026-01-05Z', NULL, '', '', 1767571200.5, mod(number, 3)
             FROM generate_series(1, 40) number, unnest(ARRAY['a', 'B', 'Ä', E'tab\\t', E'back\\\\slash', '''']) kind,
                  unnest(ARRAY['z', 'Z', 'é-', '_']) id""",
    )
    pace = Pace(10**9)
    pace.portion_bytes = 20_000
    with connect(source) as connection, Snapshot(Sessions(source)) as snapshot:
        table = find_events_table(connection).table
        wanted = list(rows_in(read_rows(connection, table, BEGINNING, END)))
        with Workers(Sessions(source), snapshot, 1, timedelta(seconds=5), pace) as workers, workers.borrow() as worker:
            execute(source, "DELETE FROM eventstore.events2 WHERE aggregate_type = 'B'")
            found = list(rows_in(read_range(worker, table, BEGINNING, END)))

    assert len(wanted) > 3900
    assert found == wanted


def test_the_archive_is_that_of_an_unhurried_backup(
    source: str, tmp_path: Path, archive: Archive, back_up: Backup
) -> None:
    """
    Chunks are cut as ever and hold the same rows, at the first backup and when many increments are merged; `verify`
    at the same pace agrees.
    """
    other_store = LocalStore(tmp_path / "other", create=True)
    with closing(other_store):
        other = Archive.create(other_store, ArchiveRecord(FORMAT, "20260101T000000Z-00000001", datetime.now(UTC), "t"))
        for number in range(FACTOR + 1):
            back_up(jobs=1)
            backup(other, source, options(jobs=1, **GENTLE))
            with psycopg.connect(source) as connection:
                push(connection, "i1", ("user", f"u{number}"))
        execute(source, "UPDATE eventstore.events2 SET owner = 'x' WHERE \"sequence\" = 2")
        back_up(jobs=1)
        amended = backup(other, source, options(jobs=1, **GENTLE))

        assert chunks(other) == chunks(archive)
        assert amended.amended > 0
        assert archived_rows(other) == source_rows(source)
        assert verify(other, source=source, pace=Pace(**GENTLE)).ok


def test_all_workers_together_keep_to_the_rate(archive: Archive, source: str, back_up: Backup) -> None:
    """
    A limited backup takes at least the time that its bytes need at that rate, whatever the number of its workers.
    """
    rate = 512 << 10
    done = back_up(rate_limit=rate, jobs=3)

    assert done.raw_bytes > rate
    assert done.seconds >= done.raw_bytes / rate
    assert archived_rows(archive) == source_rows(source)


def test_a_limited_slice_lets_go_of_its_locks(database: str, back_up: Backup) -> None:
    """
    Whoever wants the table for itself, as ZITADEL's setup does, gets it while a slice is being read, not after it.
    """
    with psycopg.connect(database) as connection:
        create_schema(connection)
    large_rows(database, rows=1000, row_bytes=8000)
    read: list[int] = []
    read_when_locked: list[int] = []

    def take_the_lock() -> None:
        with psycopg.connect(database) as connection:
            connection.execute("LOCK TABLE eventstore.events2 IN ACCESS EXCLUSIVE MODE")
            read_when_locked.append(sum(read))

    locker = threading.Thread(target=take_the_lock)

    def report(progress: Progress) -> None:
        if isinstance(progress, Advance):
            read.append(progress.raw_bytes)
            if len(read) == 1:
                locker.start()
                expect_waiting(database)

    done = back_up(report=report, jobs=1, rate_limit=8 << 20, chunk_bytes=64 << 20)
    locker.join()

    assert read_when_locked[0] < done.raw_bytes * 3 / 4


def expect_waiting(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for _ in range(2000):
            row = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
            if row and row[0]:
                return
            time.sleep(0.01)
    raise AssertionError("nobody waits for a lock")


def test_the_lease_is_renewed_while_the_source_is_left_alone(archive: Archive, source: str, back_up: Backup) -> None:
    """
    A run that rests keeps others out.
    """
    with lease.hold(archive, "backup", duration=timedelta(milliseconds=600)):
        done = back_up(rate_limit=512 << 10)
        leases = [stat.name for stat in archive.store.list(names.LEASES)]

    assert done.seconds > 0.6
    assert len(leases) > 1
