from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.fix_archive import Backup, archived_rows, execute, newest, restored, source_rows
from tests.fix_postgres import StartPostgres
from tests.history import create_schema, fill, push
from zbackup.archive.archive import Archive
from zbackup.database.embedded import standby_of
from zbackup.verify import verify


@pytest.fixture
def source(database: str) -> str:
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=3000, seed=5)
    return database


def name(dsn: str) -> str:
    return str(conninfo_to_dict(dsn)["dbname"])


def add(dsn: str, aggregate: str) -> None:
    with psycopg.connect(dsn) as connection:
        push(connection, "i1", ("user", aggregate))


def clone(dsn: str, new_database: Callable[[], str]) -> str:
    """Copy a database on its server, as a restore from a dump would."""
    other = new_database()
    execute(dsn.replace(name(dsn), "postgres"), f'DROP DATABASE "{name(other)}"')
    execute(dsn.replace(name(dsn), "postgres"), f'CREATE DATABASE "{name(other)}" TEMPLATE "{name(dsn)}"')
    return other


def test_a_source_that_went_back_begins_a_generation(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    A database put back to an older state and written on is a new history; both stay restorable.
    """
    back_up()
    first = newest(archive)
    add(source, "lost")
    back_up()
    lost = newest(archive)
    execute(source, "DELETE FROM eventstore.events2 WHERE aggregate_id = 'lost'")
    add(source, "instead")

    result = back_up()

    assert ("full", first.generation) == (result.kind, lost.generation)
    assert result.generation != first.generation
    assert any("went back to an older state" in warning for warning in result.warnings)
    assert source_rows(source) == archived_rows(archive)
    assert set(first.log.chunks) & set(newest(archive).log.chunks), "equal chunks are shared"
    assert any(b"\tlost\t" in row for row in archived_rows(archive, lost))
    target = new_database()
    restored(archive, target, f"backup:{lost.backup}")
    assert archived_rows(archive, lost) == source_rows(target)
    assert verify(archive, level="full", source=source).ok


def test_a_clone_is_another_source(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    A copy of the database under another oid has a history of its own, and shares what is equal.
    """
    back_up()
    other = clone(source, new_database)
    add(other, "clone")

    result = back_up(other)

    assert "full" == result.kind
    assert any("another database" in warning for warning in result.warnings)
    assert source_rows(other) == archived_rows(archive)
    assert sum(chunk.stored_bytes for chunk in newest(archive).log.chunks) > result.stored_bytes


def test_two_sources_on_one_archive_are_never_mixed(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    Backups of two databases into one archive, in turn: each continues its own generation, and it is said.
    """
    back_up()
    other = clone(source, new_database)
    generations: list[tuple[str, str]] = []
    for round_ in range(3):
        add(source, f"mine{round_}")
        add(other, f"yours{round_}")
        yours = back_up(other)
        assert source_rows(other) == archived_rows(archive)
        mine = back_up()
        assert source_rows(source) == archived_rows(archive)
        assert any("another source wrote" in warning for warning in mine.warnings)
        generations.append((mine.generation, yours.generation))

    assert 1 == len(set(generations))
    assert verify(archive, level="full").ok


def test_a_promoted_standby_goes_on(
    archive: Archive, start_postgres: StartPostgres, back_up: Backup, tmp_path: object
) -> None:
    """
    After a promotion the timeline moved forward: all rows are compared, and the generation goes on.
    """
    primary = start_postgres()
    with psycopg.connect(primary.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE z")
    with psycopg.connect(primary.dsn("z")) as connection:
        create_schema(connection)
        fill(connection, events=500, seed=1)
    before = back_up(primary.dsn("z"))
    with standby_of(primary) as standby:
        standby.promote()
        add(standby.dsn("z"), "new life")
        steps: list[str] = []

        result = back_up(standby.dsn("z"), report=lambda progress: steps.append(str(progress)))

        assert (before.generation, "incremental") == (result.generation, result.kind)
        assert any("the timeline moved from 1 to 2" in step for step in steps)
        assert source_rows(standby.dsn("z")) == archived_rows(archive)

        add(primary.dsn("z"), "old life")
        back = back_up(primary.dsn("z"))

        assert back.generation != result.generation
        assert any("timeline went back" in warning for warning in back.warnings)
        assert source_rows(primary.dsn("z")) == archived_rows(archive)


def test_a_lossy_failover_begins_a_generation(archive: Archive, start_postgres: StartPostgres, back_up: Backup) -> None:
    """
    A standby that was promoted without the newest archived rows is a new history.
    """
    primary = start_postgres()
    with psycopg.connect(primary.dsn()) as connection:
        create_schema(connection)
        fill(connection, events=500, seed=1)
    with standby_of(primary) as standby:
        standby.stop()
        add(primary.dsn(), "lost")
        before = back_up(primary.dsn())
        primary.stop()
        standby.start()
        standby.promote()

        result = back_up(standby.dsn())

        assert before.generation != result.generation
        assert any("lost events" in warning for warning in result.warnings)
        assert source_rows(standby.dsn()) == archived_rows(archive)
        assert any(b"\tlost\t" in row for entry in archive.catalog().entries[:1]
                   for row in archived_rows(archive, archive.manifest(entry)))  # fmt: skip
