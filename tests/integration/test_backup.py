from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.fix_archive import Backup, archived_rows, execute, newest, options, restored, source_rows
from tests.fix_postgres import every_version
from tests.history import create_schema, fill, push
from zbackup.archive.archive import Archive
from zbackup.backup import backup
from zbackup.database.connection import connect
from zbackup.database.export import select_rows
from zbackup.database.kept import Sessions
from zbackup.database.shape import find_events_table
from zbackup.database.snapshot import Snapshot, Worker
from zbackup.errors import NotSupported, SourceRefused, StoreError
from zbackup.event import BEGINNING, cursor_of
from zbackup.progress import Advance, ObjectStored, Progress, Warned
from zbackup.verify import verify


@pytest.fixture
def source(database: str) -> str:
    """A database with a ZITADEL-like history of the past."""
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=3000, seed=7)
    return database


@every_version
def test_a_backup_holds_what_the_source_holds(archive: Archive, source: str, back_up: Backup) -> None:
    """
    Log and tail are the rows of the source, in order, and verify has nothing to say.
    """
    result = back_up()

    assert source_rows(source) == archived_rows(archive)
    assert ("full", 3000, 0) == (result.kind, result.events, result.tail)
    assert verify(archive, level="full", source=source).ok


def test_an_increment_reads_only_what_is_new(archive: Archive, source: str, back_up: Backup) -> None:
    """
    The second backup seals the new rows alone, and shares the chunks of the first.
    """
    back_up()
    before = set(newest(archive).log.chunks)
    with psycopg.connect(source) as connection:
        push(connection, "i1", ("user", "u1"), ("user", "u2"))

    result = back_up()

    assert ("incremental", 2) == (result.kind, result.events + result.tail)
    assert before <= set(newest(archive).log.chunks)
    assert source_rows(source) == archived_rows(archive)


def test_an_increment_of_nothing_stores_no_chunk(archive: Archive, source: str, back_up: Backup) -> None:
    """
    Where nothing happened the horizon moves, and no chunk is made.
    """
    back_up()
    chunks = newest(archive).log.chunks

    results = [back_up() for _ in range(3)]

    assert chunks == newest(archive).log.chunks
    assert results[0].horizon is not None
    assert results[-1].horizon is not None
    assert results[0].horizon < results[-1].horizon
    assert source_rows(source) == archived_rows(archive)


@every_version
@pytest.mark.parametrize("analyzed", [True, False])
@pytest.mark.parametrize("part", [0.0, 0.99])
def test_an_index_serves_every_slice(source: str, part: float, *, analyzed: bool) -> None:
    """
    Rows are read along the index on created_at, a few or all, with statistics or without: nothing is sorted whole.
    """
    if analyzed:
        execute(source, "ANALYZE eventstore.events2")
    rows = source_rows(source)
    begin = cursor_of(rows[int(len(rows) * part)]).created_at
    with connect(source) as connection, Snapshot(Sessions(source)) as snapshot:
        table = find_events_table(connection).table
        assert snapshot.id is not None
        worker = Worker(Sessions(source), snapshot.id, timedelta(seconds=1))
        with closing(worker), worker.transaction() as reading:
            statement = select_rows(table, begin, begin.replace(year=9000))
            plan = [line for (line,) in reading.execute(b"EXPLAIN " + statement.as_bytes(reading)).fetchall()]

    assert any("Index Scan" in line and "es_active_instances" in line for line in plan), plan
    assert any("Incremental Sort" in line for line in plan), plan
    assert not any("Seq Scan" in line or "Gather" in line for line in plan), plan


@every_version
def test_a_late_commit_is_never_missed(archive: Archive, source: str, back_up: Backup) -> None:
    """
    Writers hold their transactions open over one, two, many backups and commit late; each backup holds exactly
    what its snapshot saw, and nothing is sealed that could still change.
    """
    back_up()
    held = [psycopg.connect(source) for _ in range(3)]
    for number, writer in enumerate(held):
        push(writer, "i1", ("user", f"late{number}"), ("org", f"late{number}"))
    for round_ in range(4):
        with psycopg.connect(source) as quick:
            push(quick, "i1", ("user", f"quick{round_}"))
        if round_ > 0:
            writer = held[round_ - 1]
            push(writer, "i1", ("user", f"later{round_}"))
            writer.commit()
        result = back_up()

        assert source_rows(source) == archived_rows(archive), round_
        assert bool(result.blockers) == (round_ < 3)
    for writer in held:
        writer.close()

    assert 0 == newest(archive).tail.__len__()
    assert not newest(archive).amendments


