"""A log that grows by many small increments stays short, and holds the same rows."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import psycopg
import pytest

from tests.fix_archive import Backup, archived_rows, newest, restored, source_rows
from tests.history import Command, create_schema, push
from zbackup.archive.archive import Archive
from zbackup.archive.manifest import ChunkRef
from zbackup.compact import FACTOR, due
from zbackup.event import BEGINNING, cursor_of, instant_text
from zbackup.progress import Progress, Step
from zbackup.verify import verify

CHUNK_BYTES = 256 << 10


@pytest.fixture
def source(database: str) -> str:
    with psycopg.connect(database) as connection:
        create_schema(connection)
    return database


def write(dsn: str, number: int, payload: str = "") -> None:
    with psycopg.connect(dsn) as connection:
        push(connection, "i1", Command("user", f"u{number}", payload={"text": payload}))


def chunks(archive: Archive) -> list[ChunkRef]:
    return [*archive.chunks(newest(archive).log)]


def test_many_increments_leave_few_chunks(
    archive: Archive, source: str, back_up: Backup, new_database: Callable[[], str]
) -> None:
    """
    Log and tail stay the source's rows at each step, older backups stay as they were, instants come back.
    """
    runs = 2 * FACTOR + 2
    answers: list[tuple[str, list[bytes]]] = []
    for number in range(runs):
        write(source, number, "x" * 100)
        done = back_up(source, chunk_bytes=CHUNK_BYTES)
        rows = source_rows(source)
        assert archived_rows(archive) == rows
        answers.append((done.backup, rows))

    assert len(chunks(archive)) < FACTOR
    assert verify(archive, level="full", source=source).ok
    for entry, (backup, rows) in zip(archive.catalog().entries, answers, strict=True):
        assert entry.backup == backup
        assert archived_rows(archive, archive.manifest(entry)) == rows
    everything = answers[-1][1]
    at = cursor_of(everything[runs // 2]).created_at
    target = new_database()
    restored(archive, target, instant_text(at), proof="full")
    assert source_rows(target) == everything[: runs // 2 + 1]


def test_rows_that_changed_are_amended_and_not_merged_unseen(archive: Archive, source: str, back_up: Backup) -> None:
    """
    Compaction reads the rows at the source; what it finds changed there, though nothing told, becomes an amendment.
    """
    for number in range(FACTOR):
        write(source, number)
        back_up(source, chunk_bytes=CHUNK_BYTES)
    with psycopg.connect(source) as connection:
        connection.execute("SET track_counts = off")
        connection.execute("UPDATE eventstore.events2 SET owner = 'corrected' WHERE aggregate_id = 'u3'")
    result = back_up(source, chunk_bytes=CHUNK_BYTES)

    assert archived_rows(archive) == source_rows(source)
    assert [found.changed for found in result.amendments] == [1]
    assert len(chunks(archive)) == FACTOR
    back_up(source, chunk_bytes=CHUNK_BYTES)
    assert len(chunks(archive)) == 1
    assert archived_rows(archive) == source_rows(source)


def test_nothing_is_merged_twice_for_nothing(archive: Archive, source: str, back_up: Backup) -> None:
    """
    A backup merges only when enough of a class have come together, and tells it as a step.
    """
    told: list[str] = []

    def report(progress: Progress) -> None:
        if isinstance(progress, Step) and progress.name == "compact":
            told.append(progress.detail)

    for number in range(2 * FACTOR):
        write(source, number)
        back_up(source, report=report, chunk_bytes=CHUNK_BYTES)

    # Small as it is, what was merged first is merged again with the fifteen that follow.
    assert [detail.partition(" up to ")[0] for detail in told] == [f"{FACTOR} chunks"] * 2


def sizes(*raw_bytes: int) -> list[ChunkRef]:
    return [
        ChunkRef(f"c{n}", "", size, "", size, 1, BEGINNING, BEGINNING, (), (), (Decimal(0), Decimal(0)))
        for n, size in enumerate(raw_bytes)
    ]


@pytest.mark.parametrize(
    ("raw", "merged"),
    [
        ([], 0),
        ([100] * (FACTOR - 1), 0),
        ([100] * FACTOR, FACTOR),
        ([64 << 20, *[100] * FACTOR], FACTOR),
        ([20 << 10, *[100] * (FACTOR - 1)], 0),
        ([*[20 << 10] * FACTOR, 100], FACTOR + 1),
        ([*[100] * FACTOR, 20 << 10], 0),
        ([*[300 << 10] * 5, *[20 << 10] * FACTOR, *[100] * 3], FACTOR + 3),
        ([5 << 20] * 100, 0),
        ([3 << 20] * 100, 21),
    ],
)
def test_what_is_due(raw: list[int], merged: int) -> None:
    """
    Enough of a class at the end of the log, with what is smaller behind them, as far as it fits into a chunk.
    """
    found = due(sizes(*raw), 64 << 20)

    assert len(found) == merged
    assert sum(chunk.raw_bytes for chunk in found) <= 64 << 20


@pytest.mark.parametrize("size", [300, 3_000, 40_000])
def test_a_log_stays_short_and_rows_are_written_few_times(size: int) -> None:
    """
    After thousands of increments it has a few dozen chunks, and each row was written a few times.
    """
    increments = 5_000
    (grown,) = sizes(size)
    log: list[ChunkRef] = []
    written = 0
    for _ in range(increments):
        if found := due(log, 64 << 20):
            merged = sum(chunk.raw_bytes for chunk in found)
            log[-len(found) :] = sizes(merged)
            written += merged
        log.append(grown)

    total = increments * size
    assert len(log) <= 4 * FACTOR + total // (4 << 20)
    assert written / total < 8
