from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from tests.archived import Maker
from tests.fix_archive import Backup, execute, restored
from tests.history import create_schema, fill, fill_state, push
from tests.unit.rows import EPOCH, row
from zbackup.archive.archive import Archive
from zbackup.archive.chunk import ChunkWriter, FrameFacts
from zbackup.archive.rows import Rows
from zbackup.archive.table import LISTED
from zbackup.errors import ZbackupError
from zbackup.verify import Level, verify


@pytest.fixture
def source(database: str) -> str:
    with psycopg.connect(database) as connection:
        create_schema(connection)
        fill(connection, events=1500, seed=5)
    return database


@pytest.fixture
def full_archive(archive: Archive, source: str, back_up: Backup) -> Archive:
    """Two backups, captures with more assets than one record lists, an amendment and a tail."""
    with psycopg.connect(source) as connection:
        fill_state(connection, assets=LISTED + 1)
    back_up(capture=True)
    with psycopg.connect(source) as connection:
        push(connection, "i1", ("user", "new"))
    execute(source, "UPDATE eventstore.events2 SET owner = 'x' WHERE \"sequence\" = 2")
    with psycopg.connect(source) as held:
        push(held, "i1", ("user", "held"))
        with psycopg.connect(source) as connection:
            push(connection, "i1", ("user", "tail"))
        back_up(capture=True)
    return archive


def objects(archive: Archive, tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "archive").rglob("*") if path.is_file())


def findings(archive: Archive, level: Level) -> str:
    return " ".join(f"{found.object} {found.problem}" for found in verify(archive, level=level).findings)


@pytest.mark.parametrize("level", ["quick", "default", "full"])
def test_a_good_archive_has_no_findings(full_archive: Archive, level: Level) -> None:
    """
    Nothing is found where nothing is wrong, and every object is looked at.
    """
    result = verify(full_archive, level=level)

    assert result.ok, result.findings
    assert (0 < result.raw_bytes) == (level == "full")


def test_any_missing_object_is_found(full_archive: Archive, tmp_path: Path) -> None:
    """
    Each object that a backup needs, taken away, is found by the quickest look, with its name.
    """
    for path in objects(full_archive, tmp_path):
        name = path.relative_to(tmp_path / "archive").as_posix()
        if name.startswith(("runs/", "archive/")):
            continue
        body = path.read_bytes()
        path.unlink()
        newest = name == str(full_archive.catalog().head()) or name > max(map(str, full_archive.catalog().entries))

        said = findings(full_archive, "quick")

        path.write_bytes(body)
        # The newest manifest alone leaves nothing that would miss it.
        assert newest or name.rpartition("-")[2] in said or name.split("_")[1].rpartition("-")[2] in said, name


def test_any_flipped_byte_is_found(full_archive: Archive, tmp_path: Path) -> None:
    """
    One byte changed in any object is found by the default look, with the object's name.
    """
    rng = random.Random(4)
    for path in objects(full_archive, tmp_path):
        name = path.relative_to(tmp_path / "archive").as_posix()
        body = path.read_bytes()
        for at in {0, len(body) - 1, *(rng.randrange(len(body)) for _ in range(3))}:
            path.write_bytes(body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :])

            said = findings_or_error(full_archive)

            assert name in said, (name, at, said)
        path.write_bytes(body)


def findings_or_error(archive: Archive) -> str:
    try:
        return findings(Archive.open(archive.store), "default")
    except ZbackupError as error:
        return error.message


def test_two_chunks_swapped_are_found(full_archive: Archive, tmp_path: Path, new_database: Callable[[], str]) -> None:
    """
    Two good chunks in each other's place are found, by verify and by restore before anything is published.
    """
    one, other = [path for path in objects(full_archive, tmp_path) if "/events/" in path.as_posix()][:2]
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    target = new_database()

    assert not verify(full_archive).ok
    with pytest.raises(ZbackupError, match="events/"):
        restored(full_archive, target)
    with psycopg.connect(target) as connection:
        assert (None,) == connection.execute("SELECT to_regclass('eventstore.events2')").fetchone()


class Miscounting(ChunkWriter):
    """Says in its trailers that all rows are of organizations."""

    def add_events(self, facts: FrameFacts, rows: Rows) -> None:
        super().add_events(replace(facts, aggregate_types=Counter({b"org": facts.rows})), rows)


def test_wrong_counts_in_a_trailer_are_found(tmp_path: Path) -> None:
    """
    A trailer that agrees with its bytes, but not with what the rows are, would only stop a restore.
    """
    maker = Maker.at(tmp_path / "archive")
    maker.writer = Miscounting
    rows = [row(EPOCH + timedelta(seconds=number), sequence=number + 1) for number in range(10)]
    maker.backup(rows, horizon=EPOCH + timedelta(days=1), snapshot=EPOCH + timedelta(days=1))

    assert "its counts are not those of its rows" in findings(maker.archive, "full")


def test_the_first_differences_are_named(full_archive: Archive, source: str) -> None:
    """
    `--source` tells rows that are missing, extra or different, without their payload.
    """
    assert verify(full_archive, source=source).ok
    some = (
        "(aggregate_type, aggregate_id) = (SELECT 'session', {}(aggregate_id) FROM eventstore.events2 "
        "WHERE aggregate_type = 'session')"
    )
    execute(source, "UPDATE eventstore.events2 SET creator = 'secret' WHERE " + some.format("min"))
    execute(source, "DELETE FROM eventstore.events2 WHERE " + some.format("max"))
    with psycopg.connect(source) as connection:
        connection.execute(
            "INSERT INTO eventstore.events2 SELECT instance_id, aggregate_type, 'extra', event_type, \"sequence\", "
            "revision, created_at, payload, creator, owner, position, in_tx_order FROM eventstore.events2 LIMIT 1"
        )

    result = verify(full_archive, source=source)

    text = " ".join(found.problem for found in result.findings)
    assert {"source"} == {found.kind for found in result.findings}
    assert "differs: " in text
    assert "not in the source: " in text
    assert "not in the archive: " in text
    assert "secret" not in text