def test_a_held_transaction_does_not_stop_backups(archive: Archive, source: str, back_up: Backup) -> None:
    """
    Behind an open transaction rows travel as the tail, and whoever holds it is named.
    """
    back_up()
    with psycopg.connect(source, application_name="slow one") as writer:
        push(writer, "i1", ("user", "slow"))
        with psycopg.connect(source) as quick:
            push(quick, "i1", ("user", "quick"))

        result = back_up()

        assert (0, 1) == (result.events, result.tail)
        assert ["slow one"] == [blocker.application for blocker in result.blockers]
    assert source_rows(source) != archived_rows(archive)

    back_up()
    assert source_rows(source) == archived_rows(archive)


@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE eventstore.events2",
        "ALTER TABLE eventstore.events2 ALTER COLUMN in_tx_order TYPE BIGINT",
        "VACUUM FULL eventstore.events2",
    ],
)
def test_a_table_rewritten_meanwhile_is_read_again(archive: Archive, source: str, statement: str) -> None:
    """
    A rewrite between two slices would read as empty; it is found, and the rows are read under a new snapshot.
    """
    done = threading.Event()
    warned: list[str] = []

    def report(progress: Progress) -> None:
        if isinstance(progress, ObjectStored) and not done.is_set():
            done.set()
            execute(source, statement)
        if isinstance(progress, Warned):
            warned.append(progress.message)

    result = backup(archive, source, options(jobs=1, chunk_bytes=32 << 10), report=report)

    assert done.is_set()
    assert any("reading it again" in message for message in warned)
    assert source_rows(source) == archived_rows(archive)
    assert len(source_rows(source)) == result.events
    assert 1 == len(archive.catalog().entries)


def test_a_run_goes_on_where_one_died(archive: Archive, source: str, back_up: Backup) -> None:
    """
    The finished slices of a run that did not commit are taken over, proved.
    """
    stored: list[str] = []

    def die(progress: Progress) -> None:
        if isinstance(progress, ObjectStored):
            stored.append(progress.name)
            if len(stored) == 5:
                raise StoreError("the cable was pulled")

    with pytest.raises(StoreError, match="cable"):
        backup(archive, source, options(jobs=1, chunk_bytes=32 << 10), report=die)
    with psycopg.connect(source) as connection:
        push(connection, "i1", ("user", "afterwards"))
    result = back_up()

    used = {chunk.name for chunk in archive.chunks(newest(archive).log)}
    assert len(used & set(stored)) >= 4
    assert "full" == result.kind
    assert source_rows(source) == archived_rows(archive)
    assert verify(archive, level="full", source=source).ok


def test_a_reader_that_ends_after_the_store_failed_leaves_no_file_open(archive: Archive, source: str) -> None:
    """
    When the store fails, what other workers have read meanwhile is dropped with its spool file.
    """
    failed, first = threading.Event(), threading.Lock()
    seen: list[int] = []

    def report(progress: Progress) -> None:
        if isinstance(progress, ObjectStored):
            failed.set()
            raise StoreError("the cable was pulled")
        if isinstance(progress, Advance):
            with first:
                seen.append(threading.get_ident())
            if len(seen) > 1 and failed.wait(10) and threading.get_ident() != seen[0]:
                # Long enough for a run that does not wait for its readers to be gone.
                threading.Event().wait(0.3)

    with pytest.raises(StoreError, match="cable"):
        backup(archive, source, options(jobs=2, chunk_bytes=32 << 10), report=report)
    gc.collect()

    assert len(set(seen)) == 2


def test_what_a_dead_run_left_is_not_used_after_old_rows_changed(
    archive: Archive, source: str, back_up: Backup
) -> None:
    """
    A run that died before old rows were deleted leaves nothing that may be used.
    """

    def die(progress: Progress) -> None:
        if isinstance(progress, ObjectStored):
            raise StoreError("the cable was pulled")

    with pytest.raises(StoreError):
        backup(archive, source, options(jobs=1, chunk_bytes=32 << 10), report=die)
    execute(source, "DELETE FROM eventstore.events2 WHERE created_at < (SELECT avg_ FROM (SELECT min(created_at) + "
                    "interval '1 second' AS avg_ FROM eventstore.events2) m)")  # fmt: skip
    back_up()

    assert source_rows(source) == archived_rows(archive)


