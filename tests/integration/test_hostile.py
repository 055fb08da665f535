"""Ways to lose events that a hostile reviewer found; each was seen to work before it was closed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.fix_archive import Backup, archived_rows, execute, newest, options, restored, source_rows
from tests.fix_postgres import StartPostgres
from tests.history import Command, create_schema, fill, push
from zbackup.archive.archive import Archive
from zbackup.backup import backup
from zbackup.errors import SourceError, StoreError
from zbackup.event import cursor_of
from zbackup.progress import ObjectStored, Progress

OLDEST = "(SELECT min(created_at) FROM eventstore.events2)"


def prepare(dsn: str, events: int = 3000) -> None:
    with psycopg.connect(dsn) as connection:
        create_schema(connection)
        fill(connection, events=events, seed=13)


@pytest.fixture
def source(database: str) -> str:
    prepare(database)
    return database


def insert_old(dsn: str, payload: int = 1) -> None:
    with psycopg.connect(dsn) as connection:
        at = cursor_of(source_rows(dsn)[100]).created_at
        push(connection, "late", Command("user", f"late{payload}", payload={"n": payload}), clock=at)


def test_a_table_swapped_for_another_is_read_again(archive: Archive, source: str) -> None:
    """
    A table renamed away and replaced keeps its files under its old oid; names mean the new one.
    """
    done: list[str] = []

    def swap(progress: Progress) -> None:
        if isinstance(progress, ObjectStored) and not done:
            done.append(progress.name)
            with psycopg.connect(source) as connection:
                connection.execute("ALTER TABLE eventstore.events2 RENAME TO gone")
                connection.execute("CREATE TABLE eventstore.events2 (LIKE eventstore.gone INCLUDING ALL)")
                connection.execute("ALTER INDEX eventstore.events2_pkey RENAME TO gone_pkey")
                connection.execute("INSERT INTO eventstore.events2 SELECT * FROM eventstore.gone")

    result = backup(archive, source, options(jobs=1, chunk_bytes=32 << 10), report=swap)

    assert done
    assert 3000 == result.events
    assert source_rows(source) == archived_rows(archive)


def test_a_row_replaced_behind_a_tail_is_found(archive: Archive, source: str, back_up: Backup) -> None:
    """
    One old row deleted and another inserted leave every count as it was; the parent's tail must not hide it.
    """
    with psycopg.connect(source) as held:
        push(held, "i1", ("user", "held"))
        with psycopg.connect(source) as connection:
            for number in range(20):
                push(connection, "i1", ("user", f"tail{number}"))
                connection.commit()
        assert back_up().tail >= 20
    execute(source, f"DELETE FROM eventstore.events2 WHERE created_at = {OLDEST}")
    with psycopg.connect(source) as connection:
        push(connection, "late", ("user", "instead"), clock=cursor_of(source_rows(source)[0]).created_at)

    back_up()

    assert source_rows(source) == archived_rows(archive)


def test_counters_lost_in_a_crash_are_noticed(archive: Archive, start_postgres: StartPostgres) -> None:
    """
    After a crash the counters begin at zero and soon look as if they had only grown.
    """
    server = start_postgres()
    prepare(server.dsn(), 300)
    backup(archive, server.dsn(), options())
    execute(
        server.dsn(), f"UPDATE eventstore.events2 SET owner = 'x' WHERE created_at < {OLDEST} + interval '1 second'"
    )
    server.kill()
    server.start()
    with psycopg.connect(server.dsn()) as connection:
        for number in range(400):
            push(connection, "i1", ("user", f"new{number}"))
    execute(server.dsn(), "SELECT 1")

    assert backup(archive, server.dsn(), options()).amended
    assert source_rows(server.dsn()) == archived_rows(archive)


@pytest.mark.parametrize("change", ["insert", "update", "delete"])
def test_what_is_taken_over_is_what_the_source_still_has(
    archive: Archive, source: str, back_up: Backup, change: str
) -> None:
    """
    A run dies, old rows change, the next run takes over only what is still equal.
    """
    stored: list[str] = []

    def die(progress: Progress) -> None:
        if isinstance(progress, ObjectStored):
            stored.append(progress.name)
            if len(stored) == 4:
                raise StoreError("the cable was pulled")

    with pytest.raises(StoreError):
        backup(archive, source, options(jobs=1, chunk_bytes=32 << 10), report=die)
    if change == "insert":
        insert_old(source)
    else:
        verb = "UPDATE eventstore.events2 SET owner = 'x'" if change == "update" else "DELETE FROM eventstore.events2"
        execute(source, f"{verb} WHERE created_at = {OLDEST}")
    execute(source, "SELECT pg_stat_reset()")

    back_up()

    assert source_rows(source) == archived_rows(archive)
    assert len({chunk.name for chunk in archive.chunks(newest(archive).log)} & set(stored)) == len(stored) - 1


@pytest.mark.parametrize("position", ["Infinity", "NaN"])
def test_a_position_that_is_no_number_is_refused_by_name(
    archive: Archive, source: str, back_up: Backup, position: str
) -> None:
    """
    What could not be read back is refused before anything is committed, with the row's key.
    """
    execute(source, f"UPDATE eventstore.events2 SET position = '{position}' WHERE created_at = {OLDEST}")

    with pytest.raises(SourceError, match="is not a number"):
        back_up()
    assert not archive.catalog().entries


def test_an_index_the_target_cannot_have_is_left_out(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    An index on a function that is not restored stops no restore; the statement to make it is told.
    """
    execute(source, "CREATE FUNCTION public.f(TEXT) RETURNS TEXT IMMUTABLE LANGUAGE SQL AS 'SELECT $1'")
    execute(source, 'CREATE INDEX "a USING b" ON eventstore.events2 (event_type)')
    execute(source, "CREATE INDEX odd ON eventstore.events2 (public.f(event_type))")
    back_up()
    target = new_database()

    result = restored(archive, target)

    assert source_rows(source) == source_rows(target)
    assert any("index odd was left out" in warning for warning in result.warnings)
    with psycopg.connect(target) as connection:
        found = connection.execute("SELECT count(*) FROM pg_class WHERE relname = 'a USING b'").fetchone()
    assert (1,) == found


def test_a_table_used_since_its_restore_is_told(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    "Done before" does not hide that rows went or came since.
    """
    back_up()
    target = new_database()
    restored(archive, target)
    execute(target, f"DELETE FROM eventstore.events2 WHERE created_at = {OLDEST}")

    again = restored(archive, target)

    assert again.done_before
    assert any("it was used since" in warning for warning in again.warnings)


def test_a_strangers_file_stops_nothing(archive: Archive, source: str, back_up: Backup, tmp_path: Path) -> None:
    """
    Files that others leave beside the manifests are passed over.
    """
    back_up()
    for name in ("manifests/Thumbs.db", "runs/zz"):
        (tmp_path / "archive" / name).write_bytes(b"x")

    back_up()

    assert source_rows(source) == archived_rows(archive)