def test_a_bigint_order_and_another_column_order_are_read(archive: Archive, database: str, back_up: Backup) -> None:
    """
    Databases that were migrated from v1 have other types and another order of columns.
    """
    with psycopg.connect(database) as connection:
        create_schema(connection, in_tx_order="bigint")
        fill(connection, events=200, seed=3)
        connection.execute("UPDATE eventstore.events2 SET in_tx_order = in_tx_order + 5000000000")
        connection.execute("ALTER TABLE eventstore.events2 RENAME TO old")
        connection.execute(
            "CREATE TABLE eventstore.events2 AS SELECT payload, in_tx_order, position, owner, creator, created_at,"
            ' revision, "sequence", event_type, aggregate_id, aggregate_type, instance_id FROM eventstore.old'
        )
        connection.execute("DROP TABLE eventstore.old")
        for name in ("instance_id", "aggregate_type", "aggregate_id", "event_type", "sequence", "revision",
                     "created_at", "creator", "owner", "position", "in_tx_order"):  # fmt: skip
            connection.execute(f'ALTER TABLE eventstore.events2 ALTER COLUMN "{name}" SET NOT NULL')  # type: ignore[arg-type]
        connection.execute(
            "ALTER TABLE eventstore.events2 ADD CONSTRAINT events2_pkey PRIMARY KEY "
            '(instance_id, aggregate_type, aggregate_id, "sequence")'
        )

    back_up()

    assert source_rows(database) == archived_rows(archive)
    assert "bigint" in {column.type for column in newest(archive).table.columns}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("ALTER TABLE eventstore.events2 ADD COLUMN tenant TEXT", "column tenant is unknown"),
        ("ALTER TABLE eventstore.events2 DROP COLUMN creator", "column creator is missing"),
        ("ALTER TABLE eventstore.events2 ALTER COLUMN payload TYPE TEXT", "column payload is text"),
        ("ALTER TABLE eventstore.events2 DROP CONSTRAINT events2_pkey", "primary key is"),
    ],
)
def test_an_unknown_shape_is_refused_by_name(source: str, back_up: Backup, change: str, said: str) -> None:
    """
    A table that is not what ZITADEL makes is refused, with every difference.
    """
    execute(source, change)

    with pytest.raises(SourceRefused, match=said):
        back_up()


def test_the_old_events_table_is_recognised(source: str, back_up: Backup) -> None:
    """
    The table of v2.38 and before is refused with a word on what it is.
    """
    execute(source, "ALTER TABLE eventstore.events2 RENAME TO events")

    with pytest.raises(NotSupported, match=r"v2\.38"):
        back_up()


def test_two_runs_at_once_both_stay(archive: Archive, source: str) -> None:
    """
    Two backups at the same time commit side by side; the next one continues one of them and says so.
    """
    backup(archive, source, options())
    with psycopg.connect(source) as connection:
        push(connection, "i1", ("user", "new"))
    results: list[Any] = []
    threads = [threading.Thread(target=lambda: results.append(backup(archive, source, options()))) for _ in range(2)]
    barrier = len(archive.catalog().entries)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    raced = len({entry.number for entry in archive.catalog().entries}) < len(archive.catalog().entries)

    result = backup(archive, source, options())

    assert barrier + 3 == len(archive.catalog().entries)
    assert any("runs raced" in warning for warning in result.warnings) == raced
    for entry in archive.catalog().entries[1:]:
        assert source_rows(source) == archived_rows(archive, archive.manifest(entry))


def test_times_of_a_backup_are_in_order(archive: Archive, source: str, back_up: Backup) -> None:
    """
    Horizon, recovery point and end of a backup come in this order.
    """
    result = back_up()
    manifest = newest(archive)

    assert result.horizon is not None
    assert BEGINNING < result.horizon <= result.recovery_point <= manifest.finished


def test_a_restored_database_is_the_source(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    Rows, key and indexes come back as they were.
    """
    back_up()
    target = new_database()

    restored(archive, target, proof="full")

    with connect(source) as one, connect(target) as other:
        assert find_events_table(one).table == find_events_table(other).table
    assert source_rows(source) == source_rows(target)


def test_times_are_in_utc_whatever_the_database_says(
    archive: Archive, source: str, new_database: Callable[[], str], back_up: Backup
) -> None:
    """
    Settings of role and database do not change a byte of what is archived.
    """
    name = str(conninfo_to_dict(source)["dbname"])
    before = source_rows(source)
    for setting in ("TimeZone TO 'Asia/Kathmandu'", "DateStyle TO 'SQL, DMY'", "bytea_output TO 'escape'"):
        execute(source, f'ALTER DATABASE "{name}" SET {setting}')

    back_up()

    assert before == archived_rows(archive)
    assert isinstance(newest(archive).snapshot, datetime)
    assert replace(newest(archive)) == newest(archive)
